// The page at `/`: asks :answer as one types and shows scores as bars, spans as marks.
// Text of users and of the model becomes text nodes only; the server's policy refuses markup.

const PAUSE_MS = 150; // of typing, before asking
const SPOKEN_PAUSE_MS = 1000; // a screen reader hears the answers when typing has stopped
const PATIENCE_MS = 400; // before saying what is waited for: a file's first answer loads it
const MOST_BARS = 6;
const COLOURS = 6; // .span-0 to .span-5 in page.css
const EXAMPLE = "What a wonderful evening.\nIt was dull and far too long.\n" +
  "Good food, but we waited an hour for it.";

const PAIR_EXAMPLE = "How do I reset my PIN? ||| I forgot my PIN.\n" +
  "Where is my card? ||| Can I pay in euros?";

const at = (id) => document.getElementById(id);
const texts = at("texts"), file = at("file"), answers = at("answers");

let model = null; // what GET /v1/models/NAME/files says
let running = null; // AbortController of the request under way
let again = false; // the text changed meanwhile
let timer = 0, spokenTimer = 0;

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

const PAIR_MARK = "|||"; // between two texts that are asked about together
const pairs = () => model !== null && model.fields.length > 1;
const parts = (line) => line.split(PAIR_MARK).map((text) => text.trim());
const whole = (line) => (pairs() ? parts(line).length === 2 && !parts(line).includes("")
  : line.trim() !== "");
const lines = () => texts.value.split(/\r?\n/).filter(whole); // half a pair is still being typed
const route = () => `v1/models/${encodeURIComponent(model.model)}`;
const NO_BREAK = "\u00a0"; // a number and its unit stay on one line
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function percent(score) {
  if (score > 0 && score < 0.001) return `<${NO_BREAK}0.1${NO_BREAK}%`;
  if (score < 1 && score > 0.999) return `>${NO_BREAK}99.9${NO_BREAK}%`;
  return `${(100 * score).toFixed(1)}${NO_BREAK}%`;
}

async function fetchJson(url, options = {}) {
  const headers = { Accept: "application/json" };
  const response = await fetch(url, { ...options, headers }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. See whether it still runs, then press Ask.");
  });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error || `The server answered with ${response.status}.`);
  return body;
}

function showError(error) {
  at("error").textContent = error.message;
}

// ---- the question

function body(asked) {
  const question = { texts: pairs() ? asked.map(parts) : asked };
  if (file.value && file.value !== model.file) question.file = file.value;
  return JSON.stringify(question);
}

async function ask({ now = false } = {}) {
  clearTimeout(timer);
  if (!model) return;
  showCurl();
  const asked = lines();
  if (!asked.length) {
    running?.abort();
    showAnswers([], []);
    return;
  }
  if (running && !now) { // one request at a time: a slow server gets no queue of old texts
    again = true;
    return;
  }
  running?.abort();
  const mine = running = new AbortController();
  answers.setAttribute("aria-busy", "true");
  const waiting = setTimeout(() => {
    at("latency").textContent = `Waiting for ${file.value} …`;
  }, PATIENCE_MS);
  try {
    const start = performance.now();
    const answer = await fetchJson(`${route()}:answer`,
      { method: "POST", body: body(asked), signal: mine.signal });
    at("error").textContent = "";
    showAnswers(asked, answer.answers);
    showLatency(asked.length, answer, performance.now() - start);
  } catch (error) {
    if (error.name !== "AbortError") {
      showAnswers([], []);
      at("empty").hidden = true;
      showError(error);
    }
  } finally {
    clearTimeout(waiting);
    if (running === mine) {
      running = null;
      answers.removeAttribute("aria-busy");
      if (again) ask();
      again = false;
    }
  }
}

function askSoon() {
  clearTimeout(timer);
  timer = setTimeout(ask, PAUSE_MS);
}

// ---- the answers

function showAnswers(asked, given) {
  if (!asked.length) at("error").textContent = at("latency").textContent = "";
  at("empty").hidden = asked.length > 0;
  given.forEach((answer, i) => {
    const old = answers.children[i];
    const item = old ?? answers.appendChild(make("li", "answer"));
    if (answer.spans) showSpans(item, asked[i], answer.spans);
    else if (answer.masks) showSpans(item, asked[i], answer.masks.map(asSpan));
    else if (answer.scores) showScores(item, asked[i], answer);
    else item.replaceChildren(sentence(asked[i]), make("p", "number", summary(answer)));
  });
  while (answers.children.length > given.length) answers.lastChild.remove();
  clearTimeout(spokenTimer);
  spokenTimer = setTimeout(() => { at("spoken").textContent = inWords(given); }, SPOKEN_PAUSE_MS);
}

