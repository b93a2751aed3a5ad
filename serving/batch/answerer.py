"""Rows to answers, for whatever engine holds the rows: here processes, elsewhere Beam or Ray.

    answer = BatchAnswerer("artifacts/reviews")
    answer([{"text": "what a film"}, {"text": ""}])  # [{"answer": {...}}, {"error": "..."}]
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_pipeline.predictor import Predictor

from ..tf_serving import round_floats


class BatchAnswerer:
    """Answers rows: each by itself, and a bad one with the reason. Travels to other processes.

    The model is loaded at the first call of each process; in transit it is settings alone.
    """

    def __init__(self, folder: Path | str, runtime: str | None = None, variant: str | None = None,
                 length: int | None = None, threads: int | None = 1,
                 max_characters: int = 100_000):
        self._model = (str(folder), runtime, variant, length, threads)
        self._max_characters = max_characters
        self._predictor: Predictor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_predictor": None}

    def load(self) -> Predictor:
        """Give the model, loading it if that was not yet done here."""
        if self._predictor is None:
            self._predictor = Predictor(*self._model)
        return self._predictor

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Give for each row `{"answer": ...}`, as `:answer` has it, or `{"error": why}`.

        The last digits of an answer may depend on the rows that it is computed with.
        """
        if not rows:
            return []
        predictor = self.load()
        fields = predictor.task.text_fields
        faults = [self._fault(row, fields) for row in rows]
        good = [{field: row[field] for field in fields}
                for row, fault in zip(rows, faults, strict=True) if not fault]
        answers = iter(predictor(good))
        return [{"error": fault} if fault else _outcome(next(answers)) for fault in faults]

    def _fault(self, row: Mapping[str, Any], fields: Sequence[str]) -> str:
        """Say why a row cannot be answered; nothing if it can."""
        for field in fields:
            text = row.get(field)
            if text is None:
                return f"{field} is missing."
            if not isinstance(text, str):
                return (f"{field} is {str(text)[:80]!r}, of type {type(text).__name__}; it must be "
                        "a string.")
            if not text.strip():
                return f"{field} is {text[:80]!r}: there is nothing to answer."
            if len(text) > self._max_characters:
                return (f"{field} has {len(text):,} characters; allowed are "
                        f"{self._max_characters:,}.")
            try:
                text.encode()
            except UnicodeEncodeError as error:
                return (f"{field} holds half of a surrogate pair, {text[error.start]!r}, at "
                        f"character {error.start}.")
        return ""


def _outcome(answer: Mapping[str, Any]) -> dict[str, Any]:
    rounded = round_floats(answer)
    if not _finite(rounded):  # JSON has no such number
        return {"error": f"the answer holds a number that is not finite: {str(rounded)[:200]}"}
    return {"answer": rounded}


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list) else True
