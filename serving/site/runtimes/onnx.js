// onnxruntime on the CPU of the device.

import * as ort from "../../libraries/onnx/ort.js";

const at = (file) => new URL(`../../libraries/onnx/${file}`, import.meta.url).href;
ort.env.wasm.wasmPaths = { mjs: at("ort-wasm.js"), wasm: at("ort-wasm.wasm") };
// More threads are workers of their own, which the page's policy does not reach.
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";

const tensor = (values) =>
  new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);

/**
 * Load an .onnx file.
 * @param {Uint8Array} bytes
 * @param {string} output the one that is asked for
 * @returns {Promise<import("../answering.js").Runner>}
 */
export async function load(bytes, output) {
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  async function run(inputs) {
    const named = session.inputNames.map((name) => [name, tensor(inputs[name])]);
    const { [output]: found } = await session.run(Object.fromEntries(named), [output]);
    return found.data;
  }
  return { run, release: () => session.release() };
}
