"""One text in, one label out: sentiment, topic, intent. Records: `text`, `label`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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
    class_weights: Literal["none", "balanced"] = option(
        "none", help="balanced: rare labels weigh as much in the loss as frequent ones")
    label_smoothing: float = option(0.0, help="share of each target spread over all labels "
                                    "(Szegedy et al. 2016), e.g. 0.1")
    focal_gamma: float = option(0.0, help="above 0: focal loss (Lin et al. 2017), which looks at "
                                "the examples that are still wrong, e.g. 2")
    abstain_below: float = option(0.0, help="give no label where the best one's probability is "
                                  "lower; `evaluate` shows what each choice would cost")
    pairs: bool = False  # whether each record has two texts; learned
    temperature: float = 1.0  # chosen after training and folded into the last layer

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"--label-smoothing is {self.label_smoothing}; allowed: from 0 to "
                            "below 1.")
        if self.focal_gamma < 0:
            raise UserError(f"--focal-gamma is {self.focal_gamma}; allowed: 0 or more.")
        if not 0 <= self.abstain_below <= 1:
            raise UserError(f"--abstain-below is {self.abstain_below}; it is a probability, from "
                            "0 to 1.")


class Task(task.Task):
    """Single-label classification with transformers' head: pooled output, dropout, dense."""

    FIELDS: ClassVar[tuple[str, ...]] = ("text", "label")
    METRIC = "accuracy"
    ARCHITECTURE = "BertForSequenceClassification"
    PROBLEM_TYPE = "single_label_classification"
    OUTPUTS = {
        "onnx": ("logits",),
        "tflite": ("probabilities",),
        "tokens": ("logits", "probabilities"),
        "text": ("probabilities", "label"),
    }

    def __init__(self, labels: Sequence[str], options: Options):
        super().__init__(labels, options)
        self._index = {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def learn(cls, records: Sequence[Record], options: Options) -> "Task":
        """Take the labels from the training records, in sorted order."""
        labels = sorted({record["label"] for record in records}, key=natural)
        if len(labels) < 2:
            raise UserError(f"All {len(records)} training records have the label {labels[0]!r}; "
                            "a classifier needs at least two. Check the label column.")
        return cls(labels, replace(options, pairs="text_b" in records[0]))

    @classmethod
    def imported(cls, labels: Sequence[str]) -> "Task":
        """Take the labels as they are."""
        return cls(labels, Options())

    def targets(self, records: Sequence[Record]) -> Arrays:
        """Give label numbers: int32 (records,)."""
        refuse_unknown((r["label"] for r in records), self.labels, "label")
        return {"logits": np.array([self._index[r["label"]] for r in records], np.int32)}

    def weights(self, targets: Arrays) -> np.ndarray:
        """Weigh by inverse class frequency, mean 1, or not at all."""
        numbers = targets["logits"]
        if self.options.class_weights == "none":
            return np.ones(len(numbers), np.float32)
        counts = np.bincount(numbers, minlength=len(self.labels))
        per_class = len(numbers) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return per_class[numbers].astype(np.float32)

    def build(self, backbone: "keras.Model") -> "keras.Model":
        """Give logits (batch, labels)."""
        from .. import heads

        return heads.for_text(backbone, self.options.pooling, len(self.labels), "classify")

    def compile_args(self) -> dict[str, Any]:
        """Use cross-entropy on logits, smoothed or focal as the options say."""
        import keras
        from keras import losses, ops

        smoothing, gamma = self.options.label_smoothing, self.options.focal_gamma

        def loss(targets: Any, logits: Any) -> Any:
            one_hot = ops.one_hot(ops.cast(targets, "int32"), len(self.labels))
            if gamma:
                return losses.categorical_focal_crossentropy(
                    one_hot, logits, alpha=1.0, gamma=gamma, from_logits=True,
                    label_smoothing=smoothing)
            return losses.categorical_crossentropy(one_hot, logits, from_logits=True,
                                                   label_smoothing=smoothing)

        plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return {"loss": {"logits": loss if gamma or smoothing else plain}}

    def finish(self, model: "keras.Model", outputs: Arrays,
               records: Sequence[Record]) -> "Task":
        """Fold the temperature into the last layer."""
        from .. import calibration, heads

        found = calibration.temperature(outputs["logits"], self.targets(records)["logits"])
        heads.rescale(model, 1 / found)
        return Task(self.labels, replace(self.options, temperature=found))

    def export_outputs(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Add softmax probabilities: phones read them as they are."""
        from keras import ops

        return {"logits": outputs["logits"], "probabilities": ops.softmax(outputs["logits"])}

    def served(self, outputs: Arrays) -> Arrays:
        """Add probabilities and the likeliest label."""
        values = decoding.class_probabilities(outputs)
        return {**outputs, "probabilities": values,
                "label": np.array(self.labels)[values.argmax(-1)]}

    def decode(self, outputs: Arrays, records: Sequence[Record],
               encoded: Encoded) -> list[Answer]:
        """Give label, its probability as `score`, and all labels' scores, best first.

        The label is None where the score is below `abstain_below`.
        """
        answers = []
        for row in decoding.class_probabilities(outputs):
            order = np.argsort(-row, kind="stable")
            scores = {self.labels[i]: float(row[i]) for i in order}
            best = float(row[order[0]])
            answers.append({
                "label": self.labels[order[0]] if best >= self.options.abstain_below else None,
                "score": best, "scores": scores})
        return answers

    def answered(self, records: Sequence[Record], outputs: Arrays,
                 encoded: Encoded) -> list[Record]:
        """Add the likeliest label."""
        numbers = decoding.class_probabilities(outputs).argmax(-1)
        return [{**record, "label": self.labels[number]}
                for record, number in zip(records, numbers, strict=True)]

    def confidence(self, outputs: Arrays) -> np.ndarray:
        """Give the best label's probability: (records,)."""
        return decoding.class_probabilities(outputs).max(-1)

    def decisions(self, outputs: Arrays) -> tuple[list[set[Any]], np.ndarray]:
        """Give the label, or nothing when abstaining; by first less second probability."""
        values = decoding.class_probabilities(outputs)
        second, first = np.sort(values, -1)[:, -2:].T
        limit = self.options.abstain_below
        decided = [{number} if best >= limit else set()
                   for number, best in zip(values.argmax(-1).tolist(), first, strict=True)]
        margins = first - second
        return decided, np.minimum(margins, np.abs(first - limit)) if limit else margins

    def score(self, outputs: Arrays, records: Sequence[Record]) -> Scores:
        """Give accuracy, F1 averages, mean loss, scikit-learn's table and the confusion matrix."""
        from .. import metrics

        targets = self.targets(records)["logits"]
        values = decoding.class_probabilities(outputs)
        scores = metrics.classification(targets, values, self.labels)
        if limit := self.options.abstain_below:
            scores |= metrics.abstention(values.max(-1), values.argmax(-1) == targets, limit)
        return scores

    def judge(self, outputs: Arrays, records: Sequence[Record]) -> list[Judgement]:
        """Lay the likeliest label beside the right one."""
        values = decoding.class_probabilities(outputs)
        chosen = values.argmax(-1)
        return [Judgement(text_of(record), record["label"], self.labels[best], float(row[best]),
                          self.labels[best] == record["label"])
                for record, row, best in zip(records, values, chosen, strict=True)]
