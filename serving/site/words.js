// Words and the pieces that stand for them: what is read at a word is read at its first piece.
// As tf_pipeline/words.py; tests hold both to the same answers.

/**
 * @typedef {{ids: number[], pieces: (import("./pieces.js").Piece | null)[]}} Window
 * Token ids with the piece of each; null for [CLS] and [SEP].
 * @typedef {{window: number, token: number, begin: number, end: number}} Word
 * Where a word's first piece stands (-1 for a word without one), and its characters.
 */

const PUNCTUATION = "\\p{P}\\u0021-\\u002F\\u003A-\\u0040\\u005B-\\u0060\\u007B-\\u007E";
const WORD = new RegExp("\\p{Script=Han}|" + // \\s would hold U+FEFF, and lack U+0085
  `[${PUNCTUATION}]|(?:(?!\\p{Script=Han})[^\\p{White_Space}${PUNCTUATION}])+`, "gu");

/** Split a text as BERT does: at blanks, around punctuation, and around Han characters. */
export function splitWords(text) {
  let begin = 0, from = 0;
  return Array.from(text.matchAll(WORD), ({ 0: word, index }) => {
    begin += Array.from(text.slice(from, index)).length;
    const end = begin + Array.from(word).length;
    const found = { text: word, begin, end };
    [begin, from] = [end, index + word.length];
    return found;
  });
}

/**
 * Find each word's first piece, in the window that shows most around it.
 * @param {Window[]} windows
 * @param {Set<number>} skipped ids of pieces that belong to no word
 * @param {{begin: number, end: number}[] | null} known the words' characters, where they were
 *   split before; without them words are what the tokenizer found
 * @returns {Word[]}
 */
export function placeWords(windows, skipped, known) {
  const best = new Map(), spans = new Map(); // word -> place, word -> characters
  windows.forEach((window, number) => {
    let before = null;
    window.pieces.forEach((piece, token) => {
      if (piece === null || skipped.has(window.ids[token])) return;
      const { word, begin, end } = piece;
      const span = spans.get(word) ?? { begin, end };
      spans.set(word, { begin: Math.min(span.begin, begin), end: Math.max(span.end, end) });
      // A window that opens inside a word does not show that word's first piece.
      const opens = token === 1 && number > 0;
      if (word !== before && !(opens && isInside(windows, window, piece))) {
        const room = Math.min(token, window.ids.length - 1 - token);
        if (room >= (best.get(word)?.room ?? -1)) best.set(word, { room, window: number, token });
      }
      before = word;
    });
  });
  if (known !== null) {
    return known.map(({ begin, end }, word) => {
      const { window, token } = best.get(word) ?? { window: -1, token: -1 };
      return { window, token, begin, end };
    });
  }
  const order = [...spans.keys()].sort((a, b) => a - b);
  return order.map((word) => {
    const { window, token } = best.get(word);
    return { window, token, ...spans.get(word) };
  });
}

/** Whether another window holds an earlier piece of the word that this one opens with. */
function isInside(windows, window, { word, begin }) {
  return windows.some((other) => other !== window &&
    other.pieces.some((piece) => piece?.word === word && piece.begin < begin));
}
