"""Pictures of training and of errors, as matplotlib Figures: `draw(Findings(...))`.

Figures are made by class instead of by pyplot: no display, no global state.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import metrics
from .task import Judge, Judgement, Record, Scores, Task
from .text import Arrays, TextEncoder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW_LABELS = 20  # up to so many, a confusion matrix has room for its numbers
_WHOLE = 1 << 20  # tokens: nothing is cut, so that lengths are the texts' own


@dataclass(frozen=True)
class Theme:
    """Colours that can be told apart in print, on a projector and by colour-blind eyes."""

    surface: str
    ink: str
    muted: str
    grid: str
    first: str  # what is measured
    second: str  # what it is compared with


LIGHT = Theme("#ffffff", "#1f2328", "#5b6570", "#dfe3e8", "#2f6fc9", "#d4620a")
DARK = Theme("#14181d", "#e6eaef", "#9aa4af", "#2e353d", "#5aa2f5", "#f2913f")


@dataclass(frozen=True)
class Findings:
    """All that the pictures and the report are made from."""

    scores: Scores
    labels: Sequence[str]
    metric: str
    judged: Sequence[Judgement] = ()  # empty where answers are not right or wrong
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # tokens, uncut
    limit: int = 0  # longer texts are cut to so many tokens; 0: none is
    history: Sequence[dict[str, Any]] = ()  # a row an epoch
    best_epoch: int | None = None

    @property
    def confidences(self) -> np.ndarray:
        """Probability of each answer: float (examples,)."""
        return np.array([j.score for j in self.judged], float)

    @property
    def correct(self) -> np.ndarray:
        """Whether each answer is right: bool (examples,)."""
        return np.array([j.correct for j in self.judged], bool)


def find(task: Task, encoder: TextEncoder, records: Sequence[Record], outputs: Arrays,
         scores: Scores) -> Findings:
    """Lay scored outputs beside their records; what a task cannot tell stays empty."""
    judged = task.judge(outputs, records) if isinstance(task, Judge) else []
    encoded = task.encode(records, encoder, _WHOLE)
    # What is read word by word goes through in windows instead of being cut.
    limit = 0 if encoded.words is not None else encoder.max_len
    return Findings(scores, task.labels, task.METRIC, judged, encoded.lengths, limit)


def draw(findings: Findings, theme: Theme = LIGHT) -> "dict[str, Figure]":
    """Draw every picture that the findings hold the numbers for, by file name."""
    figures = {}
    if findings.history:
        figures["learning_curves"] = learning_curves(findings.history, findings.best_epoch, theme)
    if "confusion" in findings.scores:
        figures["confusion"] = confusion(findings.scores, findings.labels, theme)
    if findings.judged:
        figures["calibration"] = calibration(findings.confidences, findings.correct, theme)
        figures["length_errors"] = length_errors(findings.lengths, findings.correct,
                                                 findings.limit, theme)
    return figures


def learning_curves(history: Sequence[dict[str, Any]], best_epoch: int | None = None,
                    theme: Theme = LIGHT) -> "Figure":
    """Draw training loss, validation loss and the validation metric by epoch."""
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in history]
    metric = next(name for name in history[0] if name not in ("epoch", "train_loss", "loss"))
    curves = (("loss", [("train_loss", "training", theme.second),
                        ("loss", "validation", theme.first)]),
              (f"validation {metric}", [(metric, metric, theme.first)]))
    with _style(theme):
        figure = _figure(9, 3.8)
        for axes, (title, lines) in zip(figure.subplots(1, 2), curves, strict=True):
            for key, name, colour in lines:
                axes.plot(epochs, [row[key] for row in history], marker="o", markersize=5,
                          linewidth=2, color=colour, label=name, clip_on=False, zorder=3)
            if best_epoch in epochs:
                axes.axvline(best_epoch, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)),
                             label=f"kept: epoch {best_epoch}", zorder=1)
            axes.set(xlabel="epoch", ylabel=title)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.margins(x=0.06, y=0.12)
            _legend(axes, 3)
        best = max(row[metric] for row in history)
        _title(figure, f"Learning curves: best validation {metric} {best:.4f}")
    return figure


def confusion(scores: Scores, labels: Sequence[str], theme: Theme = LIGHT) -> "Figure":
    """Draw the confusion matrix, rows normalized so that rare labels show."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    counts = np.array(scores["confusion"])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    few = len(labels) <= FEW_LABELS
    side = max(len(labels) * (0.72 if len(labels) <= 8 else 0.52 if few else 0.165), 3)
    names = [_short(label) for label in labels]
    margin = 0.5 + 0.075 * max(map(len, names)) * (1 if few else 0.7)
    colours = LinearSegmentedColormap.from_list("shares", [theme.surface, theme.first])
    with _style(theme):
        figure = _figure(min(side + margin + (0 if few else 1), 18),
                         min(side + (0.5 + margin if len(labels) > 4 else 1), 18))
        axes = figure.add_subplot()
        # The root of the share instead of the share: a few percent of errors must show too.
        cells = axes.pcolormesh(shares, cmap=colours, norm=PowerNorm(0.5, 0, 1),
                                edgecolors=theme.grid, linewidth=1 if few else 0.2,
                                rasterized=not few)
        axes.set(aspect="equal", xlabel="predicted", ylabel="true")
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        if len(labels) <= 150:
            size, places = 9 if few else 6.5, np.arange(len(labels)) + 0.5
            axes.set_yticks(places, names, fontsize=size)
            axes.set_xticks(places, names, fontsize=size, rotation=90 if len(labels) > 4 else 0)
        if few:
            _write_cells(axes, counts, shares, theme)
        else:
            figure.colorbar(cells, ax=axes, shrink=0.4, aspect=30, ticks=[0, .01, .05, .2, .5, 1],
                            format=lambda value, _: f"{value:.0%}",
                            label="share of the true label").outline.set_visible(False)
        right = int(counts.trace())
        _title(figure, f"Confusion: {right:,} of {counts.sum():,} right "
                       f"({right / counts.sum():.1%})")
    return figure


