"""One text in, one label out: sentiment, topic, intent. Records: `text`, `label`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import decoding
from ..config import option
from ..errors import UserError
from ..task import Answer, Judgement, Record, Scores
from ..text import Arrays, Encoded, TextEncoder

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Options:
    """Settings of this task alone."""

    class_weights: Literal["none", "balanced"] = option(
        "none", help="balanced: rare labels weigh as much in the loss as frequent ones")


class Task:
    """Single-label classification with transformers' head: pooled output, dropout, dense."""

    FIELDS = ("text", "label")
    METRIC = "accuracy"
    ARCHITECTURE = "BertForSequenceClassification"
    OUTPUTS = {
        "onnx": ("logits",),
        "tflite": ("probabilities",),
        "tokens": ("logits", "probabilities"),
        "text": ("probabilities", "label"),
    }

    def __init__(self, labels: Sequence[str], options: Options):
        self.labels = tuple(labels)
        self.options = options
        self._index = {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def learn(cls, records: Sequence[Record], options: Options) -> "Task":
        """Take the labels from the training records, in sorted order."""
        labels = sorted({record["label"] for record in records}, key=_natural)
        if len(labels) < 2:
            raise UserError(f"All {len(records)} training records have the label {labels[0]!r}; "
                            "a classifier needs at least two. Check the label column.")
        return cls(labels, options)

    def encode(self, records: Sequence[Record], encoder: TextEncoder,
               max_len: int | None = None) -> Encoded:
        """Encode the texts."""
        return encoder.encode([record["text"] for record in records], max_len=max_len)

    def targets(self, records: Sequence[Record]) -> Arrays:
        """Give label numbers: int32 (records,)."""
        unknown = Counter(r["label"] for r in records if r["label"] not in self._index)
        if unknown:
            shown = ", ".join(f"{label!r} ({count}x)" for label, count in unknown.most_common(5))
            raise UserError(f"{len(unknown)} label(s) that training never saw: {shown}. "
                            f"Known: {', '.join(map(repr, self.labels[:20]))}. Add examples of "
                            "them to the training data, or correct the label column.")
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
        """Give logits (batch, labels), in float32 also under mixed precision."""
        import keras

        rate = backbone.get_layer("embeddings").config.hidden_dropout_prob
        pooled = keras.layers.Dropout(rate, name="head_dropout")(
            backbone(backbone.input)["pooled_output"])
        logits = keras.layers.Dense(len(self.labels), name="logits", dtype="float32",
                                    kernel_initializer=keras.initializers.TruncatedNormal(
                                        stddev=0.02))(pooled)
        return keras.Model(backbone.input, {"logits": logits}, name="classify")

    def compile_args(self) -> dict[str, Any]:
        """Use cross-entropy on logits."""
        import keras

        return {"loss": {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}}

    def export_outputs(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Add softmax probabilities: phones read them as they are."""
        from keras import ops

        return {"logits": outputs["logits"], "probabilities": ops.softmax(outputs["logits"])}

    def decode(self, outputs: Arrays, records: Sequence[Record],
               encoded: Encoded) -> list[Answer]:
        """Give label, its probability as `score`, and all labels' scores, best first."""
        answers = []
        for row in decoding.probabilities(outputs):
            order = np.argsort(-row, kind="stable")
            scores = {self.labels[i]: float(row[i]) for i in order}
            answers.append({"label": self.labels[order[0]], "score": float(row[order[0]]),
                            "scores": scores})
        return answers

    def answered(self, records: Sequence[Record], outputs: Arrays,
                 encoded: Encoded) -> list[Record]:
        """Add the likeliest label."""
        return [{"text": record["text"], "label": answer["label"]} for record, answer in
                zip(records, self.decode(outputs, records, encoded), strict=True)]

    def decisions(self, outputs: Arrays) -> tuple[list[Any], np.ndarray]:
        """Give the label numbers, and first less second probability."""
        values = decoding.probabilities(outputs)
        second, first = np.sort(values, -1)[:, -2:].T
        return values.argmax(-1).tolist(), first - second

    def score(self, outputs: Arrays, records: Sequence[Record]) -> Scores:
        """Give accuracy, F1 averages, mean loss, scikit-learn's table and the confusion matrix."""
        from .. import metrics

        targets = self.targets(records)["logits"]
        return metrics.classification(targets, decoding.probabilities(outputs), self.labels)

    def judge(self, outputs: Arrays, records: Sequence[Record]) -> list[Judgement]:
        """Lay the likeliest label beside the right one."""
        values = decoding.probabilities(outputs)
        chosen = values.argmax(-1)
        return [Judgement(record["text"], record["label"], self.labels[best], float(row[best]),
                          self.labels[best] == record["label"])
                for record, row, best in zip(records, values, chosen, strict=True)]


def _natural(label: str) -> tuple[int, str]:
    """Sort "2" before "10": labels that are numbers keep their order as ids."""
    return (int(label), "") if label.isascii() and label.isdigit() else (1 << 62, label)
