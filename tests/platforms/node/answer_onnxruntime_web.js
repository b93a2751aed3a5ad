// onnxruntime-web (WebAssembly) in Node: `MODEL.onnx`, a JSON list of {input name: row of ids} in;
// for each a line of JSON out: the outputs' names with their values, flat.
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";

ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(process.argv[2]));
for (const row of JSON.parse(readFileSync(0, "utf-8"))) {
  const inputs = {};
  for (const [name, ids] of Object.entries(row)) {
    inputs[name] = new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);
  }
  const outputs = {};
  for (const [name, tensor] of Object.entries(await session.run(inputs))) outputs[name] = [...tensor.data];
  console.log(JSON.stringify(outputs));
}
