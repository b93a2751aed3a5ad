// The pieces of a text with the characters that each stands for: the library's normalizer,
// pre-tokenizer and model, with the alignment between them that it does not keep.
//
// Characters are code points, as Python counts them.

// Words of their own for BERT. The library looks at UTF-16 units, so it finds none of these; the
// ranges are the Rust library's.
const RARE_HAN = new RegExp("^[\\u{20000}-\\u{2A6DF}\\u{2A700}-\\u{2B81F}\\u{2B920}-\\u{2CEAF}" +
  "\\u{2F800}-\\u{2FA1F}]$", "u");

const escape = (text) => text.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");

/**
 * @typedef {{token: string, word: number, begin: number, end: number}} Piece
 * `word` counts the text's words; `begin` and `end` are the first character and the one after the
 * last.
 */

/**
 * Split a text into the pieces of a WordPiece tokenizer.
 * @param {import("../libraries/tokenizers.js").Tokenizer} tokenizer
 * @param {string} text
 * @returns {Piece[]}
 */
export function alignedPieces(tokenizer, text) {
  const pieces = [];
  let word = 0;
  for (const { token, chars } of sections(tokenizer, text)) {
    if (token !== null) {
      pieces.push({ token, word: word++, ...span(chars) });
      continue;
    }
    const normalized = tokenizer.normalizer ? normalize(tokenizer.normalizer, chars) : chars;
    for (const part of wordsOf(tokenizer, normalized)) {
      pieces.push(...piecesOf(tokenizer, part, word++));
    }
  }
  return pieces;
}

/** Cut out what is written as an added token, such as [SEP]: the model reads it as that token. */
function sections(tokenizer, text) {
  const chars = Array.from(text, (char, i) => ({ char, begin: i, end: i + 1 }));
  const known = [...tokenizer.get_added_tokens_decoder().values()].map(({ content }) => content);
  if (!known.length) return [{ token: null, chars }];
  known.sort((a, b) => b.length - a.length);
  const found = [];
  let start = 0;
  for (const part of text.split(new RegExp(`(${known.map(escape).join("|")})`, "u"))) {
    const end = start + Array.from(part).length;
    const token = known.includes(part) ? part : null;
    if (end > start) found.push({ token, chars: chars.slice(start, end) });
    start = end;
  }
  return found;
}

const span = (chars) => ({ begin: chars[0].begin, end: chars.at(-1).end });

function normalize(normalizer, chars) {
  if (normalizer.normalizers) {
    return normalizer.normalizers.filter(Boolean).reduce((all, one) => normalize(one, all), chars);
  }
  if (normalizer.pattern instanceof RegExp) return replace(normalizer, chars);
  // One character at a time, as the Rust library does: a capital sigma at a word's end becomes
  // the small one that stands inside words.
  return chars.flatMap((char) => {
    const pad = normalizer.config.handle_chinese_chars && RARE_HAN.test(char.char);
    const text = normalizer.normalize(char.char);
    return Array.from(pad ? ` ${text} ` : text, (part) => ({ ...char, char: part }));
  });
}

function replace({ pattern, config }, chars) {
  const text = chars.map(({ char }) => char).join("");
  const places = codePoints(text);
  const result = [];
  let done = 0;
  for (const match of text.matchAll(pattern)) {
    const first = places[match.index], last = places[match.index + match[0].length];
    if (first === last) continue;
    result.push(...chars.slice(done, first));
    const stands = span(chars.slice(first, last));
    result.push(...Array.from(config.content, (char) => ({ char, ...stands })));
    done = last;
  }
  return [...result, ...chars.slice(done)];
}

/** Number of the code point at each UTF-16 unit of a text, its end included. */
function codePoints(text) {
  const places = [];
  let place = 0;
  for (const char of text) {
    for (let i = 0; i < char.length; i++) places.push(place);
    place++;
  }
  return [...places, place];
}

function wordsOf(tokenizer, chars) {
  const text = chars.map(({ char }) => char).join("");
  const places = codePoints(text);
  let from = 0;
  return tokenizer.pre_tokenizer(text).map((word) => {
    const start = text.indexOf(word, from);
    from = start + word.length;
    return { text: word, chars: chars.slice(places[start], places[from]) };
  });
}

function piecesOf(tokenizer, { text, chars }, word) {
  const prefix = tokenizer.model.config.continuing_subword_prefix ?? "";
  const tokens = tokenizer.model([text]);
  let start = 0;
  return tokens.map((token, i) => {
    const unknown = tokens.length === 1 && token === tokenizer.model.unk_token;
    const length = unknown ? chars.length : Array.from(token).length - (i ? prefix.length : 0);
    const own = chars.slice(start, start + length);
    start += length;
    return { token, word, ...span(own) };
  });
}
