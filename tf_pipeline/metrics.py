"""Scores and plots of a finished model: scikit-learn and matplotlib do the work."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def classification(targets: np.ndarray, probabilities: np.ndarray,
                   labels: Sequence[str]) -> dict[str, Any]:
    """Score single-label predictions; the table has a row a label with precision, recall, F1."""
    from sklearn.metrics import classification_report, confusion_matrix, f1_score

    predicted = probabilities.argmax(-1)
    numbers = list(range(len(labels)))
    chosen = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    average = {"labels": numbers, "zero_division": 0.0}
    return {
        "examples": len(targets),
        "accuracy": float((predicted == targets).mean()),
        "macro_f1": float(f1_score(targets, predicted, average="macro", **average)),
        "micro_f1": float(f1_score(targets, predicted, average="micro", **average)),
        "loss": float(-np.log(np.maximum(chosen, 1e-12)).mean()),
        "table": classification_report(targets, predicted, labels=numbers, target_names=labels,
                                       output_dict=True, zero_division=0.0),
        "confusion": confusion_matrix(targets, predicted, labels=numbers).tolist(),
    }


def tagging(known: list[list[str]], predicted: list[list[str]],
            labels: Sequence[str]) -> dict[str, Any]:
    """Score B- and I- tags: spans by type with seqeval, and the table of tokens.

    `span_f1` counts a span only where words and type are right (CoNLL-2003's measure, micro
    average); `token_accuracy` and `token_macro_f1` count words, the tag O among them.
    """
    from seqeval.metrics import classification_report as span_report
    from sklearn.metrics import classification_report, confusion_matrix

    flat, guessed = ([tag for row in rows for tag in row] for rows in (known, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a type without any span: zero_division says what it is
        by_type = span_report(known, predicted, output_dict=True, zero_division=0)
    tokens = classification_report(flat, guessed, labels=list(labels), output_dict=True,
                                   zero_division=0.0)
    plain = json.loads(json.dumps(by_type, default=float))  # seqeval gives numpy numbers
    return {
        "examples": len(known),
        "span_f1": plain.get("micro avg", {"f1-score": 0.0})["f1-score"],
        "token_accuracy": float(np.mean([a == b for a, b in zip(flat, guessed, strict=True)])),
        "token_macro_f1": tokens["macro avg"]["f1-score"],
        "table": plain, "token_table": tokens,
        "confusion": confusion_matrix(flat, guessed, labels=list(labels)).tolist(),
    }


def table_text(scores: dict[str, Any]) -> str:
    """Lay the per-class table out as scikit-learn prints it."""
    rows = [(name, row) for name, row in scores["table"].items() if isinstance(row, dict)]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}  precision  recall  f1-score  support"]
    for name, row in rows:
        lines.append(f"{name:{width}}  {row['precision']:9.3f}  {row['recall']:6.3f}  "
                     f"{row['f1-score']:8.3f}  {row['support']:7.0f}")
    return "\n".join(lines)


def plot_confusion(scores: dict[str, Any], labels: Sequence[str], path: Path) -> None:
    """Draw the confusion matrix as a PNG, rows normalized so that rare labels show."""
    # The figure class instead of pyplot: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    counts = np.array(scores["confusion"])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(4 + 0.4 * len(labels), 30)
    figure = Figure(figsize=(side + 1, side), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    display = ConfusionMatrixDisplay(shares, display_labels=list(labels))
    few = len(labels) <= 20
    display.plot(ax=axes, cmap="Blues", include_values=few, values_format=".2f",
                 xticks_rotation="vertical" if len(labels) > 4 else "horizontal",
                 im_kw={"vmin": 0, "vmax": 1})
    axes.set(title=f"{scores['examples']} examples",
             xlabel="predicted", ylabel="true (share of each row)")
    figure.savefig(path)
