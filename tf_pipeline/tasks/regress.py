"""One text or pair in, one number out: stars, urgency, similarity. Records: `text`, `score`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import task
from ..config import Pooling, pooling_option
from ..errors import UserError
from ..task import Answer, Record, Scores
from ..text import Arrays, Encoded

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Options:
    """Settings of this task alone, and the scale of the training scores."""

    pooling: Pooling = pooling_option()
    pairs: bool = False  # whether each record has two texts; learned, as is the scale
    mean: float = 0.0
    spread: float = 1.0  # standard deviation
    folded: bool = False  # whether the last layer gives scores on that scale


class Task(task.Task):
    """Regression with transformers' head: pooled output, dropout, one dense unit.

    Training sees scores of mean 0 and spread 1, whatever their unit; `finish` folds the unit into
    the last layer.
    """

    FIELDS = ("text", "score")
    METRIC = "pearson"
    ARCHITECTURE = "BertForSequenceClassification"
    PROBLEM_TYPE = "regression"
    OUTPUTS = {name: ("logits",) for name in ("onnx", "tflite", "tokens", "text")}

    @property
    def unit(self) -> float:
        """The spread of the training scores, once the last layer gives them."""
        return self.options.spread if self.options.folded else 1.0

    @classmethod
    def learn(cls, records: Sequence[Record], options: Options) -> "Task":
        """Take the scale from the training records."""
        scores = np.array([record["score"] for record in records])
        if not scores.std() > 0:
            raise UserError(f"All {len(records)} training records have the score {scores[0]}; "
                            "there is nothing to learn. Check the score column.")
        return cls(("score",), replace(options, mean=float(scores.mean()),
                                       spread=float(scores.std()),
                                       pairs="text_b" in records[0]))

    @classmethod
    def imported(cls, labels: Sequence[str]) -> "Task":
        """Take the scores as they come."""
        return cls(labels, Options(folded=True))

    def targets(self, records: Sequence[Record]) -> Arrays:
        """Give scores of mean 0 and spread 1: float32 (records, 1)."""
        scores = np.array([[record["score"]] for record in records], np.float64)
        return {"logits": ((scores - self.options.mean) / self.options.spread).astype(np.float32)}

    def build(self, backbone: "keras.Model") -> "keras.Model":
        """Give logits (batch, 1)."""
        from .. import heads

        return heads.for_text(backbone, self.options.pooling, 1, "regress")

    def compile_args(self) -> dict[str, Any]:
        """Use the mean squared error."""
        return {"loss": {"logits": "mse"}}

    def finish(self, model: "keras.Model", outputs: Arrays,
               records: Sequence[Record]) -> "Task":
        """Fold the scale into the last layer."""
        from .. import heads

        heads.rescale(model, self.options.spread, self.options.mean)
        return Task(self.labels, replace(self.options, folded=True))

    def decode(self, outputs: Arrays, records: Sequence[Record],
               encoded: Encoded) -> list[Answer]:
        """Give the score."""
        return [{"score": float(score)} for score in self._scores(outputs)]

    def answered(self, records: Sequence[Record], outputs: Arrays,
                 encoded: Encoded) -> list[Record]:
        """Add the score."""
        return [{**record, "score": float(score)}
                for record, score in zip(records, self._scores(outputs), strict=True)]

    def decisions(self, outputs: Arrays) -> tuple[list[set[Any]], np.ndarray]:
        """Tell scores above the training data's mean from those below, by the distance to it."""
        distances = (self._scores(outputs) - self.options.mean) / self.options.spread
        return [{bool(d > 0)} for d in distances], np.abs(distances)

    def score(self, outputs: Arrays, records: Sequence[Record]) -> Scores:
        """Give correlations, errors in the scores' unit, and the loss."""
        from .. import metrics

        scores = np.array([record["score"] for record in records], np.float64)
        return metrics.regression(scores, self._scores(outputs), self.options.spread)

    def _scores(self, outputs: Arrays) -> np.ndarray:
        """Give scores in their own unit: (records,)."""
        values = outputs["logits"][:, 0].astype(np.float64)
        return values if self.options.folded else values * self.options.spread + self.options.mean
