// transformers.js in Node: `PARENT NAME DTYPE [PIPELINE]`, texts as a JSON list in; for each text
// a line of JSON out: its ids, the last of them as the tokenizer gave it, the model's outputs for
// them, and what the pipeline makes of the text.
import { readFileSync } from "node:fs";
import { AutoModel, AutoTokenizer, env, pipeline } from "@huggingface/transformers";

const [parent, name, dtype, kind] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = parent;
const tokenizer = await AutoTokenizer.from_pretrained(name);
const model = await AutoModel.from_pretrained(name, { dtype });
const ask = kind && (await pipeline(kind, name, { dtype }));
for (const text of JSON.parse(readFileSync(0, "utf-8"))) {
  const [first, second] = [text].flat();
  const inputs = tokenizer(first, { text_pair: second ?? null, truncation: true });
  const last = inputs.input_ids.data.length - 1;
  const given = Number(inputs.input_ids.data[last]);
  // The tokenizer cuts a long text after it has added [SEP], which is then missing.
  inputs.input_ids.data[last] = BigInt(tokenizer.sep_token_id);
  const outputs = {};
  for (const [key, tensor] of Object.entries(await model(inputs))) outputs[key] = tensor.tolist()[0];
  const ids = inputs.input_ids.tolist()[0].map(Number);
  const options = kind === "text-classification" ? { top_k: null } : { ignore_labels: [] };
  const answer = ask && (await ask(text, options));
  console.log(JSON.stringify({ ids, given, outputs, answer }));
}
