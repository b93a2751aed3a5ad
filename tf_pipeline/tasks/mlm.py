"""Masked language model: pretraining, and adapting a checkpoint to a domain. Records: `text`.

The run is then the backbone of any other task: `--backbone runs/domain`.
"""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import masking, task
from ..config import option
from ..errors import UserError
from ..masking import FIRST, TARGET, TOTAL, Masking, Masks
from ..task import Answer, Record, Scores
from ..text import Arrays, Encoded, TextEncoder

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Settings of this task alone."""

    mask_share: float = option(0.15, help="share of the pieces that are to be guessed (Devlin et "
                               "al. 2019)")
    whole_words: bool = option(False, help="hide words whole; of Chinese text, where each "
                               "character is a word, characters")
    pack: bool = option(True, help="put short texts into one window of --max-len; texts longer "
                        "than that go on in further windows either way")

    def __post_init__(self) -> None:
        if not 0 < self.mask_share <= 0.5:
            raise UserError(f"--mask-share is {self.mask_share}; allowed: above 0, up to 0.5.")


class Task(task.Task):
    """Masked language modelling with transformers' head, tied to the word embeddings."""

    FIELDS = ("text",)
    METRIC = "log_likelihood"
    ARCHITECTURE = "BertForMaskedLM"
    KEPT_ROWS = 500  # each asks for `length` times `vocabulary` logits of every exported file
    MOST_LOST = math.log(1.01)  # perplexity at most 1 % higher
    LEAST_EQUAL = 0.8  # of 30,522 pieces the best two are often as good: int8 keeps about 95 %
    # No signature for text: an output for each token and piece is no answer for a client.
    OUTPUTS = {"onnx": ("logits",), "tflite": ("logits",), "tokens": ("logits",)}

    @classmethod
    def learn(cls, records: Sequence[Record], options: Options) -> "Task":
        """Take the texts as they are: there are no labels."""
        return cls((), options)

    def examples(self, records: Sequence[Record], encoder: TextEncoder) -> list[Record]:
        """Lay texts out in windows."""
        return [{"text": text} for text in self._windows(records, encoder, encoder.max_len)]

    def questions(self, records: Sequence[Record], encoder: TextEncoder,
                  max_len: int | None = None) -> list[Record]:
        """Lay texts out in windows with [MASK]s, always the same; what was so before stays.

        `masked` holds the pieces that belong there.
        """
        if records and all("masked" in record for record in records):
            return list(records)
        rows = [masking.cloze(text, encoder, self.options.mask_share)
                for text in self._windows(records, encoder, max_len or encoder.max_len)]
        asked = [{"text": text, "masked": pieces} for text, pieces in rows if pieces]
        if not asked:
            raise UserError(f"{len(records)} texts hold no known piece to hide. Give more text, "
                            "in a language that the checkpoint's vocabulary knows.")
        return asked

    def _windows(self, records: Sequence[Record], encoder: TextEncoder,
                 max_len: int) -> list[str]:
        texts = [record["text"] for record in records]
        found = masking.windows(texts, encoder, max_len, self.options.pack)
        log.info("%d texts in %d windows of at most %d tokens%s.", len(texts), len(found), max_len,
                 f"; {empty} texts are blank" if (empty := sum(not t.strip() for t in texts))
                 else "")
        return found

    def encode(self, records: Sequence[Record], encoder: TextEncoder,
               max_len: int | None = None) -> Encoded:
        """Encode the texts; their [MASK]s are the words that outputs come for."""
        texts, mask = [record["text"] for record in records], encoder.mask_token
        encoded = encoder.encode(texts, max_len=max_len)
        places = np.flatnonzero(encoded.ids == encoder.number(mask))
        owners = np.searchsorted(encoded.splits, places, side="right") - 1
        counts = np.bincount(owners, minlength=len(texts))
        offsets, targets = [], []
        for record, count in zip(records, counts, strict=True):
            offsets += [m.span() for m in re.finditer(re.escape(mask), record["text"])][:count]
            known = [encoder.number(piece) for piece in record.get("masked", ())[:count]]
            targets += known + [-1] * (count - len(known))
        words = Masks(places, np.array(offsets, np.int64).reshape(-1, 2),
                      np.concatenate([[0], np.cumsum(counts)]), np.arange(len(texts)), encoder,
                      np.array(targets, np.int64))
        return Encoded(encoded.ids, encoded.types, encoded.splits, encoded.cut, encoded.pad_id,
                       words)

    def targets(self, records: Sequence[Record]) -> Arrays:
        """Give none: `mask` makes them, new ones for each batch."""
        return {"logits": np.zeros((len(records), 0), np.int32)}

    def mask(self, batches: "tf.data.Dataset", encoder: TextEncoder, seed: int,
             start: int = 0) -> "tf.data.Dataset":
        """Hide pieces of training batches, others in every batch."""
        return Masking(encoder, self.options.mask_share, self.options.whole_words,
                       seed).apply(batches, start)

    def build(self, backbone: "keras.Model") -> "keras.Model":
        """Give logits (batch, length, vocabulary)."""
        from .. import heads

        return heads.for_vocabulary(backbone, "mlm")

    def restore(self, model: "keras.Model", weights: dict[str, np.ndarray]) -> None:
        """Start from the checkpoint's own head, if it has one."""
        from .. import heads

        if not heads.set_vocabulary_weights(model, weights) and weights:
            log.warning("The checkpoint's %d weights hold no head for masked language modelling: "
                        "it starts from random ones, and takes more steps to learn.", len(weights))

    def head_weights(self, model: "keras.Model") -> dict[str, np.ndarray]:
        """Give the head for a further training."""
        from .. import heads

        return heads.get_vocabulary_weights(model)

    def trainer(self, model: "keras.Model") -> "keras.Model":
        """Compute logits at the hidden pieces alone: a seventh of all."""
        from .. import heads

        return heads.at_positions(model)

    def compile_args(self) -> dict[str, Any]:
        """Use cross-entropy over hidden pieces, each of a batch weighing the same."""
        from .. import heads

        return {"loss": {"logits": heads.loss_of_known}}

    def decode(self, outputs: Arrays, records: Sequence[Record],
               encoded: Encoded) -> list[Answer]:
        """Give for each [MASK] its characters, the best piece as `token`, its probability, others.

        A text without [MASK] has an empty list.
        """
        words = encoded.words
        assert isinstance(words, Masks)
        answers = []
        for i, count in enumerate(words.counts):
            masks = []
            for place in range(count):
                row = outputs["logits"][i, place].astype(np.float64)
                chances = np.exp(row[FIRST:] - row[TOTAL]).tolist()
                names = [words.encoder.piece(int(n)) for n in outputs["pieces"][i, place, 1:]]
                start, end = words.offsets[words.splits[i] + place].tolist()
                masks.append({"token": names[0], "score": chances[0], "start": start, "end": end,
                              "scores": dict(zip(names, chances, strict=True))})
            answers.append({"masks": masks})
        return answers

    def decisions(self, outputs: Arrays) -> tuple[list[set[Any]], np.ndarray]:
        """Give each text's best pieces by place, and the smallest lead of one over the second."""
        logits, real = outputs["logits"].astype(np.float64), _real(outputs)
        decided = [{(int(place), int(row[place, 1])) for place in np.flatnonzero(asked)}
                   for row, asked in zip(outputs["pieces"], real, strict=True)]
        first, second = np.exp(logits[..., FIRST:FIRST + 2] - logits[..., :1]).transpose(2, 0, 1)
        return decided, np.where(real, first - second, 1.0).min(-1, initial=1.0)

    def score(self, outputs: Arrays, records: Sequence[Record]) -> Scores:
        """Give perplexity, accuracy and loss over all [MASK]s of whole texts together.

        `log_likelihood` is the mean logarithm of the probability that the right piece gets, the
        loss with its sign changed: .01 less is one percent more perplexity.
        """
        real = _real(outputs)
        logits, pieces = outputs["logits"][real].astype(np.float64), outputs["pieces"][real]
        loss = float((logits[:, TOTAL] - logits[:, TARGET]).mean())
        return {"examples": len(records), "masks": len(logits), "log_likelihood": -loss,
                "perplexity": math.exp(min(loss, 700.0)),
                "masked_accuracy": float((pieces[:, 0] == pieces[:, 1]).mean()), "loss": loss}


def _real(outputs: Arrays) -> np.ndarray:
    """Tell masks from what fills the rows up to the text with the most: (texts, most masks)."""
    return np.any(outputs["logits"], -1)