function inWords(given) {
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

function showScores(item, text, answer) {
  // Few labels keep their order, so bars grow and shrink in place; of many, the best are shown.
  // JSON objects do not keep the order of keys such as "0" and "1".
  let shown = model.labels.filter((label) => Object.hasOwn(answer.scores, label));
  if (shown.length > MOST_BARS) {
    shown = shown.sort((a, b) => answer.scores[b] - answer.scores[a]).slice(0, MOST_BARS);
  }
  let rows = item.querySelectorAll(".score");
  if (rows.length !== shown.length) {
    const list = make("ul", "scores");
    list.append(...shown.map(bar));
    const others = model.labels.length - shown.length;
    if (others) list.append(make("li", "more quiet", `and ${plural(others, "label")} below these`));
    item.replaceChildren(sentence(""), list);
    rows = item.querySelectorAll(".score");
  }
  item.firstChild.textContent = text;
  shown.forEach((label, i) => {
    const [name, track, share] = rows[i].children;
    rows[i].classList.toggle("best", (answer.labels ?? [answer.label]).includes(label));
    name.textContent = label;
    track.firstChild.style.width = `${100 * answer.scores[label]}%`;
    share.textContent = percent(answer.scores[label]);
  });
}

function bar() {
  const row = make("li", "score"), track = make("span", "track"), label = make("span", "label");
  label.dir = "auto";
  track.setAttribute("aria-hidden", "true"); // the number beside it says the same
  track.append(make("div", "fill"));
  row.append(label, track, make("span", "percent"));
  return row;
}

function showSpans(item, text, spans) {
  const characters = Array.from(text); // the server counts code points, JavaScript's strings do not
  const whole = sentence("", "marked");
  let end = 0;
  for (const span of [...spans].sort((a, b) => a.start - b.start)) {
    if (span.start < end) continue; // inside one that is already marked
    whole.append(characters.slice(end, span.start).join(""));
    const mark = make("mark", `span-${colour(span.label)}`,
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

function colour(label) {
  const known = model.labels.map((name) => name.replace(/^[BI]-/, ""));
  const kinds = [...new Set(known)].filter((name) => name !== "O");
  return Math.max(0, kinds.indexOf(label)) % COLOURS;
}

function showLatency(count, answer, wholeMs) {
  const ms = (value) => `${value.toFixed(value < 10 ? 1 : 0)}${NO_BREAK}ms`;
  at("latency").textContent = `${plural(count, "text")} · ${ms(answer.latency_ms)} in the model · ` +
    `${ms(wholeMs)} in all`;
  at("latency").dataset.file = answer.file;
}

// ---- the shell

function showCurl() {
  // Where nothing is typed the line still works as it stands.
  const asked = lines().length ? lines() : [pairs() ? `a text ${PAIR_MARK} another` : "a text"];
  const url = new URL(`${route()}:answer`, document.baseURI).href;
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`; // for sh, bash and zsh
  at("curl").textContent = `curl ${quoted(url)} -d ${quoted(body(asked))}`;
}

async function copyCurl() {
  const button = at("copy"), words = button.dataset.words ??= button.textContent;
  let copied = true;
  try {
    await navigator.clipboard.writeText(at("curl").textContent);
  } catch { // browsers hide the clipboard from pages at http:// of another computer
    getSelection().selectAllChildren(at("curl"));
    copied = document.execCommand("copy");
  }
  button.textContent = copied ? "Copied" : "Selected: press Ctrl+C";
  at("spoken").textContent = copied ? "The curl line is copied." : "Press Control C to copy.";
  setTimeout(() => { button.textContent = words; }, 2000);
}

// ---- the files

const KINDS = { onnx: "ONNX", tflite: "TFLite", saved_model: "SavedModel" };

function describe({ runtime, variant, bytes, max_tokens: tokens, agreement }) {
  const parts = [`${KINDS[runtime] ?? runtime} ${variant}`, `${(bytes / 1e6).toFixed(1)}${NO_BREAK}MB`,
    `reads ${tokens} tokens of a text`];
  if (agreement !== null) {
    // Rounded down: "100 %" is said of equal files only.
    const share = `${Math.floor(1000 * agreement) / 10}${NO_BREAK}%`;
    parts.push(`decides as the trained model on ${share} of the evaluation rows`);
  }
  return parts.join(" · ");
}

function showFile() {
  at("file-about").textContent = describe(model.files.find(({ path }) => path === file.value));
}

async function open() {
  try {
    const { model: name } = await fetchJson("healthz");
    model = await fetchJson(`v1/models/${encodeURIComponent(name)}/files`);
  } catch (error) {
    showError(error);
    return;
  }
  document.title = `Ask ${model.model}`;
  at("name").textContent = model.model;
  const labels = model.labels.length ? ` · ${plural(model.labels.length, "label")}` : "";
  at("about").textContent = `${model.task} · version ${model.version}${labels}`;
  at("drift").hidden = !model.drift;
  if (pairs()) {
    texts.placeholder = `First text ${PAIR_MARK} second text`;
    at("hint").prepend(`Two texts a line, with ${PAIR_MARK} between. `);
  }
  file.replaceChildren(...model.files.map(({ path }) => new Option(path, path)));
  file.value = model.file;
  showFile();
  await ask();
}

texts.addEventListener("input", askSoon);
file.addEventListener("change", () => { showFile(); ask({ now: true }); });
at("copy").addEventListener("click", copyCurl);
at("clear").addEventListener("click", () => { texts.value = ""; texts.focus(); ask(); });
at("example").addEventListener("click", () => {
  texts.value = pairs() ? PAIR_EXAMPLE : EXAMPLE;
  texts.focus();
  ask();
});
at("question").addEventListener("submit", (event) => {
  event.preventDefault();
  model ? ask({ now: true }) : open();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    model ? ask({ now: true }) : open();
  }
});
open();
