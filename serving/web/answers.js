// Answers as a page shows them: scores as bars, spans as marks. The server's page and the site that
// `python -m serving web` writes share it.
// Text of users and of the model becomes text nodes only; the pages' policies refuse markup.

const MOST_BARS = 6;
const COLOURS = 6; // .span-0 to .span-5 in page.css
const NO_BREAK = "\u00a0"; // a number and its unit stay on one line

export const plural = (count, noun) =>
  `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)}${NO_BREAK}MB`;
export const milliseconds = (value) => `${value.toFixed(value < 10 ? 1 : 0)}${NO_BREAK}ms`;

/** Write a share as percent; what is not quite 0 or 1 is not shown as if it were. */
export function percent(score) {
  if (score > 0 && score < 0.001) return `<${NO_BREAK}0.1${NO_BREAK}%`;
  if (score < 1 && score > 0.999) return `>${NO_BREAK}99.9${NO_BREAK}%`;
  return `${(100 * score).toFixed(1)}${NO_BREAK}%`;
}

export function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

/**
 * Show an answer beside each text; what is there is changed, so that bars move in place.
 * @param {HTMLElement} list
 * @param {string[]} labels of the model, in its order
 * @param {string[]} asked
 * @param {object[]} given as `:answer` gives them
 */
export function showAnswers(list, labels, asked, given) {
  given.forEach((answer, i) => {
    const item = list.children[i] ?? list.appendChild(make("li", "answer"));
    if (answer.spans) showSpans(item, labels, asked[i], answer.spans);
    else if (answer.masks) showSpans(item, labels, asked[i], answer.masks.map(asSpan));
    else if (answer.scores) showScores(item, labels, asked[i], answer);
    else if (answer.embedding && given.length > 1) showNearest(item, asked, given, i);
    else item.replaceChildren(sentence(asked[i]), make("p", "number", summary(answer)));
  });
  while (list.children.length > given.length) list.lastChild.remove();
}

/** Say the first answers in a few words, for a screen reader. */
export function inWords(given) {
  const words = given.slice(0, 3).map(summary);
  return given.length ? `${plural(given.length, "answer")}: ${words.join(", ")}` : "";
}

function summary(answer) {
  if (answer.spans) return plural(answer.spans.length, "span");
  if (answer.masks) return answer.masks.map(({ token }) => token).join(" ") || "no [MASK]";
  if (answer.labels) return answer.labels.join(" and ") || "no label";
  if (answer.embedding) return vector(answer.embedding);
  if (!answer.scores) return String(answer.score); // a number to predict
  return `${answer.label ?? "too unsure"} ${percent(answer.score)}`;
}

function vector(numbers) {
  const first = numbers.slice(0, 4).map((value) => value.toFixed(3)).join(", ");
  return `${plural(numbers.length, "number")}: ${first}, …`;
}

function sentence(text, kind = "plain") {
  const element = make("p", `sentence ${kind}`, text);
  element.dir = "auto";
  return element;
}

function showScores(item, labels, text, answer) {
  // Few labels keep their order, so bars grow and shrink in place; of many, the best are shown.
  // JSON objects do not keep the order of keys such as "0" and "1".
  let shown = labels.filter((label) => Object.hasOwn(answer.scores, label));
  if (shown.length > MOST_BARS) {
    shown = shown.sort((a, b) => answer.scores[b] - answer.scores[a]).slice(0, MOST_BARS);
  }
  let rows = item.querySelectorAll(".score");
  if (rows.length !== shown.length) {
    const list = make("ul", "scores");
    list.append(...shown.map(bar));
    const others = labels.length - shown.length;
    if (others) list.append(make("li", "more quiet", `and ${plural(others, "label")} below these`));
    item.replaceChildren(sentence(""), list);
    rows = item.querySelectorAll(".score");
  }
  item.firstChild.textContent = text;
  shown.forEach((label, i) => {
    const best = (answer.labels ?? [answer.label]).includes(label);
    fill(rows[i], label, answer.scores[label], best);
  });
}

/** Of vectors, show which other texts are nearest, by cosine. */
function showNearest(item, asked, given, own) {
  const others = given.map((answer, i) => ({ i, score: cosine(given[own], answer) }))
    .filter(({ i }) => i !== own).sort((a, b) => b.score - a.score).slice(0, MOST_BARS);
  const list = make("ul", "scores");
  list.append(...others.map(({ i, score }, place) => {
    const row = bar();
    fill(row, asked[i], score, place === 0);
    row.lastChild.textContent = score.toFixed(3);
    return row;
  }));
  item.replaceChildren(sentence(asked[own]), list);
}

function cosine({ embedding: a }, { embedding: b }) { // both have length 1
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}

function bar() {
  const row = make("li", "score"), track = make("span", "track"), label = make("span", "label");
  label.dir = "auto";
  track.setAttribute("aria-hidden", "true"); // the number beside it says the same
  track.append(make("div", "fill"));
  row.append(label, track, make("span", "percent"));
  return row;
}

function fill(row, label, score, best) {
  const [name, track, share] = row.children;
  row.classList.toggle("best", best);
  name.textContent = label;
  track.firstChild.style.width = `${100 * Math.max(0, score)}%`;
  share.textContent = percent(score);
}

function showSpans(item, labels, text, spans) {
  const characters = Array.from(text); // spans count code points, JavaScript's strings do not
  const whole = sentence("", "marked");
  let end = 0;
  for (const span of [...spans].sort((a, b) => a.start - b.start)) {
    if (span.start < end) continue; // inside one that is already marked
    whole.append(characters.slice(end, span.start).join(""));
    const mark = make("mark", `span-${colour(labels, span.label)}`,
      characters.slice(span.start, span.end).join(""));
    mark.append(make("span", "tag", `${span.label} ${percent(span.score)}`));
    whole.append(mark);
    end = span.end;
  }
  whole.append(characters.slice(end).join(""));
  item.replaceChildren(whole);
}

function asSpan(mask) {
  return { ...mask, label: mask.token };
}

function colour(labels, label) {
  const known = labels.map((name) => name.replace(/^[BI]-/, ""));
  const kinds = [...new Set(known)].filter((name) => name !== "O");
  return Math.max(0, kinds.indexOf(label)) % COLOURS;
}
