"""One text in, any number of labels out: emotions, topics. Records: `text`, `labels` (a list)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import decoding, task
from ..config import Pooling, option, pooling_option
from ..errors import UserError
from ..task import Answer, Judgement, Record, Scores, natural, refuse_unknown, text_of
from ..text import Arrays, Encoded

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Options:
    """Settings of this task alone."""

    pooling: Pooling = pooling_option()
    label_smoothing: float = option(0.0, help="how far targets move from 0 and 1 towards 0.5, "
                                    "e.g. 0.1")
    focal_gamma: float = option(0.0, help="above 0: focal loss (Lin et al. 2017), which looks at "
                                "the answers that are still wrong, e.g. 2")
    pairs: bool = False  # whether each record has two texts; learned
    temperature: float = 1.0  # chosen after training and folded into the last layer
    thresholds: tuple[float, ...] = ()  # one a label, chosen after training; empty before

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"--label-smoothing is {self.label_smoothing}; allowed: from 0 to "
                            "below 1.")
        if self.focal_gamma < 0:
            raise UserError(f"--focal-gamma is {self.focal_gamma}; allowed: 0 or more.")


class Task(task.Task):
    """Labels independent of each other, with transformers' head: pooled output, dropout, dense."""

    FIELDS = ("text", "labels")
    METRIC = "macro_f1"
    ARCHITECTURE = "BertForSequenceClassification"
    PROBLEM_TYPE = "multi_label_classification"
    OUTPUTS = {"onnx": ("logits",), "tflite": ("probabilities",),
               "tokens": ("logits", "probabilities"), "text": ("probabilities",)}

    def __init__(self, labels: Sequence[str], options: Options):
        super().__init__(labels, options)
        self._index = {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def learn(cls, records: Sequence[Record], options: Options) -> "Task":
        """Take the labels from the training records, in sorted order."""
        labels = sorted({label for record in records for label in record["labels"]}, key=natural)
        if len(labels) < 2:
            raise UserError(f"The {len(records)} training records have {len(labels)} label(s), "
                            f"{labels}; needed are at least two. Check the labels column.")
        return cls(labels, replace(options, pairs="text_b" in records[0]))

    @classmethod
    def imported(cls, labels: Sequence[str]) -> "Task":
        """Take the labels as they are, with transformers' threshold."""
        return cls(labels, Options(thresholds=(0.5,) * len(labels)))

    def targets(self, records: Sequence[Record]) -> Arrays:
        """Give 1 for each label that applies: float32 (records, labels)."""
        refuse_unknown((label for r in records for label in r["labels"]), self.labels, "label")
        rows = np.zeros((len(records), len(self.labels)), np.float32)
        for row, record in zip(rows, records, strict=True):
            row[[self._index[label] for label in record["labels"]]] = 1
        return {"logits": rows}

    def build(self, backbone: "keras.Model") -> "keras.Model":
        """Give logits (batch, labels)."""
        from .. import heads

        return heads.for_text(backbone, self.options.pooling, len(self.labels), "multilabel")

    def compile_args(self) -> dict[str, Any]:
        """Use binary cross-entropy on logits, smoothed or focal as the options say."""
        import keras

        shared = {"from_logits": True, "label_smoothing": self.options.label_smoothing}
        if self.options.focal_gamma:
            return {"loss": {"logits": keras.losses.BinaryFocalCrossentropy(
                gamma=self.options.focal_gamma, **shared)}}
        return {"loss": {"logits": keras.losses.BinaryCrossentropy(**shared)}}

    def finish(self, model: "keras.Model", outputs: Arrays,
               records: Sequence[Record]) -> "Task":
        """Fold the temperature into the last layer and choose each label's threshold."""
        from .. import calibration, heads

        targets = self.targets(records)["logits"]
        found = calibration.temperature(outputs["logits"], targets)
        heads.rescale(model, 1 / found)
        values = decoding.label_probabilities({"logits": outputs["logits"] / found})
        limits = calibration.thresholds(values, targets).tolist()
        return Task(self.labels, replace(self.options, temperature=found,
                                         thresholds=tuple(limits)))

    def export_outputs(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Add each label's probability: phones read them as they are."""
        from keras import ops

        return {"logits": outputs["logits"], "probabilities": ops.sigmoid(outputs["logits"])}

    def served(self, outputs: Arrays) -> Arrays:
        """Add probabilities."""
        return {**outputs, "probabilities": decoding.label_probabilities(outputs)}

    def decode(self, outputs: Arrays, records: Sequence[Record],
               encoded: Encoded) -> list[Answer]:
        """Give the labels over their thresholds, and all labels' scores, best first."""
        limits, answers = self._limits(), []
        for row in decoding.label_probabilities(outputs):
            order = np.argsort(-row, kind="stable")
            answers.append({"labels": [self.labels[i] for i in order if row[i] >= limits[i]],
                            "scores": {self.labels[i]: float(row[i]) for i in order}})
        return answers

    def answered(self, records: Sequence[Record], outputs: Arrays,
                 encoded: Encoded) -> list[Record]:
        """Add the labels over their thresholds."""
        return [{**record, "labels": answer["labels"]} for record, answer in
                zip(records, self.decode(outputs, records, encoded), strict=True)]

    def confidence(self, outputs: Arrays) -> np.ndarray:
        """Give the likeliest label's probability: (records,)."""
        return decoding.label_probabilities(outputs).max(-1)

    def decisions(self, outputs: Arrays) -> tuple[list[set[Any]], np.ndarray]:
        """Give the labels over their thresholds, and how near the nearest threshold is."""
        values, limits = decoding.label_probabilities(outputs), self._limits()
        return ([set(np.flatnonzero(row >= limits).tolist()) for row in values],
                np.abs(values - limits).min(-1))

    def score(self, outputs: Arrays, records: Sequence[Record]) -> Scores:
        """Give F1 averages, mean loss and scikit-learn's table.

        Before thresholds are chosen, as on validation rows during training, the best ones for
        these very rows are taken: so is `finish` going to choose.
        """
        from .. import calibration, metrics

        targets = self.targets(records)["logits"]
        values = decoding.label_probabilities(outputs)
        limits = (self._limits() if self.options.thresholds
                  else calibration.thresholds(values, targets))
        return metrics.multilabel(targets, values, limits, self.labels)

    def judge(self, outputs: Arrays, records: Sequence[Record]) -> list[Judgement]:
        """Lay the labels beside the right ones; the score is that of the least sure label."""
        values, limits = decoding.label_probabilities(outputs), self._limits()
        right, given = self.targets(records)["logits"] > 0, values >= limits
        sure = np.where(given, values, 1 - values).min(-1)
        return [Judgement(text_of(record), self._names(true), self._names(row), float(score),
                          bool((true == row).all()))
                for record, true, row, score in zip(records, right, given, sure, strict=True)]

    def _names(self, given: np.ndarray) -> str:
        return ", ".join(self.labels[i] for i in np.flatnonzero(given)) or "-"

    def _limits(self) -> np.ndarray:
        return np.array(self.options.thresholds or [0.5] * len(self.labels))
