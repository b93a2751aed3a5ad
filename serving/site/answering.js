// Answers texts with a file of the model: runs in the worker that answerer.js starts.

import { decode, decodeSpans } from "./decoding.js";
import { Encoder } from "./tokenizer.js";

// A TFLite file has one output; which of these, and on which scale, its name says.
const OUTPUTS = ["probabilities", "logits", "sentence_embedding"];

/**
 * @typedef {object} Runner a loaded file
 * @property {(inputs: Record<string, number[]>) => Promise<Float32Array>} run takes the three
 *   standard inputs of one text
 * @property {() => void} release gives the file's memory back
 */

const root = new URL("../", import.meta.url);
const json = (path) => fetched(path).then((response) => response.json());
let model = null, encoder = null;
let loaded = { path: null, runner: null };

async function fetched(path, cache = "default") {
  const response = await fetch(new URL(path, root), { cache }).catch(() => {
    throw new Error(`${path} cannot be loaded: there is no network, and it is not kept yet.`);
  });
  if (response.ok) return response;
  throw new Error(`${path} cannot be loaded: the server says ${response.status}.`);
}

async function open() {
  const [about, tokenizer, config] = await Promise.all(
    ["site.json", "model/tokenizer.json", "model/tokenizer_config.json"].map(json));
  encoder = new Encoder(tokenizer, config);
  model = about;
}

/** Load a file unless it is loaded; only one is held, as phones have little room. */
async function load(file, progress) {
  if (loaded.path === file.path) return loaded.runner;
  loaded.runner?.release();
  loaded = { path: null, runner: null };
  const bytes = await download(file, progress);
  const runtime = await import(`./runtimes/${{ onnx: "onnx", tflite: "litert" }[file.runtime]}.js`);
  const runner = await runtime.load(bytes, output(file));
  loaded = { path: file.path, runner };
  return runner;
}

async function download(file, progress) {
  const path = `model/${file.path}`;
  let found = "";
  for (const cache of ["default", "reload"]) {
    const bytes = await read(await fetched(path, cache), file.bytes, progress);
    found = await sha256(bytes);
    if (found === null || found === file.sha256) return bytes;
    await forget(path);
  }
  throw new Error(`${file.path} has sha256 ${found.slice(0, 12)}… and ` +
    `${file.sha256.slice(0, 12)}… was published: it was changed or damaged on the way.`);
}

async function read(response, total, progress) {
  const bytes = new Uint8Array(total);
  let length = 0;
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return bytes.subarray(0, length);
    if (length + value.length <= total) bytes.set(value, length);
    length += value.length;
    progress(length / total);
  }
}

async function sha256(bytes) {
  if (!self.crypto?.subtle) return null; // at http:// addresses of other computers
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Take a file out of what is kept on the device, so that it is asked for again. */
async function forget(path) {
  for (const name of await caches.keys()) {
    await (await caches.open(name)).delete(new URL(path, root));
  }
}

const output = ({ outputs }) => OUTPUTS.find((name) => outputs.includes(name));

/** Answer questions of one text or two; also gives the milliseconds that the runtime took. */
async function answer({ texts, file: path }, progress) {
  if (!model) await open();
  const file = model.files.find((one) => one.path === path);
  const runner = await load(file, progress);
  const answers = [];
  let latency = 0;

  async function run({ ids, types }) {
    const length = file.length ?? ids.length;
    const inputs = {
      input_ids: padded(ids, length, model.pad_id),
      attention_mask: padded(ids.map(() => 1), length, 0),
      token_type_ids: padded(types, length, 0),
    };
    const start = performance.now();
    const found = await runner.run(inputs);
    latency += performance.now() - start;
    return found;
  }

  // One text at a time: an int8 file's answer would otherwise depend on the texts beside it.
  for (const parts of texts) {
    if (model.task === "tag") {
      answers.push({ spans: await tag(parts[0], file.max_tokens, run) });
    } else {
      const found = await run(encoder.encode(parts, file.max_tokens));
      answers.push(decode(model, { [output(file)]: found }));
    }
  }
  return { answers, file: path, latency_ms: latency };
}

async function tag(text, limit, run) {
  const { labels } = model, { windows, words } = encoder.encodeWords(text, limit);
  const outputs = [];
  for (const window of windows) outputs.push(await run(window));
  const logits = words.map(({ window, token }) => (window < 0 ? null
    : outputs[window].subarray(token * labels.length, (token + 1) * labels.length)));
  return decodeSpans(labels, text, words, logits);
}

function padded(values, length, fill) {
  return [...values, ...Array(length - values.length).fill(fill)];
}

// One question after the other: runtimes hold the state of the call under way.
let queue = Promise.resolve();
self.addEventListener("message", ({ data: { number, question } }) => {
  const progress = (share) => self.postMessage({ number, progress: share });
  queue = queue.then(() => answer(question, progress)).then(
    (found) => self.postMessage({ number, answer: found }),
    (error) => self.postMessage({ number, error: error.message }));
});
self.postMessage({ ready: true });
