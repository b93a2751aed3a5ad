"""Raw texts to windows, and windows to what a masked language model learns from and is asked.

Training sees new masks in every batch (`masked_batches`, inside tf.data); validation, test and
users' questions are texts in which [MASK] is written out, so that scores compare.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .errors import UserError
from .text import CASE_MARKS, Arrays, TextEncoder
from .words import Words

if TYPE_CHECKING:
    import tensorflow as tf
    from tokenizers import Encoding

BEST = 5  # pieces that are kept of an answer
TOTAL, TARGET, FIRST = 0, 1, 2  # columns of what `Masks.keep` leaves of the logits
_CHUNK = 1000  # texts that are tokenized at a time
_AHEAD = 4  # positions that a batch has more than pieces to mask: the last word may need them


@dataclass(frozen=True)
class Masks(Words):
    """The [MASK]s of texts as their words: outputs come for these alone, and narrowed.

    The logits of one [MASK] are a number for each piece of the vocabulary; those of a test set
    would fill the memory.
    """

    encoder: TextEncoder
    targets: np.ndarray  # int64 (masks,): id of the piece that belongs there, -1 if unknown

    tokens_a_batch: ClassVar[int] = 512  # their logits are 63 MB with BERT's vocabulary

    def keep(self, name: str, values: np.ndarray, numbers: np.ndarray) -> Arrays:
        """Keep of (masks, vocabulary) what scores and answers need.

        `name`: logarithm of the sum of all exponentials, the target's logit, and the best pieces'
        from high to low. `pieces`: the ids of the target and of those best.
        """
        targets, rows = self.targets[numbers], np.arange(len(numbers))
        top = np.argpartition(-values, BEST - 1, -1)[:, :BEST]
        top = np.take_along_axis(top, np.argsort(-values[rows[:, None], top], -1), -1)
        best = values[rows[:, None], top]
        exponentials = np.exp(values.astype(np.float64) - best[:, :1])
        total = best[:, :1] + np.log(exponentials.sum(-1, keepdims=True))
        known = np.where(targets < 0, 0, values[rows, targets])[:, None]
        return {name: np.concatenate([total, known, best], -1).astype(np.float32),
                "pieces": np.concatenate([targets[:, None], top], -1).astype(np.int32)}


def windows(texts: Sequence[str], encoder: TextEncoder, max_len: int, pack: bool) -> list[str]:
    """Lay texts out in windows of at most `max_len` tokens; nothing of them is left out.

    A longer text goes on in further windows. With `pack` short ones share a window, a separator
    between two of them (FULL-SENTENCES in Liu et al. 2019). [MASK] in a text becomes a blank.
    """
    room = max_len - 2  # [CLS] and [SEP]
    glue = f" {encoder.separator} "
    done: list[str] = []
    waiting: list[str] = []
    used = 0
    for text, length in _parts(texts, encoder, room):
        if waiting and (not pack or used + 1 + length > room):
            done.append(glue.join(waiting))
            waiting, used = [], 0
        used += length + bool(waiting)
        waiting.append(text)
    return [*done, glue.join(waiting)] if waiting else done


def _parts(texts: Sequence[str], encoder: TextEncoder, room: int) -> Iterator[tuple[str, int]]:
    """Give each text, or its parts where it is longer than `room` pieces, and their pieces."""
    mask = encoder.mask_token
    for begin in range(0, len(texts), _CHUNK):
        clean = [text.replace(mask, " ") for text in texts[begin:begin + _CHUNK]]
        for text, encoding in zip(clean, encoder.whole(clean), strict=True):
            start = 0
            while len(encoding) - start > room:
                end = _cut(encoding, start, start + room)
                part = slice(encoding.offsets[start][0], encoding.offsets[end][0])
                yield text[part].strip(), end - start
                start = end
            if len(encoding):
                yield text[encoding.offsets[start][0]:].strip(), len(encoding) - start


def _cut(encoding: "Encoding", start: int, end: int) -> int:
    """Give the last place up to `end` at which a word begins, or `end` inside a very long one."""
    words = encoding.word_ids
    return next((i for i in range(end, start, -1) if words[i] != words[i - 1]), end)


def cloze(window: str, encoder: TextEncoder, share: float) -> tuple[str, list[str]]:
    """Write [MASK] for each piece of some words: the text, and the pieces that belong there.

    The text itself seeds the choice. Words, not pieces: [MASK] in front of the rest of a word
    would be read as a word of its own.
    """
    (encoding,) = encoder.whole([window])
    hidden = {*encoder.special_ids, *CASE_MARKS}
    words = []
    for _, places in groupby(range(len(encoding)), lambda i: encoding.word_ids[i]):
        pieces = list(places)
        start, end = encoding.offsets[pieces[0]][0], encoding.offsets[pieces[-1]][1]
        names = [encoding.tokens[i] for i in pieces]
        if start < end and not hidden & set(names):
            words.append((start, end, names))
    left = max(1, round(share * sum(len(names) for *_, names in words)))
    chosen: list[tuple[int, int, list[str]]] = []
    for word in random.Random(window).sample(words, len(words)):
        if len(word[2]) <= left or not chosen:
            chosen.append(word)
            left -= len(word[2])
        if left <= 0:
            break
    chosen.sort()
    for start, end, names in reversed(chosen):
        window = f"{window[:start]}{encoder.mask_token * len(names)}{window[end:]}"
    return window, [name for *_, names in chosen for name in names]


def drop_words(batches: "tf.data.Dataset", encoder: TextEncoder, share: float, seed: int,
               start: int = 0) -> "tf.data.Dataset":
    """Put [MASK] in the place of a share of the pieces, others in every batch; targets stay.

    What is to be told of a word is then learned from its neighbours too (word dropout: Dai and Le
    2015). `start` is the step of the first batch.
    """
    import tensorflow as tf

    hidden = {*encoder.special_ids, *CASE_MARKS}
    words = np.array([piece not in hidden for piece in encoder.vocabulary])
    mask_id = encoder.number(encoder.mask_token)

    def drop(step: "tf.Tensor", batch: tuple) -> tuple:
        inputs, targets, weights = batch
        ids = inputs["input_ids"]
        draws = tf.random.stateless_uniform(tf.shape(ids),
                                            tf.stack([tf.cast(seed, tf.int64), step]))
        dropped = tf.gather(tf.constant(words), ids) & (draws < share)
        return {**inputs, "input_ids": tf.where(dropped, mask_id, ids)}, targets, weights

    return batches.enumerate(start).map(drop, num_parallel_calls=2,
                                        deterministic=True).prefetch(tf.data.AUTOTUNE)


@dataclass(frozen=True)
class Masking:
    """How a batch's pieces are chosen and exchanged (Devlin et al. 2019, section 3.1)."""

    encoder: TextEncoder
    share: float
    whole_words: bool
    seed: int

    def __post_init__(self) -> None:
        if self.whole_words and not self.encoder.is_wordpiece:
            raise UserError("--whole-words is True and the checkpoint's tokenizer is no WordPiece: "
                            "its pieces do not tell where a word goes on. Pass --no-whole-words.")

    def apply(self, batches: "tf.data.Dataset", start: int = 0) -> "tf.data.Dataset":
        """Mask batches of (inputs, targets, weights), each in its own way; same seed, same masks.

        `start` is the step of the first one.
        Inputs get `positions` (batch, masks), with a number of masks that follows from the batch's
        length; targets become the pieces that stood there, -1 where a position is not used.
        """
        import tensorflow as tf

        return batches.enumerate(start).map(self._masked, num_parallel_calls=2,
                                       deterministic=True).prefetch(tf.data.AUTOTUNE)

    def _masked(self, step: "tf.Tensor", batch: tuple) -> tuple:
        import tensorflow as tf

        inputs, _, weights = batch
        ids, shape = inputs["input_ids"], tf.shape(inputs["input_ids"])
        # Three streams of numbers for each batch, from its place in the training alone.
        seeds = tf.unstack(tf.random.split(tf.stack([tf.cast(self.seed, tf.int64), step]), 3))
        positions, chosen = self._choose(ids, inputs["attention_mask"], seeds[0])
        old = tf.gather(ids, positions, batch_dims=1)
        others = tf.constant(self._others())
        random_pieces = tf.gather(others, tf.random.stateless_uniform(
            tf.shape(positions), seeds[1], maxval=len(others), dtype=tf.int32))
        lot = tf.random.stateless_uniform(tf.shape(positions), seeds[2])
        mask_id = self.encoder.number(self.encoder.mask_token)
        new = tf.where(lot < 0.8, mask_id, tf.where(lot < 0.9, random_pieces, old))
        rows = tf.repeat(tf.range(shape[0])[:, None], tf.shape(positions)[1], 1)
        places = tf.boolean_mask(tf.stack([rows, positions], -1), chosen)
        masked = tf.tensor_scatter_nd_update(ids, places, tf.boolean_mask(new, chosen))
        return ({**inputs, "input_ids": masked, "positions": tf.where(chosen, positions, 0)},
                {"logits": tf.where(chosen, old, -1)}, weights)

    def _choose(self, ids: "tf.Tensor", mask: "tf.Tensor",
                seed: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        """Draw each row's share of pieces: positions and whether they are used (batch, masks)."""
        import tensorflow as tf

        length = tf.shape(ids)[1]
        maskable = np.isin(np.arange(len(self.encoder.vocabulary)), self._others())
        candidate = tf.gather(tf.constant(maskable), ids) & (mask == 1)
        draws = tf.random.stateless_uniform(tf.shape(ids), seed)
        size, inside = tf.ones_like(ids), tf.zeros_like(ids)
        most = self._most(length)
        if self.whole_words:
            goes_on = np.array([p.startswith("##") for p in self.encoder.vocabulary])
            word = tf.cumsum(tf.cast(~tf.gather(tf.constant(goes_on), ids), tf.int32), 1)
            same = tf.cast(word[:, :, None] == word[:, None, :], tf.int32)  # (batch, L, L)
            size = tf.reduce_sum(same, -1)
            inside = tf.reduce_sum(tf.linalg.band_part(same, -1, 0), -1) - 1
            # All pieces of a word share the draw of its first one.
            draws = tf.gather(draws, tf.range(length)[None] - inside, batch_dims=1)
        scores, positions = tf.math.top_k(tf.where(candidate, draws, -1.0), most)
        size, inside = (tf.gather(v, positions, batch_dims=1) for v in (size, inside))
        # Equal scores keep their order, so a word's pieces stand one after the other.
        start = tf.range(most)[None] - inside
        count = tf.cast(tf.reduce_sum(tf.cast(candidate, tf.int32), 1, keepdims=True), tf.float32)
        wanted = tf.maximum(tf.round(self.share * count), 1.0)
        # A word at the edge is in if most of it fits; one word at least is.
        middle = tf.cast(start, tf.float32) + tf.cast(size, tf.float32) / 2
        fits = (start + size <= most) & ((middle <= wanted) | (start == 0))
        return positions, (scores >= 0) & fits

    def _most(self, length: "tf.Tensor") -> "tf.Tensor":
        """Give the positions that a batch of this length has: static where the length is."""
        import tensorflow as tf

        share = tf.cast(tf.math.ceil(self.share * tf.cast(length, tf.float32)), tf.int32)
        return tf.minimum(share + _AHEAD * self.whole_words, length)

    def _others(self) -> np.ndarray:
        """Give the ids of pieces that stand for text: these are masked, and put in by chance."""
        specials = set(self.encoder.special_ids.values())
        return np.array([i for i in range(len(self.encoder.vocabulary)) if i not in specials],
                        np.int32)
