"""One HTML page about one evaluation: `evaluate --report report.html`.

It asks nothing of the network: pictures are inside, in a light and a dark version, and the page's
own policy forbids the browser to load anything else.
"""

import base64
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from . import files, metrics, plots, run
from .predictor import Predictor
from .task import Judgement, Record, Scores
from .text import Arrays

ERRORS = 20
_TEXT_LETTERS = 1000  # of a text in the list of errors
_PACKAGES = {"keras": ("tensorflow", "keras"), "saved_model": ("tensorflow",),
             "onnx": ("onnxruntime",), "tflite": ("ai-edge-litert",)}
_CAPTIONS = {
    "learning_curves": "A validation loss that rises while the training loss falls means that the "
                       "model learns the training texts by heart: fewer epochs or more data help.",
    "confusion": "A row for each true label, a column for each answer. The share is of the row; "
                 "colours grow with its root, so that a few percent show.",
    "calibration": "Of the answers given with confidence 0.8, 80 % should be right. Mean "
                   "confidence above the bar: the model is too sure of itself.",
    "length_errors": "Each bar holds about as many examples. Trust a difference between "
                     "bars only where their intervals do not overlap.",
}


@dataclass(frozen=True)
class Subject:
    """What was evaluated, in words."""

    name: str
    file: str
    data: str
    versions: Mapping[str, str]


def write(path: Path, text: str) -> None:
    """Write a page; a file that is already there raises UserError."""
    files.refuse_existing(path, "--report")
    # JSON can hold halves of letters ("\ud83d") that UTF-8 has no bytes for.
    files.write_text(path, text, errors="replace")


def evaluation(predictor: Predictor, records: Sequence[Record], outputs: Arrays, scores: Scores,
               data: str | None) -> str:
    """Make the page of scored outputs; `data` is None for the rows that a run keeps."""
    findings = plots.find(predictor.task, predictor.encoder, records, outputs, scores)
    findings = dataclasses.replace(
        findings, limit=predictor.limit if findings.limit else 0, history=predictor.history,
        best_epoch=predictor.best_epoch)
    graph = predictor.graph
    packages = (*_PACKAGES[graph.runtime if graph else "keras"], "tokenizers", "numpy")
    # Names only: a report is given to others, and where the folder lies here is not theirs.
    file = f"{graph.path} ({graph.runtime} {graph.variant})" if graph else "run (keras float32)"
    return page(Subject(predictor.folder.resolve().name, file,
                        data or "the test rows that the run keeps", run.versions(packages)),
                findings)


