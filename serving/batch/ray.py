"""Answers as a step of a Ray Data pipeline: `pip install -r serving/requirements-ray.txt`.

    answerer = BatchAnswerer("/shared/artifacts/reviews")
    rows.map_batches(AnswerColumns, fn_constructor_args=(answerer,), batch_size=256, concurrency=2,
                     num_cpus=1)

Every node needs this package and the artifact, at that path.
"""

import json
from typing import Any

import numpy as np

from .answerer import BatchAnswerer

Columns = dict[str, np.ndarray]


class AnswerColumns:
    """Adds to a batch of rows, with a column `text` and for pairs `text_b`, two columns of text.

    `answer` is JSON, as a column has one type and answers are many; `error` says why there is none.
    One of them is null.
    """

    def __init__(self, answerer: BatchAnswerer):
        self._answerer = answerer
        answerer.load()

    def __call__(self, batch: Columns) -> Columns:
        """Answer rows that come as arrays, one for each column."""
        rows = [dict(zip(batch, values, strict=True))
                for values in zip(*batch.values(), strict=True)]
        outcomes = self._answerer(rows)
        return {**batch, "error": _column([outcome.get("error") for outcome in outcomes]),
                "answer": _column([None if "error" in outcome else
                                   json.dumps(outcome["answer"], ensure_ascii=False)
                                   for outcome in outcomes])}


def _column(values: list[Any]) -> np.ndarray:
    column = np.empty(len(values), object)
    column[:] = values
    return column
