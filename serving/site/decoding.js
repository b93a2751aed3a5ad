// A file's outputs to answers, as tf_pipeline's tasks decode them: a test holds both sides to the
// same answers (tests/platforms/test_on_a_site.py). Pure functions: no page, no runtime.

const OUTSIDE = "O";
const STARTS = "BSU", ENDS = "ESL"; // BIO, BMES, BIOES and BILOU write a start and an end like this

/** Normalize to probabilities that sum to 1, safely for large logits. */
export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** The logarithm of softmax, safely also where softmax is 0. */
export function logSoftmax(logits) {
  const most = Math.max(...logits);
  const sum = Math.log(logits.reduce((total, value) => total + Math.exp(value - most), 0));
  return Array.from(logits, (value) => value - most - sum);
}

const sigmoid = (value) => 1 / (1 + Math.exp(-value));

/**
 * The answer of one text from its outputs.
 * @param {{task: string, labels: string[], options: object}} model
 * @param {Record<string, ArrayLike<number>>} outputs `probabilities`, `logits` or
 *   `sentence_embedding`; the scale is in the name
 */
export function decode(model, outputs) {
  const read = { classify, match: classify, multilabel, regress, embed }[model.task];
  return read(model, outputs);
}

/** Label, its probability as `score`, and all labels' scores; no label below `abstain_below`. */
function classify({ labels, options }, { probabilities, logits }) {
  const values = probabilities ?? softmax(logits);
  const order = ranked(values), best = values[order[0]];
  return { label: best >= (options.abstain_below ?? 0) ? labels[order[0]] : null, score: best,
    scores: scoresOf(labels, values, order) };
}

/** The labels over their thresholds, and all labels' scores. */
function multilabel({ labels, options }, { probabilities, logits }) {
  const values = probabilities ?? Array.from(logits, sigmoid);
  const order = ranked(values);
  const limit = (i) => (options.thresholds?.length ? options.thresholds[i] : 0.5);
  return { labels: order.filter((i) => values[i] >= limit(i)).map((i) => labels[i]),
    scores: scoresOf(labels, values, order) };
}

/** A score in the unit of the training data. */
function regress({ options }, { logits: [value] }) {
  return { score: options.folded ? value : value * options.spread + options.mean };
}

function embed(_, { sentence_embedding: vector }) {
  return { embedding: Array.from(vector) };
}

/** Numbers of the values, the largest first; equal ones keep their order. */
function ranked(values) {
  return Array.from(values, (_, i) => i).sort((a, b) => values[b] - values[a]);
}

function scoresOf(labels, values, order) {
  return Object.fromEntries(order.map((i) => [labels[i], values[i]]));
}

/**
 * The spans of a text.
 * @param {string[]} labels
 * @param {string} text
 * @param {{begin: number, end: number}[]} words each word's characters, in code points
 * @param {(ArrayLike<number> | null)[]} logits each word's; null for a word without a piece
 */
export function decodeSpans(labels, text, words, logits) {
  const tags = wordTags(labels, logits), characters = Array.from(text);
  return readSpans(tags.map((tag) => labels[tag])).map(({ first, last, label }) => {
    const start = words[first].begin, end = words[last - 1].end;
    const chances = range(first, last).map((i) => softmax(logits[i])[tags[i]]);
    const score = chances.reduce((a, b) => a + b, 0) / chances.length;
    return { label, start, end, text: characters.slice(start, end).join(""), score };
  });
}

const range = (first, last) => Array.from({ length: last - first }, (_, i) => first + i);

function wordTags(labels, logits) {
  const tags = Array(logits.length).fill(labels.indexOf(OUTSIDE));
  const seen = range(0, logits.length).filter((i) => logits[i] !== null);
  if (!seen.length) return tags;
  const best = bestTags(seen.map((i) => logSoftmax(logits[i])), labels);
  seen.forEach((word, i) => { tags[word] = best[i]; });
  return tags;
}

/**
 * The likeliest valid sequence of labels, by number, for log-probabilities [word][label].
 *
 * I-x may only follow B-x or I-x, where the labels hold a B-x. The search is Viterbi's with
 * transitions that are free or forbidden.
 */
export function bestTags(scores, labels) {
  const before = labels.map((label) => allowedBefore(label, labels));
  let best = scores[0].map((score, to) => (before[to] === null ? score : -Infinity));
  const back = [];
  for (const row of scores.slice(1)) {
    const from = labels.map((_, to) => largest(best.map(
      (value, label) => (before[to]?.includes(labels[label]) ?? true ? value : -Infinity))));
    best = row.map((score, to) => {
      const open = before[to]?.includes(labels[from[to]]) ?? true;
      return open ? best[from[to]] + score : -Infinity;
    });
    back.push(from);
  }
  const chosen = [largest(best)];
  for (const from of back.reverse()) chosen.unshift(from[chosen[0]]);
  return chosen;
}

/** The labels that may stand before this one; null: any, and it may come first. */
function allowedBefore(label, labels) {
  const [prefix, name] = partition(label);
  return prefix === "I" && labels.includes(`B-${name}`) ? [`B-${name}`, `I-${name}`] : null;
}

const largest = (values) => values.indexOf(Math.max(...values));

function partition(tag) {
  const dash = tag.indexOf("-");
  return dash < 0 ? [tag, null] : [tag.slice(0, dash), tag.slice(dash + 1)];
}

/**
 * The spans of tags of any scheme; a tag that continues nothing opens a span.
 * @returns {{first: number, last: number, label: string}[]} first word and the one after the last
 */
export function readSpans(tags) {
  const spans = [];
  let kind = null; // of the span that is open
  tags.forEach((tag, place) => {
    const [prefix, name] = partition(tag);
    if (tag === OUTSIDE || name === null) {
      kind = null;
      return;
    }
    if (!isStart(prefix) && name === kind) spans.at(-1).last = place + 1;
    else spans.push({ first: place, last: place + 1, label: name });
    kind = isEnd(prefix) ? null : name;
  });
  return spans;
}

// An empty prefix is in every text, as in Python.
const isStart = (prefix) => STARTS.includes(prefix);
const isEnd = (prefix) => ENDS.includes(prefix);