def page(subject: Subject, findings: plots.Findings) -> str:
    """Lay out the whole page."""
    scores = findings.scores
    title = f"{subject.name}: {findings.metric} {scores[findings.metric]:.4f}"
    facts = {"model": f"{subject.name}, {subject.file}", "data": subject.data,
             "metric": f"{findings.metric} {scores[findings.metric]:.4f} on "
                       f"{scores['examples']:,} examples",
             "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
             "versions": ", ".join(f"{k} {v}" for k, v in subject.versions.items())}
    header = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in facts.items())
    sections = [_tiles(findings), _pictures(findings), _table(findings), _errors(findings)]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{_text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<h1>Evaluation of {_text(subject.name)}</h1>
<dl>{header}</dl>
</header>
{"".join(sections)}
</main>
</body>
</html>
"""


def _text(value: Any) -> str:
    """Escape for text and attributes; what users wrote also stands in `bdi`, for right-to-left."""
    return escape(str(value), quote=True)


def _tiles(findings: plots.Findings) -> str:
    """Show every single number, the metric first."""
    scores = findings.scores
    numbers = {findings.metric: scores[findings.metric]}
    numbers.update({k: v for k, v in scores.items() if isinstance(v, float)})
    if findings.judged and "calibration_error" not in scores:
        numbers["calibration error"] = metrics.calibration_error(findings.confidences,
                                                                 findings.correct)
    tiles = "".join(f'<div class="tile{" main" * (name == findings.metric)}"><b>{value:.4f}</b>'
                    f"<span>{_text(name.replace('_', ' '))}</span></div>"
                    for name, value in numbers.items())
    return f'<section class="tiles">{tiles}</section>'


def _pictures(findings: plots.Findings) -> str:
    light, dark = (
        {name: _uri(plots.encode(figure, "svg", theme))
         for name, figure in plots.draw(findings, theme).items()}
        for theme in (plots.LIGHT, plots.DARK))
    many = len(findings.labels) > plots.FEW_LABELS
    sizes = {"learning_curves": "large"}
    if "confusion" in light:
        # A small matrix stands beside the calibration, so the third picture has a line of its own.
        sizes.update({"confusion": "large wide"} if many else {"length_errors": "large"})
    figures = []
    for name, uri in light.items():
        figures.append(
            f'<figure class="{sizes.get(name, "half")}"><picture>'
            f'<source media="(prefers-color-scheme: dark)" srcset="{dark[name]}">'
            f'<img src="{uri}" alt="{name.replace("_", " ")}"></picture>'
            f"<figcaption>{_CAPTIONS[name]}</figcaption></figure>")
    return f'<section class="pictures">{"".join(figures)}</section>' if figures else ""


def _uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _table(findings: plots.Findings) -> str:
    """Show precision, recall, F1 and support of each label, then the averages."""
    rows = [(name, row) for name, row in findings.scores.get("table", {}).items()
            if isinstance(row, dict)]
    if not rows:
        return ""
    labels = set(findings.labels)
    body, foot = ([_table_row(*row) for row in rows if (row[0] in labels) == inside]
                  for inside in (True, False))
    if not body:  # names of another kind, as in a table of entity types
        body, foot = foot, []
    return f"""<section><h2>Per label</h2><div class="scroll"><table>
<thead><tr><th>label<th class="n">precision<th class="n">recall<th class="n">F1<th class="n">support
</thead><tbody>{"".join(body)}</tbody><tfoot>{"".join(foot)}</tfoot></table></div></section>"""


def _table_row(name: str, row: Mapping[str, float]) -> str:
    cells = "".join(f'<td class="n bar" style="--share:{row[key]:.4f}">{row[key]:.4f}'
                    for key in ("precision", "recall", "f1-score"))
    return (f'<tr><td><bdi>{_text(name) or "(empty)"}</bdi>{cells}'
            f'<td class="n">{row["support"]:,.0f}')


def _errors(findings: plots.Findings) -> str:
    """Show the wrong answers that the model was surest of, and what it mixes up most."""
    if not findings.judged:
        return ""
    wrong = sorted((j for j in findings.judged if not j.correct), key=lambda j: -j.score)
    if not wrong:
        return (f"<section><h2>Errors</h2><p>None: all {len(findings.judged):,} answers are "
                "right.</p></section>")
    heading = (f"The {ERRORS} most confident of {len(wrong):,} errors" if len(wrong) > ERRORS
               else f"All {len(wrong)} errors, the most confident first")
    rows = "".join(
        f'<tr><td class="n">{j.score:.4f}<td><bdi>{_text(j.true)}</bdi>'
        f'<td class="wrong"><bdi>{_text(j.predicted)}</bdi><td class="text"><bdi>{_cut(j.text)}'
        "</bdi>" for j in wrong[:ERRORS])
    return f"""{_mixed_up(wrong)}<section><h2>{heading}</h2><div class="scroll"><table>
<thead><tr><th class="n">score<th>true<th>predicted<th>text</thead>
<tbody>{rows}</tbody></table></div>
<p class="note">First look whether the label is right: the surest errors are often errors of the
data.</p></section>"""


def _mixed_up(wrong: Iterable[Judgement], most: int = 10) -> str:
    pairs = Counter((j.true, j.predicted) for j in wrong).most_common(most)
    if len(pairs) < 3:  # two labels: the matrix says it all
        return ""
    rows = "".join(f'<tr><td class="n">{count:,}<td><bdi>{_text(true)}</bdi><td class="wrong">'
                   f"<bdi>{_text(predicted)}</bdi>" for (true, predicted), count in pairs)
    return f"""<section><h2>Most often mixed up</h2><div class="scroll"><table>
<thead><tr><th class="n">errors<th>true<th>predicted</thead><tbody>{rows}</tbody></table></div>
</section>"""


def _cut(text: str) -> str:
    if len(text) <= _TEXT_LETTERS:
        return _text(text)
    return f"{_text(text[:_TEXT_LETTERS])}… ({len(text):,} letters)"


_STYLE = """
:root { --surface: #fff; --page: #f4f6f8; --ink: #1f2328; --muted: #5b6570; --line: #dfe3e8;
  --first: #2f6fc9; --wash: #2f6fc922; --second: #b54f00; }
@media (prefers-color-scheme: dark) { :root { --surface: #14181d; --page: #0c0f12; --ink: #e6eaef;
  --muted: #9aa4af; --line: #2e353d; --first: #5aa2f5; --wash: #5aa2f52e; --second: #f2913f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 56px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 12px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 12px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
section { margin-top: 20px; background: var(--surface); border: 1px solid var(--line);
  border-radius: 10px; padding: 18px 20px; }
.tiles, .pictures { display: grid; gap: 14px; padding: 0; background: none; border: 0; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); }
.tile, figure { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 16px; }
.tile b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.tile span, .note, figcaption { color: var(--muted); font-size: 13px; }
.tile.main { border-color: var(--first); }
.tile.main b { color: var(--first); }
.pictures { grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); }
figure { margin: 0; padding: 16px; display: flex; flex-direction: column; }
figure.large { grid-column: 1 / -1; }
picture { flex: 1; display: flex; align-items: flex-start; justify-content: center; }
img { max-width: 100%; height: auto; }
.wide img { width: 100%; }
.wide { margin-inline: calc(50% - min(50vw - 20px, 720px)); }
@media (max-width: 640px) { .large picture { overflow-x: auto; justify-content: flex-start; }
  .large img { min-width: 600px; } }
figcaption { margin-top: 10px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; color: var(--muted); font-weight: 500; font-size: 13px; }
th, td { padding: 6px 12px; border-bottom: 1px solid var(--line); vertical-align: top; }
tbody tr:last-child td { border-bottom: 0; }
tfoot td { color: var(--muted); border-bottom: 0; border-top: 1px solid var(--line); }
td { overflow-wrap: anywhere; min-width: 124px; }
.n { text-align: right; font-variant-numeric: tabular-nums; width: 1%; white-space: nowrap; }
td.n { min-width: 88px; }
.bar { background: linear-gradient(90deg, var(--wash) calc(100% * var(--share)), transparent 0)
  0 4px / 100% calc(100% - 8px) no-repeat; }
.wrong { color: var(--second); }
.text { min-width: 320px; white-space: pre-wrap; }
.note { margin: 12px 0 0; }
@media print { body { background: none; } section, figure, .tile { break-inside: avoid; } }
"""
