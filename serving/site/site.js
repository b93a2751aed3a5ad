// The page that runs the model itself: asks a worker as one types, and works without a network.

import { start } from "../web/question.js";
import { Answerer } from "./answerer.js";
import { Keeper } from "./keeping.js";

const answerer = new Answerer();
const keeper = new Keeper(answerer);

async function open() {
  const response = await fetch("site.json").catch(() => {
    throw new Error("The site cannot be reached. See whether there is a network, then press Ask.");
  });
  if (!response.ok) {
    throw new Error(`site.json cannot be loaded: the server says ${response.status}.`);
  }
  const model = await response.json();
  // After the form has the files: it says which of them answers.
  setTimeout(() => keeper.start(model));
  return model;
}

async function ask(texts, file, { signal, waiting }) {
  await keeper.ready; // what is loaded from now on is kept
  const progress = (share) => waiting(`Loading ${file}: ${Math.floor(100 * share)}\u00a0% …`);
  return answerer.ask(texts.map((text) => [text].flat()), file, { signal, progress });
}

start({ open, ask });
