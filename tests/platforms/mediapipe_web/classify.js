// MediaPipe's TextClassifier in a page: a .tflite file and texts in, scores by label out.

import { FilesetResolver, TextClassifier } from
  "./node_modules/@mediapipe/tasks-text/text_bundle.mjs";

/** Do before MediaPipe's tokenizer what it leaves out of BERT's, as docs/browser.md writes it. */
export const fold = (text) => text.normalize("NFD").replace(/[\t\n\r]/g, " ")
  .replace(/[\p{Mn}\p{Cc}\p{Cf}\p{Co}\uFFFD]/gu, "").replace(/\p{White_Space}/gu, " ")
  .replaceAll("Σ", "σ").toLowerCase();

/** Give for each text the score of each label. */
export async function classify(file, texts) {
  const files = await FilesetResolver.forTextTasks("./node_modules/@mediapipe/tasks-text/wasm");
  const classifier = await TextClassifier.createFromOptions(files, {
    baseOptions: { modelAssetPath: file } });
  const rows = texts.map((text) => classifier.classify(text).classifications[0].categories);
  classifier.close();
  return rows.map((row) => Object.fromEntries(
    row.map(({ categoryName, score }) => [categoryName, score])));
}