def _write_cells(axes: "Axes", counts: np.ndarray, shares: np.ndarray, theme: Theme) -> None:
    for row, column in np.ndindex(counts.shape):
        if counts[row, column] or len(counts) <= 4:  # zeros hide the errors of a large matrix
            axes.text(column + 0.5, row + 0.5,
                      f"{shares[row, column]:.0%}\n{counts[row, column]:,}",
                      color=theme.surface if shares[row, column] > 0.35 else theme.ink,
                      ha="center", va="center", linespacing=1.35,
                      fontsize=8.5 if len(counts) <= 8 else 7.5)


def calibration(confidences: np.ndarray, correct: np.ndarray, theme: Theme = LIGHT) -> "Figure":
    """Draw how often answers of each confidence are right, and how many there are of each."""
    from matplotlib.ticker import MaxNLocator

    bins = metrics.calibration_bins(confidences, correct)
    error = metrics.calibration_error(confidences, correct)
    with _style(theme):
        figure = _figure(5.6, 5.2)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        width = 1 / len(bins.counts)
        lefts = np.arange(len(bins.counts)) * width
        full = bins.counts > 0
        top.plot([0, 1], [0, 1], color=theme.ink, linewidth=1, linestyle=(0, (4, 3)),
                 label="perfect", zorder=2)
        top.bar(lefts[full], bins.accuracy[full], width, align="edge", color=theme.first,
                edgecolor=theme.surface, label="right answers, 95 % interval", zorder=1)
        low, high = metrics.wilson(bins.accuracy[full] * bins.counts[full], bins.counts[full])
        top.vlines(lefts[full] + width / 2, low, high, color=theme.ink, linewidth=1.2, zorder=3)
        top.hlines(bins.confidence[full], lefts[full] + 0.008, lefts[full] + width - 0.008,
                   color=theme.second, linewidth=3, label="mean confidence", zorder=4)
        top.set(ylim=(0, 1.02), xlim=(0, 1), ylabel="share of right answers")
        _legend(top, 3)
        bottom.bar(lefts, bins.counts, width, align="edge", color=theme.first,
                   edgecolor=theme.surface)
        for left, count in zip(lefts[full], bins.counts[full], strict=True):
            bottom.annotate(f"{count:,}", (left + width / 2, count), (0, 2), ha="center",
                            textcoords="offset points", fontsize=7.5, color=theme.muted)
        bottom.margins(y=0.25)
        bottom.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True, min_n_ticks=1))
        bottom.set(xlabel="confidence", ylabel="examples", xticks=np.linspace(0, 1, 6))
        figure.align_ylabels()
        _title(figure, f"Calibration: expected calibration error {error:.4f}")
    return figure


