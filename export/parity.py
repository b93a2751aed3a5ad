"""Does a written file give the trained model's answers? Compared on real rows; fails closed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from tf_pipeline.task import Ranked, Record, Task, text_of
from tf_pipeline.text import Arrays

TIE = 1e-4  # a decision made by less than this in probability may fall either way


@dataclass(frozen=True)
class Tolerance:
    """How far a variant may be from the float32 twin."""

    values: dict[str, float]  # largest difference by output; nothing named: finite is enough
    agreement: float  # least share of equal decisions
    metric_points: float  # largest drop of the task's metric, in points of 100 ...
    metric_examples: int | None  # ... or in examples, whichever allows more; None: not counted
    cosines: dict[str, float]  # least mean cosine to the twin's vectors, by output
    # A nearest text may be another one where its lead in cosine is below this.
    lead: float = TIE
    spare: int = 0  # decisions that may differ beyond the share


TOLERANCES = {
    "float32": Tolerance({"logits": 1e-4, "probabilities": 1e-5, "last_hidden_state": 1e-4,
                          "sentence_embedding": 1e-5}, 1.0, 0.0, 0,
                         {"sentence_embedding": 0.9999}),
    "float16": Tolerance({"logits": 1e-2, "probabilities": 1e-2, "last_hidden_state": 1e-1,
                          "sentence_embedding": 1e-2}, 0.998, 0.2, 1,
                         {"sentence_embedding": 0.999}),
    # With a mean cosine of .99 the difference of two cosines spreads by about .01.
    "int8": Tolerance({}, 0.99, 0.5, 2, {"sentence_embedding": 0.99}, lead=0.02),
}


def tolerance_of(task: Task, variant: str) -> Tolerance:
    """Give what a variant of this task's files is held to."""
    usual = TOLERANCES[variant]
    if not isinstance(task, Ranked):
        return usual
    if usual.agreement == 1:
        return replace(usual, metric_examples=None)
    return replace(usual, agreement=task.LEAST_EQUAL, metric_points=100 * task.MOST_LOST,
                   metric_examples=None)


@dataclass(frozen=True)
class Verdict:
    """What a comparison found. `reasons` is empty where the file passes."""

    rows: int
    reasons: tuple[str, ...]
    differences: dict[str, float] = field(default_factory=dict)  # largest, in the task's unit
    cosines: dict[str, float] = field(default_factory=dict)  # mean, to the twin's vectors
    agreement: float | None = None
    ties: int = 0  # decisions that differ where either side is right
    metric: str | None = None
    metric_before: float | None = None
    metric_after: float | None = None
    worst: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the file may be published."""
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON content."""
        return {**asdict(self), "ok": self.ok}


def compare(task: Task, records: Sequence[Record], expected: Arrays, actual: Arrays,
            tolerance: Tolerance, scored: bool = True) -> Verdict:
    """Hold a file's outputs for `records` against the twin's.

    `scored` False leaves the metric out: the records then need no targets.
    """
    # Whole numbers are decisions, such as a piece of the vocabulary: `task.decisions` holds them.
    names = [name for name in sorted(actual) if np.issubdtype(actual[name].dtype, np.inexact)]
    if fault := _shape_fault(expected, actual):
        return Verdict(len(records), (fault,))
    per_row = {name: _row_differences(expected[name], actual[name]) / task.unit for name in names}
    differences = {name: float(rows.max()) for name, rows in per_row.items()}
    cosines = {name: _mean_cosine(expected[name], actual[name])
               for name in tolerance.cosines if name in actual}
    reasons = []
    finite = np.all([np.isfinite(rows) for rows in per_row.values()], axis=0)
    if not finite.all():
        reasons.append(f"{int((~finite).sum())} of {len(records)} rows hold NaN or infinity")
    # This way round NaN fails.
    reasons += [f"largest difference of {name} {differences[name]:.2e} exceeds {largest:.0e}"
                for name, largest in tolerance.values.items()
                if name in differences and not differences[name] <= largest]
    reasons += [f"mean cosine of {name} {cosine:.5f} is below {tolerance.cosines[name]:g}"
                for name, cosine in cosines.items() if not cosine >= tolerance.cosines[name]]
    before, margins = task.decisions(expected)
    after, _ = task.decisions(actual)
    other = np.array([a != b for a, b in zip(before, after, strict=True)])
    differs = other & (margins >= (tolerance.lead if cosines else TIE))
    lost, made = _lost(before, after, differs)
    agreement = 1.0 - lost / max(made, 1)
    if lost > (1.0 - tolerance.agreement) * made + tolerance.spare + 1e-9:
        reasons.append(f"{lost:g} of {made:g} decisions differ (agreement {agreement:.3%}; at "
                       f"least {tolerance.agreement:.1%} is needed)")
    scores: tuple[Any, Any] = (None, None)
    if scored and finite.all():
        scores = _metric(task, expected, records), _metric(task, actual, records)
        allowed = _allowed_fall(tolerance, margins, len(records))
        # Correlations follow the last bits of the values; one example fewer is never so little.
        if not scores[0] - scores[1] <= allowed + 1e-5:
            reasons.append(f"{task.METRIC} falls from {scores[0]:.4f} to {scores[1]:.4f}; a fall "
                           f"of {allowed:.4f} is allowed")
    # A row that decides otherwise is worse than any that does not.
    badness = np.max([np.nan_to_num(r, nan=np.inf) for r in per_row.values()], axis=0)
    worst = int(np.argmax(badness + 1e9 * differs.reshape(len(records), -1).any(1)))
    return Verdict(len(records), tuple(reasons), differences, cosines, agreement,
                   int((other & ~differs).sum()),
                   task.METRIC if scored else None, *scores,
                   _example(worst, records, expected, actual))


