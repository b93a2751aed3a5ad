"""Scores of a finished model: scikit-learn does the work."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class CalibrationBins:
    """Answers grouped by confidence, in bins of equal width from 0 to 1: arrays (bins,)."""

    counts: np.ndarray
    confidence: np.ndarray  # mean of the bin, 0 where it is empty
    accuracy: np.ndarray


def calibration_bins(confidences: np.ndarray, correct: np.ndarray,
                     bins: int = 10) -> CalibrationBins:
    """Group answers by confidence; 1.0 belongs to the last bin."""
    # The small step puts 0.3 into [0.3, 0.4) though 0.3 * 10 may fall below 3 in binary.
    index = np.minimum((confidences * bins + 1e-9).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    some = np.maximum(counts, 1)
    return CalibrationBins(counts, np.bincount(index, confidences, bins) / some,
                           np.bincount(index, correct, bins) / some)


def calibration_error(confidences: np.ndarray, correct: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error (Guo et al. 2017): mean gap between confidence and accuracy."""
    found = calibration_bins(confidences, correct, bins)
    gaps = np.abs(found.confidence - found.accuracy)
    return float((gaps * found.counts).sum() / max(found.counts.sum(), 1))


def wilson(hits: np.ndarray, counts: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Give Wilson's 95 % interval of each share: honest for few examples and near 0 and 1."""
    shares, spread = hits / counts, z * z / counts
    middle = (shares + spread / 2) / (1 + spread)
    half = np.sqrt(shares * (1 - shares) * spread + spread * spread / 4) / (1 + spread)
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)
