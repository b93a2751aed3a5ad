"""Scores of a finished model: scikit-learn does the work."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


def classification(targets: np.ndarray, probabilities: np.ndarray,
                   labels: Sequence[str]) -> dict[str, Any]:
    """Score single-label predictions; the table has a row a label with precision, recall, F1.

    Of two labels the second is the positive one, whose `f1` and `auroc` are given.
    """
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
        **(_binary(targets, probabilities[:, 1]) if len(labels) == 2 else {}),
        "loss": float(-np.log(np.maximum(chosen, 1e-12)).mean()),
        "calibration_error": calibration_error(probabilities.max(-1), predicted == targets),
        "selective": selective(probabilities.max(-1), predicted == targets),
        "table": classification_report(targets, predicted, labels=numbers, target_names=labels,
                                       output_dict=True, zero_division=0.0),
        "confusion": confusion_matrix(targets, predicted, labels=numbers).tolist(),
    }


def _binary(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Score the label 1 against 0; where only one of them occurs no curve is, and AUROC is 0.5."""
    from sklearn.metrics import f1_score, roc_auc_score

    both = len(np.unique(targets)) == 2
    return {"f1": float(f1_score(targets, probabilities > 0.5, zero_division=0.0)),
            "auroc": float(roc_auc_score(targets, probabilities)) if both else 0.5}


def multilabel(targets: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray,
               labels: Sequence[str]) -> dict[str, Any]:
    """Score labels that are independent: all arrays are (examples, labels), `thresholds` (labels,).

    `exact` is the share of texts with all labels right; `average_precision` is the macro average,
    which no threshold touches.
    """
    from sklearn.metrics import average_precision_score, classification_report

    known, given = targets > 0, probabilities >= thresholds
    table = classification_report(known, given, target_names=labels, output_dict=True,
                                  zero_division=0.0)
    seen = known.any(0)
    precision = average_precision_score(known[:, seen], probabilities[:, seen], average="macro")
    side = np.where(known, probabilities, 1 - probabilities).astype(np.float64)
    return {
        "examples": len(targets),
        "macro_f1": table["macro avg"]["f1-score"],
        "micro_f1": table["micro avg"]["f1-score"],
        "exact": float((known == given).all(-1).mean()),
        "average_precision": float(precision),
        "loss": float(-np.log(np.maximum(side, 1e-12)).mean()),
        "calibration_error": calibration_error(probabilities.ravel(), known.ravel()),
        "table": table,
    }


def regression(known: np.ndarray, predicted: np.ndarray, spread: float) -> dict[str, Any]:
    """Score numbers: correlations, errors in their unit, loss in `spread`s squared."""
    errors = predicted - known
    return {
        "examples": len(known),
        **correlation(known, predicted),
        "mean_absolute_error": float(np.abs(errors).mean()),
        "root_mean_squared_error": float(np.sqrt((errors ** 2).mean())),
        "loss": float(((errors / spread) ** 2).mean()),
    }


def correlation(known: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Give rank and linear correlation; that with a constant is 0 here."""
    from scipy.stats import pearsonr, rankdata

    varies = min(np.ptp(known), np.ptp(predicted)) > 0
    return {
        "spearman": float(pearsonr(rankdata(known), rankdata(predicted))[0]) if varies else 0.0,
        "pearson": float(pearsonr(known, predicted)[0]) if varies else 0.0,
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
    # With one tag a word, micro precision, recall and F1 are the accuracy.
    tokens["micro avg"] = {**dict.fromkeys(("precision", "recall", "f1-score"),
                                           float(np.mean(np.array(flat) == np.array(guessed)))),
                           "support": len(flat)}
    plain = json.loads(json.dumps(by_type, default=float))  # seqeval gives numpy numbers
    return {
        "examples": len(known),
        "span_f1": plain.get("micro avg", {"f1-score": 0.0})["f1-score"],
        "token_accuracy": tokens["micro avg"]["f1-score"],
        "token_macro_f1": tokens["macro avg"]["f1-score"],
        "table": plain, "token_table": tokens,
        "confusion": confusion_matrix(flat, guessed, labels=list(labels)).tolist(),
    }


def table_text(scores: dict[str, Any]) -> str:
    """Lay the per-class table out as scikit-learn prints it, or the numbers where there is none."""
    if "table" not in scores:
        numbers = {name: value for name, value in scores.items() if isinstance(value, float)}
        return "\n".join(f"{name:{max(map(len, numbers))}}  {value:.4f}"
                         for name, value in numbers.items())
    text = _rows_text(scores["table"])
    if "token_table" in scores:
        text += f"\n\nby word:\n{_rows_text(scores['token_table'])}"
    return text


def _rows_text(table: dict[str, Any]) -> str:
    rows = [(name, row) for name, row in table.items() if isinstance(row, dict)]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}  precision  recall  f1-score  support"]
    for name, row in rows:
        lines.append(f"{name:{width}}  {row['precision']:9.3f}  {row['recall']:6.3f}  "
                     f"{row['f1-score']:8.3f}  {row['support']:7.0f}")
    return "\n".join(lines)


def selective(confidences: np.ndarray, correct: np.ndarray) -> list[dict[str, float]]:
    """Say what abstaining would bring: the least confidence and the share answered, by accuracy.

    A row for each of a few accuracies above that of answering everything, where one can be had.
    """
    order = np.argsort(-confidences, kind="stable")
    accuracies = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    sorted_ = confidences[order]
    accuracies[:-1][sorted_[:-1] == sorted_[1:]] = -1  # equal confidences are answered together
    rows = []
    for wanted in (0.8, 0.9, 0.95, 0.98, 0.99):
        enough = np.flatnonzero(accuracies >= wanted)
        if correct.mean() < wanted and len(enough):
            last = enough[-1]
            rows.append({"accuracy": wanted, "confidence": float(sorted_[last]),
                         "answered": float((last + 1) / len(order))})
    return rows


def abstention(confidences: np.ndarray, correct: np.ndarray, limit: float) -> dict[str, float]:
    """Score a model that gives no answer below a confidence."""
    given = confidences >= limit
    return {"answered": float(given.mean()),
            "answered_accuracy": float(correct[given].mean()) if given.any() else 0.0}


def out_of_scope(inside: np.ndarray, correct: np.ndarray, outside: np.ndarray,
                 cost: float = 0.01) -> dict[str, float]:
    """Say how well confidence tells texts in scope (`inside`) from others (`outside`).

    `auroc` is the chance that a text in scope is the more confident one. `recall` is the share of
    other texts below the highest threshold that costs at most `cost` of the accuracy in scope,
    where a text in scope below it counts as wrong (Larson et al. 2019).
    """
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.ones(len(inside)), np.zeros(len(outside))])
    right = np.sort(inside[correct])
    # The threshold goes just above the confidence of the last right answer that may be lost.
    lost = min(int(cost * len(inside) + 1e-9), len(right))
    limit = float(right[lost]) if lost < len(right) else np.inf
    return {"examples": len(outside),
            "auroc": float(roc_auc_score(truth, np.concatenate([inside, outside]))),
            "threshold": limit, "recall": float((outside < limit).mean()),
            "accuracy": float((correct & (inside >= limit)).mean())}


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