def _lost(before: list[set[Any]], after: list[set[Any]],
          differs: np.ndarray) -> tuple[float, float]:
    """Count decisions that only one side made, halved, and all that a side made on average.

    The rest is then the F1 of one side held against the other: for one label a text the share of
    equal ones, for spans what seqeval counts.
    """
    pairs = list(zip(before, after, strict=True))
    made = sum(len(a) + len(b) for a, b in pairs)
    lost = sum(len(a ^ b) for (a, b), differ in zip(pairs, differs, strict=True) if differ)
    return lost / 2, made / 2


def _allowed_fall(tolerance: Tolerance, margins: np.ndarray, rows: int) -> float:
    """Give how much lower the metric may be; rows with a tie may be right on one side alone."""
    allowed = tolerance.metric_points / 100
    if tolerance.metric_examples is None:
        return allowed
    ties = int((margins.reshape(rows, -1) < TIE).any(1).sum())
    return max(allowed, (tolerance.metric_examples + ties) / rows)


def _shape_fault(expected: Arrays, actual: Arrays) -> str | None:
    for name, values in actual.items():
        if name not in expected:
            return f"the file gives an output {name!r}; known are {', '.join(expected)}"
        if values.shape != expected[name].shape:
            return f"output {name} has shape {values.shape}, not {expected[name].shape}"
    return None


def _example(row: int, records: Sequence[Record], expected: Arrays,
             actual: Arrays) -> dict[str, Any]:
    return {"row": row, "record": records[row],
            "expected": {name: expected[name][row].tolist() for name in actual},
            "actual": {name: values[row].tolist() for name, values in actual.items()}}


def _row_differences(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Give each row's largest difference: (rows,). NaN stays NaN."""
    return np.abs(expected - actual).reshape(len(expected), -1).max(-1)


def _mean_cosine(expected: np.ndarray, actual: np.ndarray) -> float:
    """Average the cosine between vectors (..., hidden) of two sides."""
    lengths = np.linalg.norm(expected, axis=-1) * np.linalg.norm(actual, axis=-1)
    return float(((expected * actual).sum(-1) / np.maximum(lengths, 1e-12)).mean())


def _metric(task: Task, outputs: Arrays, records: Sequence[Record]) -> float:
    return float(task.score(outputs, records)[task.METRIC])


def worst_line(verdict: Verdict, width: int = 60) -> str:
    """Show the worst example in one line."""
    if not verdict.worst:
        return ""
    record = verdict.worst["record"]
    text = text_of(record)
    shown = text if len(text) <= width else text[:width - 1] + "…"
    values = "; ".join(
        f"{name} {_short(verdict.worst['expected'][name])} -> {_short(values)}"
        for name, values in verdict.worst["actual"].items())
    return f"worst example: row {verdict.worst['row']} {shown!r}: {values}"


def _short(values: Any) -> str:
    flat = np.asarray(values).reshape(-1)[:4]
    return "[" + " ".join(f"{v:.5g}" for v in flat) + (" ..." if np.size(values) > 4 else "") + "]"
