// The page at `/`: asks the server's :answer as one types, and shows the same as a curl line.

import { at, start } from "./question.js";

let model = null; // what GET /v1/models/NAME/files says
const route = () => `v1/models/${encodeURIComponent(model.model)}`;

async function fetchJson(url, options = {}) {
  const headers = { Accept: "application/json" };
  const response = await fetch(url, { ...options, headers }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. See whether it still runs, then press Ask.");
  });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error || `The server answered with ${response.status}.`);
  return body;
}

function body(texts, file) {
  const question = { texts };
  if (file && file !== model.file) question.file = file;
  return JSON.stringify(question);
}

async function open() {
  const { models } = await fetchJson("healthz");
  // A server may have several models: ?model=NAME picks one.
  const name = new URLSearchParams(location.search).get("model") ?? models[0].model;
  model = await fetchJson(`v1/models/${encodeURIComponent(name)}/files`);
  return model;
}

function ask(texts, file, { signal }) {
  return fetchJson(`${route()}:answer`, { method: "POST", body: body(texts, file), signal });
}

function showCurl(texts, file) {
  // Where nothing is typed the line still works as it stands.
  const example = model.fields.length > 1 ? ["a text", "another"] : "a text";
  const asked = texts.length ? texts : [example];
  const url = new URL(`${route()}:answer`, document.baseURI).href;
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`; // for sh, bash and zsh
  at("curl").textContent = `curl ${quoted(url)} -d ${quoted(body(asked, file))}`;
}

async function copyCurl() {
  const button = at("copy"), words = button.dataset.words ??= button.textContent;
  let copied = true;
  try {
    await navigator.clipboard.writeText(at("curl").textContent);
  } catch { // browsers hide the clipboard from pages at http:// of another computer
    getSelection().selectAllChildren(at("curl"));
    copied = document.execCommand("copy");
  }
  button.textContent = copied ? "Copied" : "Selected: press Ctrl+C";
  at("spoken").textContent = copied ? "The curl line is copied." : "Press Control C to copy.";
  setTimeout(() => { button.textContent = words; }, 2000);
}

at("copy").addEventListener("click", copyCurl);
start({ open, ask, changed: showCurl });
