// LiteRT on the CPU of the device.

import { loadAndCompile, loadLiteRt, Tensor } from "../../libraries/litert/index.js";

const FOLDER = new URL("../../libraries/litert/", import.meta.url).href;
let started = null; // once for all files

function start() {
  // Its script looks for the .wasm beside the worker, which has no address.
  self.Module = { locateFile: (file) => FOLDER + file };
  return loadLiteRt(FOLDER);
}

/**
 * Load a .tflite file.
 * @param {Uint8Array} bytes
 * @param {string} output the one that is asked for
 * @returns {Promise<import("../answering.js").Runner>}
 */
export async function load(bytes, output) {
  await (started ??= start());
  const model = await loadAndCompile(bytes, { accelerator: "wasm" });
  // By name: the converter reverses inputs.
  const names = model.getInputDetails().map(({ name }) => name);
  const place = model.getOutputDetails().findIndex(({ name }) => name === output);
  async function run(inputs) {
    const feeds = names.map((name) => new Tensor(Int32Array.from(inputs[name]),
      [1, inputs[name].length]));
    const results = await model.run(feeds);
    const found = Float32Array.from(await results[place].data());
    for (const tensor of [...feeds, ...results]) tensor.delete();
    return found;
  }
  return { run, release: () => model.delete() };
}
