// The form that asks as one types, and the place of the answers. The server's page and the site
// that `python -m serving web` writes share it; each brings its own way to get answers.

import { inWords, megabytes, milliseconds, plural, showAnswers } from "./answers.js";

const PAUSE_MS = 150; // of typing, before asking
const SPOKEN_PAUSE_MS = 1000; // a screen reader hears the answers when typing has stopped
const PATIENCE_MS = 400; // before saying what is waited for: a file's first answer loads it
const EXAMPLE = "What a wonderful evening.\nIt was dull and far too long.\n" +
  "Good food, but we waited an hour for it.";
const PAIR_EXAMPLE = "How do I reset my PIN? ||| I forgot my PIN.\n" +
  "Where is my card? ||| Can I pay in euros?";
const KINDS = { onnx: "ONNX", tflite: "TFLite", saved_model: "SavedModel" };

const PAIR_MARK = "|||"; // between two texts that are asked about together
export const at = (id) => document.getElementById(id);

const texts = at("texts"), file = at("file"), answers = at("answers");

let backend = null;
let model = null; // what backend.open() said
let running = null; // AbortController of the request under way
let again = false; // the text changed meanwhile
let timer = 0, spokenTimer = 0;

/**
 * @typedef {object} Backend
 * @property {() => Promise<object>} open gives the model as GET /v1/models/NAME/files describes it
 * @property {(texts: (string | string[])[], file: string, options: {signal: AbortSignal,
 *   waiting: (words: string) => void}) => Promise<object>} ask gives answers as `:answer` does;
 *   `waiting` shows what is waited for
 * @property {(texts: (string | string[])[], file: string) => void} [changed] is told of what will
 *   be asked
 */

/** Make the page answer, with a backend of its own. */
export async function start(chosen) {
  backend = chosen;
  texts.addEventListener("input", askSoon);
  file.addEventListener("change", () => { showFile(); ask({ now: true }); });
  at("clear").addEventListener("click", () => { texts.value = ""; texts.focus(); ask(); });
  at("example").addEventListener("click", () => {
    texts.value = pairs() ? PAIR_EXAMPLE : EXAMPLE;
    texts.focus();
    ask();
  });
  at("question").addEventListener("submit", (event) => {
    event.preventDefault();
    askOrOpen();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      askOrOpen();
    }
  });
  await open();
}

const askOrOpen = () => (model ? ask({ now: true }) : open());

async function open() {
  try {
    model = await backend.open();
  } catch (error) {
    showError(error);
    return;
  }
  document.title = `Ask ${model.model}`;
  at("name").textContent = model.model;
  const labels = model.labels.length ? ` · ${plural(model.labels.length, "label")}` : "";
  at("about").textContent = `${model.task} · version ${model.version}${labels}`;
  at("drift").hidden = !model.drift;
  if (pairs()) {
    texts.placeholder = `First text ${PAIR_MARK} second text`;
    at("hint").prepend(`Two texts a line, with ${PAIR_MARK} between. `);
  }
  file.replaceChildren(...model.files.map(({ path }) => new Option(path, path)));
  file.value = model.file;
  showFile();
  await ask();
}

// ---- the question

const pairs = () => model !== null && model.fields.length > 1;
const parts = (line) => line.split(PAIR_MARK).map((text) => text.trim());
const whole = (line) => (pairs() ? parts(line).length === 2 && !parts(line).includes("")
  : line.trim() !== "");
const lines = () => texts.value.split(/\r?\n/).filter(whole); // half a pair is still being typed
const questions = (asked) => (pairs() ? asked.map(parts) : asked);

async function ask({ now = false } = {}) {
  clearTimeout(timer);
  if (!model) return;
  const asked = lines();
  backend.changed?.(questions(asked), file.value);
  if (!asked.length) {
    running?.abort();
    show([], []);
    return;
  }
  if (running && !now) { // one request at a time: a slow model gets no queue of old texts
    again = true;
    return;
  }
  running?.abort();
  const mine = running = new AbortController();
  answers.setAttribute("aria-busy", "true");
  let patient = true, words = `Waiting for ${file.value} …`;
  const showWaiting = () => {
    if (!patient && running === mine) at("latency").textContent = words;
  };
  const waiting = setTimeout(() => { patient = false; showWaiting(); }, PATIENCE_MS);
  try {
    const start = performance.now();
    const answer = await backend.ask(questions(asked), file.value, { signal: mine.signal,
      waiting: (said) => { words = said; showWaiting(); } });
    at("error").textContent = "";
    show(asked, answer.answers);
    showLatency(asked.length, answer, performance.now() - start);
  } catch (error) {
    if (error.name !== "AbortError") {
      show([], []);
      at("empty").hidden = true;
      showError(error);
    }
  } finally {
    clearTimeout(waiting);
    if (running === mine) {
      running = null;
      answers.removeAttribute("aria-busy");
      if (again) ask();
      again = false;
    }
  }
}

function askSoon() {
  clearTimeout(timer);
  timer = setTimeout(ask, PAUSE_MS);
}

// ---- what comes of it

function show(asked, given) {
  if (!asked.length) at("error").textContent = at("latency").textContent = "";
  at("empty").hidden = asked.length > 0;
  showAnswers(answers, model.labels, asked, given);
  clearTimeout(spokenTimer);
  spokenTimer = setTimeout(() => { at("spoken").textContent = inWords(given); }, SPOKEN_PAUSE_MS);
}

function showError(error) {
  at("error").textContent = error.message;
}

function showLatency(count, answer, wholeMs) {
  at("latency").textContent = `${plural(count, "text")} · ${milliseconds(answer.latency_ms)} in ` +
    `the model · ${milliseconds(wholeMs)} in all`;
  at("latency").dataset.file = answer.file;
}

function showFile() {
  at("file-about").textContent = describe(model.files.find(({ path }) => path === file.value));
}

function describe({ runtime, variant, bytes, max_tokens: tokens, agreement }) {
  const said = [`${KINDS[runtime] ?? runtime} ${variant}`, megabytes(bytes),
    `reads ${tokens} tokens of a text`];
  if (agreement !== null) {
    // Rounded down: "100 %" is said of equal files only.
    const share = `${Math.floor(1000 * agreement) / 10}\u00a0%`;
    said.push(`decides as the trained model on ${share} of the evaluation rows`);
  }
  return said.join(" · ");
}
