// Texts to token ids as tf_pipeline/text.py makes them, with the library that reads tokenizer.json.

import { Tokenizer } from "../libraries/tokenizers.js";
import { alignedPieces } from "./pieces.js";
import { placeWords, splitWords } from "./words.js";

const CASE_MARKS = ["⁕", "⁑"]; // before a word that begins with one capital, or with several
const WORD_START = "▁"; // of SentencePiece; a piece of its own before what has no piece with it
const OVERLAP = 16; // tokens that a window shares with the one before

/** Encodes texts; the file's own padding and truncation are not used. */
export class Encoder {
  /**
   * @param {object} json content of tokenizer.json
   * @param {object} config content of tokenizer_config.json
   */
  constructor(json, config) {
    this.tokenizer = new Tokenizer(json, config);
    this.isWordPiece = json.model.type === "WordPiece";
    const skipped = this.isWordPiece ? CASE_MARKS : [...CASE_MARKS, WORD_START];
    this.skipped = new Set(skipped.map((mark) => this.tokenizer.token_to_id(mark)));
  }

  /**
   * Encode a text or a pair, cut to `limit` tokens.
   * @returns {{ids: number[], types: number[]}}
   */
  encode(texts, limit) {
    const tokens = texts.map((text) => this.#tokens(text));
    const room = limit - this.#added(texts.length);
    const lengths = shortened(tokens.map(({ length }) => length), room);
    const cut = tokens.map((some, i) => some.slice(0, lengths[i]));
    return this.#finished(cut[0], cut[1] ?? null);
  }

  /**
   * Encode a text in windows of at most `limit` tokens, and say where each word's first piece is.
   * @returns {{windows: {ids: number[], types: number[]}[], words: import("./words.js").Word[]}}
   */
  encodeWords(text, limit) {
    const known = this.isWordPiece ? null : splitWords(text);
    const pieces = known === null ? alignedPieces(this.tokenizer, text)
      : known.flatMap(({ text: word, begin, end }, number) => this.#tokens(word).map(
        (token) => ({ token, word: number, begin, end })));
    const most = limit - this.#added(1);
    const step = most - Math.min(OVERLAP, Math.floor((limit - 2) / 2));
    const windows = [];
    for (let start = 0; !windows.length || start + most - step < pieces.length; start += step) {
      windows.push(this.#window(pieces.slice(start, start + most)));
    }
    return { windows, words: placeWords(windows, this.skipped, known) };
  }

  #tokens(text) {
    return this.isWordPiece ? alignedPieces(this.tokenizer, text).map(({ token }) => token)
      : this.tokenizer.tokenize(text);
  }

  #window(pieces) {
    const { ids, types } = this.#finished(pieces.map(({ token }) => token), null);
    const before = this.#special().indexOf(null);
    const after = ids.length - before - pieces.length;
    return { ids, types, pieces: [...Array(before).fill(null), ...pieces,
      ...Array(after).fill(null)] };
  }

  /** The tokens around a text, with null for the text. */
  #special() {
    return this.tokenizer.post_processor([null], null).tokens;
  }

  #added(texts) {
    return this.tokenizer.post_processor([], texts > 1 ? [] : null).tokens.length;
  }

  #finished(tokens, others) {
    const { tokens: all, token_type_ids: types } = this.tokenizer.post_processor(tokens, others);
    const { model } = this.tokenizer;
    return { ids: all.map((token) => this.tokenizer.token_to_id(token) ?? model.unk_token_id),
      types: types ?? all.map(() => 0) };
  }
}

/** Lengths after taking tokens off the longest text first, so that all fit into `room`. */
function shortened([first, second], room) {
  if (second === undefined) return [Math.min(first, room)];
  if (first + second <= room) return [first, second];
  const short = Math.min(first, second);
  const [less, more] = 2 * short <= room ? [short, room - short]
    : [Math.floor(room / 2), Math.ceil(room / 2)];
  return first > second ? [more, less] : [less, more];
}