def length_errors(lengths: np.ndarray, correct: np.ndarray, limit: int = 0,
                  theme: Theme = LIGHT) -> "Figure":
    """Draw the error rate by token length, in bins of about as many examples each."""
    edges = _length_edges(lengths)
    places = np.arange(len(edges) - 1)
    bins = np.clip(np.searchsorted(edges, lengths, side="right") - 1, 0, len(places) - 1)
    counts = np.bincount(bins, minlength=len(places))
    wrong = np.bincount(bins[~correct], minlength=len(places))
    low, high = metrics.wilson(wrong, counts)
    names = [f"{a}" if a == b - 1 else f"{a}–{b - 1}" for a, b in
             zip(edges[:-1], edges[1:], strict=True)]
    whole = float((~correct).mean())
    cut = limit and lengths.max() > limit
    with _style(theme):
        figure = _figure(6.8, 4)
        axes = figure.add_subplot()
        axes.bar(places, wrong / counts, 0.72, color=theme.first, zorder=2)
        axes.vlines(places, low, high, color=theme.ink, linewidth=1.2, zorder=3,
                    label="95 % interval")
        axes.axhline(whole, color=theme.second, linewidth=1.6, linestyle=(0, (4, 3)), zorder=4,
                     label=f"all examples: {whole:.1%}")
        axes.set_xticks(places, [f"{name}\nn = {count:,}" for name, count in
                                 zip(names, counts, strict=True)], fontsize=8.5)
        axes.set_xlim(-0.7, len(places) - 0.3)
        axes.set_ylim(0, min(max(float(high.max()), whole, 0.02) * 1.08, 1.02))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        axes.set_ylabel("wrong answers")
        axes.set_xlabel(f"tokens ({np.sum(lengths > limit):,} longer than {limit}: cut)" if cut
                        else "tokens")
        _legend(axes, 2)
        _title(figure, f"Errors by length: {int((~correct).sum()):,} of {len(correct):,} wrong")
    return figure


def _length_edges(lengths: np.ndarray, most: int = 8, fewest: int = 20) -> np.ndarray:
    """Give bin edges [a, b) in whole tokens; no bin is empty, few examples make few bins."""
    count = int(np.clip(len(lengths) // fewest, 1, most))
    inner = np.quantile(lengths, np.linspace(0, 1, count + 1), method="lower")[1:-1]
    edges = np.unique(np.concatenate([[lengths.min()], inner]))
    return np.append(edges, lengths.max() + 1)


def save(figure: "Figure", path: Path) -> None:
    """Write a PNG."""
    path.write_bytes(encode(figure, "png"))


def encode(figure: "Figure", kind: Literal["png", "svg"], theme: Theme = LIGHT) -> bytes:
    """Give a picture's bytes; an SVG has a clear background and takes its reader's fonts."""
    stream = io.BytesIO()
    with _style(theme):
        figure.savefig(stream, format=kind, transparent=kind == "svg", bbox_inches="tight",
                       metadata={"Date": None} if kind == "svg" else None)
    return stream.getvalue()


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _title(figure: "Figure", text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left")


def _legend(axes: "Axes", columns: int) -> None:
    """Put the legend above the axes, where it covers no data."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=columns, handlelength=1.6,
                columnspacing=1.4)


@contextmanager
def _style(theme: Theme) -> Iterator[None]:
    """Set colours and fonts inside the block; scripts that no font has cost boxes, not warnings."""
    from matplotlib import rc_context

    settings: Any = {
        "figure.facecolor": theme.surface, "axes.facecolor": "none", "text.color": theme.ink,
        "axes.edgecolor": theme.grid, "axes.labelcolor": theme.muted,
        "xtick.color": theme.grid, "ytick.color": theme.grid, "xtick.labelcolor": theme.muted,
        "ytick.labelcolor": theme.muted, "grid.color": theme.grid, "axes.grid": True,
        "axes.grid.axis": "y", "axes.axisbelow": True, "axes.spines.top": False,
        "axes.spines.right": False, "axes.spines.left": False, "ytick.left": False,
        "xtick.bottom": False, "legend.frameon": False, "legend.fontsize": 8.5, "font.size": 9,
        "figure.titlesize": 11.5, "figure.constrained_layout.h_pad": 0.09,
        "figure.constrained_layout.w_pad": 0.09, "font.family": list(_fonts()),
        # "$" in a label is a dollar, no formula; SVG text stays text; the same data, the same file.
        "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "plots"}
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        yield


@cache
def _fonts() -> tuple[str, ...]:
    """Name fonts in the order in which a letter is looked for: those of Asia where installed."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    from matplotlib import font_manager

    there = {font.name for font in font_manager.fontManager.ttflist}
    asia = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Hiragino Sans", "PingFang SC",
            "Arial Unicode MS", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
            "WenQuanYi Zen Hei")
    return ("DejaVu Sans", *(name for name in asia if name in there), "sans-serif")


def _short(label: str, most: int = 26) -> str:
    """Fit a label on an axis: one line, no control characters, cut in the middle."""
    clean = "".join(letter if letter.isprintable() else " " for letter in label)
    clean = " ".join(clean.split()) or "(empty)"
    return clean if len(clean) <= most else f"{clean[:most - 9]}…{clean[-8:]}"
