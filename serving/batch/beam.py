"""Answers as a step of an Apache Beam pipeline: `pip install -r serving/requirements-beam.txt`.

    rows | AnswerRows(BatchAnswerer("/shared/artifacts/reviews"))

Every worker needs this package and the artifact, at that path.
"""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from .answerer import BatchAnswerer

ANSWERS, ERRORS = "answers", "errors"


class AnswerRows(beam.PTransform):
    """Answers rows: dicts with a `text`, and `text_b` for pairs; other keys travel along.

    Gives two collections, `answers` of `{"row": ..., "answer": ...}` and `errors` of `{"row": ...,
    "error": why}`; each row is in one of them.
    """

    def __init__(self, answerer: BatchAnswerer, most_rows: int = 256):
        super().__init__()
        self._answerer, self._most_rows = answerer, most_rows

    def expand(self, pcoll: Any) -> Any:
        """Answer up to `most_rows` rows of a bundle at a time."""
        # As many as there are up to the most: Beam otherwise tries sizes out.
        batches = pcoll | "Batch" >> beam.BatchElements(self._most_rows, self._most_rows)
        return batches | "Answer" >> beam.ParDo(_Answer(self._answerer)).with_outputs(
            ERRORS, main=ANSWERS)


class _Answer(beam.DoFn):
    def __init__(self, answerer: BatchAnswerer):
        self._answerer = answerer

    def setup(self) -> None:
        """Load the model once a worker, before the first rows."""
        self._answerer.load()

    def process(self, element: list[dict[str, Any]]) -> Iterator[Any]:
        """Answer rows, each into its collection."""
        for row, outcome in zip(element, self._answerer(element), strict=True):
            result = {"row": row, **outcome}
            yield beam.pvalue.TaggedOutput(ERRORS, result) if "error" in outcome else result
