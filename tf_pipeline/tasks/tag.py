"""One label a word: names, places, products. Records: `tokens` and `tags`, or a raw `text`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import decoding, spans, task
from ..errors import UserError
from ..task import Answer, Judgement, Record, Scores, refuse_unknown, text_of
from ..text import Arrays, Encoded, TextEncoder

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)
_NO_TAG = -1  # tokens that are no word's first piece


@dataclass(frozen=True)
class Options:
    """This task has no settings of its own."""

    temperature: float = 1.0  # chosen after training and folded into the last layer


class Task(task.Task):
    """Token classification with transformers' head: sequence output, dropout, dense.

    Loss and answers look at each word's first piece only (Devlin et al. 2019, section 5.3).
    """

    FIELDS = ("tokens", "tags")
    METRIC = "span_f1"
    ARCHITECTURE = "BertForTokenClassification"
    MARKS_CASE = True
    OUTPUTS = {"onnx": ("logits",), "tflite": ("logits",), "tokens": ("logits",),
               "text": ("logits",)}

    def __init__(self, labels: Sequence[str], options: Options):
        super().__init__(labels, options)
        self._index = {label: i for i, label in enumerate(self.labels)}
        if spans.OUTSIDE not in self._index:
            raise UserError(f"The labels {', '.join(self.labels[:10])} hold no "
                            f"{spans.OUTSIDE!r}, the tag of words outside every span.")

    @classmethod
    def learn(cls, records: Sequence[Record], options: Options) -> "Task":
        """Take the types from the training records; each gets B- and I-."""
        read = [spans.to_bio(record["tags"]) for record in records]
        _report_repairs(read)
        kinds = {tag.partition("-")[2] for tags, _ in read for tag in tags}
        kinds.discard("")
        if not kinds:
            raise UserError(f"None of the {len(records)} training sentences has a tag other than "
                            f"{spans.OUTSIDE!r}. Check the tag column; tags look like B-PER.")
        return cls([spans.OUTSIDE, *(f"{p}-{k}" for k in sorted(kinds) for p in "BI")], options)

    @classmethod
    def imported(cls, labels: Sequence[str]) -> "Task":
        """Take the labels as they are."""
        return cls(labels, Options())

    def encode(self, records: Sequence[Record], encoder: TextEncoder,
               max_len: int | None = None) -> Encoded:
        """Encode the words, or the text where there are none."""
        return encoder.encode_words([r["tokens"] if "tokens" in r else r["text"]
                                     for r in records], max_len)

    def targets(self, records: Sequence[Record]) -> Arrays:
        """Give label numbers by word: int32 (records, most words), -1 after a sentence's end."""
        rows = [spans.to_bio(record["tags"])[0] for record in records]
        refuse_unknown((tag for row in rows for tag in row), self.labels, "tag")
        uneven = next((r for r in records if len(r["tokens"]) != len(r["tags"])), None)
        if uneven is not None:
            raise UserError(f"{len(uneven['tokens'])} tokens and {len(uneven['tags'])} tags in "
                            f"the sentence {' '.join(uneven['tokens'][:8])!r}; each token needs "
                            "one tag.")
        numbers = np.full((len(rows), max(map(len, rows), default=0)), _NO_TAG, np.int32)
        for place, row in enumerate(rows):
            numbers[place, :len(row)] = [self._index[tag] for tag in row]
        return {"logits": numbers}

    def build(self, backbone: "keras.Model") -> "keras.Model":
        """Give logits (batch, length, labels)."""
        from .. import heads

        return heads.for_tokens(backbone, len(self.labels), "tag")

    def compile_args(self) -> dict[str, Any]:
        """Use cross-entropy over first pieces, each word of a batch weighing the same."""
        from .. import heads

        return {"loss": {"logits": heads.loss_of_known}}

    def finish(self, model: "keras.Model", outputs: Arrays,
               records: Sequence[Record]) -> "Task":
        """Fold the temperature of the words' probabilities into the last layer."""
        from .. import calibration, heads

        logits, numbers = self._words(outputs, records)
        found = calibration.temperature(logits, numbers)
        heads.rescale(model, 1 / found)
        return Task(self.labels, replace(self.options, temperature=found))

    def decode(self, outputs: Arrays, records: Sequence[Record],
               encoded: Encoded) -> list[Answer]:
        """Give each text's spans: label, characters from `start` to `end`, their text and score.

        The score is the mean probability of the span's words under their tags.
        """
        assert encoded.words is not None
        values, answers = decoding.softmax(outputs["logits"]), []
        for i, (record, tags) in enumerate(zip(records, self._tags(outputs), strict=True)):
            text = text_of(record)
            offsets = encoded.words.offsets[encoded.words.splits[i]:encoded.words.splits[i + 1]]
            found = []
            for first, last, kind in spans.read([self.labels[t] for t in tags[:len(offsets)]]):
                start, end = int(offsets[first, 0]), int(offsets[last - 1, 1])
                score = values[i, np.arange(first, last), tags[first:last]].mean()
                found.append({"label": kind, "start": start, "end": end, "text": text[start:end],
                              "score": float(score)})
            answers.append({"spans": found})
        return answers

    def answered(self, records: Sequence[Record], outputs: Arrays,
                 encoded: Encoded) -> list[Record]:
        """Split texts into the tokenizer's words and add their tags."""
        assert encoded.words is not None
        words, rows = encoded.words, []
        for i, (record, tags) in enumerate(zip(records, self._tags(outputs), strict=True)):
            offsets = words.offsets[words.splits[i]:words.splits[i + 1]]
            tokens = record.get("tokens") or [record["text"][a:b] for a, b in offsets]
            rows.append({"tokens": tokens,
                         "tags": [self.labels[t] for t in tags[:len(tokens)]]})
        return rows

    def decisions(self, outputs: Arrays) -> tuple[list[set[Any]], np.ndarray]:
        """Give each text's spans, and the smallest margin between two tags of any word."""
        decided = [set(spans.read([self.labels[t] for t in tags]))
                   for tags in self._tags(outputs)]
        second, first = np.sort(decoding.softmax(outputs["logits"]), -1)[..., -2:].transpose(
            2, 0, 1)
        padding = ~outputs["logits"].any(-1)
        return decided, np.where(padding, 1.0, first - second).min(-1, initial=1.0)

    def score(self, outputs: Arrays, records: Sequence[Record]) -> Scores:
        """Give span F1 by type, the token table and the confusion of tags."""
        from .. import metrics

        known = [spans.to_bio(record["tags"])[0] for record in records]
        predicted = [[self.labels[t] for t in tags[:len(row)]]
                     for tags, row in zip(self._tags(outputs), known, strict=True)]
        return {**metrics.tagging(known, predicted, self.labels),
                "loss": self._loss(outputs, records)}

    def judge(self, outputs: Arrays, records: Sequence[Record]) -> list[Judgement]:
        """Lay the spans found beside the right ones; the score is that of the least sure word."""
        values = decoding.softmax(outputs["logits"])
        judged = []
        for i, (record, tags) in enumerate(zip(records, self._tags(outputs), strict=True)):
            tokens = record["tokens"]
            found = spans.read([self.labels[t] for t in tags[:len(tokens)]])
            right = spans.read(record["tags"])
            sure = values[i, np.arange(len(tokens)), tags[:len(tokens)]].min(initial=1.0)
            judged.append(Judgement(text_of(record), _in_words(right, tokens),
                                    _in_words(found, tokens), float(sure), found == right))
        return judged

    def _loss(self, outputs: Arrays, records: Sequence[Record]) -> float:
        """Give the mean cross-entropy of all words that have a piece."""
        logits, numbers = self._words(outputs, records)
        chosen = decoding.log_softmax(logits.astype(np.float64))[np.arange(len(numbers)), numbers]
        return float(-chosen.mean())

    def _words(self, outputs: Arrays, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Give logits (words, labels) and label numbers (words,) of all words with a piece."""
        numbers = self.targets(records)["logits"]
        logits = outputs["logits"][:, :numbers.shape[1]]
        seen = (numbers >= 0) & logits.any(-1)
        return logits[seen], numbers[seen]

    def _tags(self, outputs: Arrays) -> list[np.ndarray]:
        """Decode every text; padding and words without a piece are outside."""
        outside = self._index[spans.OUTSIDE]
        rows = []
        for logits in outputs["logits"]:
            tags = np.full(len(logits), outside, np.int64)
            if (real := logits.any(-1)).any():
                tags[real] = spans.best_tags(decoding.log_softmax(logits[real]), self.labels)
            rows.append(tags)
        return rows


def _report_repairs(read: Sequence[tuple[list[str], int]]) -> None:
    """Say how many spans open with I-: in IOB1 nearly all, elsewhere faults of the data."""
    repaired = sum(count for _, count in read)
    found = sum(tag.startswith("B-") for tags, _ in read for tag in tags)
    if repaired > found / 2:
        log.info("%d of %d spans open with I-, as IOB1 writes them; read as B-.", repaired, found)
    elif repaired:
        log.warning("%d of %d spans open with I- and no B- before; read as B-. Correct the tags "
                    "if that is not meant.", repaired, found)


def _in_words(found: Sequence[spans.Span], tokens: Sequence[str]) -> str:
    return "; ".join(f"{kind} {' '.join(tokens[first:last])}" for first, last, kind in found) or "-"
