// Answers texts with a file of the model: runs in the worker that answerer.js starts.

import { decode, decodeSpans } from "./decoding.js";
import { Encoder } from "./tokenizer.js";

const MULTIPLE = 8; // of which lengths are, as tf_pipeline/text.py pads them
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

async function fetched(path) {
  const response = await fetch(new URL(path, root));
  if (!response.ok) throw new Error(`${path} cannot be loaded: the server says ${response.status}.`);
  return response;
}

async function open() {
  const [about, tokenizer, config] = await Promise.all(
    ["site.json", "model/tokenizer.json", "model/tokenizer_config.json"].map(json));
  encoder = new Encoder(tokenizer, config);
  model = about;
}

/** Load a file unless it is the one that is loaded; only one is held, as phones have little room. */
async function load(file, progress) {
  if (loaded.path === file.path) return loaded.runner;
  loaded.runner?.release();
  loaded = { path: null, runner: null };
  const bytes = await read(await fetched(`model/${file.path}`), file.bytes, progress);
  await check(bytes, file);
  const runtime = await import(`./runtimes/${{ onnx: "onnx", tflite: "litert" }[file.runtime]}.js`);
  const runner = await runtime.load(bytes, output(file));
  loaded = { path: file.path, runner };
  return runner;
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

async function check(bytes, { path, sha256 }) {
  if (!self.crypto?.subtle) return; // pages at http:// of another computer have none
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== sha256) {
    throw new Error(`${path} has sha256 ${found.slice(0, 12)}… and ${sha256.slice(0, 12)}… was ` +
      "published: it was changed or damaged on the way. Load the page again.");
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
    const length = file.length ?? Math.ceil(ids.length / MULTIPLE) * MULTIPLE;
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
