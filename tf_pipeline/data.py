"""Encoded examples to tf.data: what the training step eats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .text import Arrays, Encoded

if TYPE_CHECKING:
    import tensorflow as tf

# Lengths that batches are padded to where each costs a compilation (TPU). Close together where
# texts are many and short.
BUCKETS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 448, 512)

Table = dict[str, Any]  # arrays or tensors, as `table_of` names them

GOLDEN = (5 ** 0.5 - 1) / 2


@dataclass(frozen=True)
class Batching:
    """How many examples make a batch, in which order, and which lengths batches may have."""

    size: int
    seed: int
    buckets: Sequence[int] = ()  # empty: any; a batch is as long as its longest text


def buckets(longest: int) -> tuple[int, ...]:
    """Give the lengths of batches where there is a compilation for each."""
    return (*(length for length in BUCKETS if length < longest), longest)


def draw(lengths: "tf.Tensor", batching: Batching,
         epoch: "tf.Tensor | int") -> tuple["tf.Tensor", "tf.Tensor"]:
    """Draw an epoch's batches: rows (steps, size), and the length each is padded to (steps,).

    `lengths` are int32, of each example. Seed and epoch alone decide, so training can go on at any
    step. Each example comes once, but for the up to size - 1 that fill no batch; those are others
    in every epoch. TensorFlow only: Python inside tf.data can hang a process at its end.
    """
    import tensorflow as tf

    seeds = tf.unstack(tf.random.split(tf.stack([batching.seed, tf.cast(epoch, tf.int32)]), 2))
    steps = tf.size(lengths) // batching.size
    order = tf.random.experimental.stateless_shuffle(tf.range(tf.size(lengths)), seeds[0])
    order = order[:steps * batching.size]
    rows = tf.gather(order, tf.argsort(tf.gather(lengths, order), stable=True))
    rows = tf.reshape(rows, (-1, batching.size))
    # Length often goes with the answer, so a run of like batches would pull the weights to and
    # fro. Steps of the golden ratio visit short and long ones evenly, however few are looked at.
    places = tf.cast(tf.range(steps), tf.float64) * GOLDEN + tf.random.stateless_uniform(
        (), seeds[1], dtype=tf.float64)
    rows = tf.gather(rows, tf.argsort(tf.argsort(places % 1.0)))
    needed = tf.reduce_max(tf.gather(lengths, rows), 1)
    if not batching.buckets:
        return rows, needed
    bounds = tf.constant(batching.buckets, tf.int32)
    return rows, tf.gather(bounds, tf.searchsorted(bounds, needed))


class Examples(Protocol):
    """Encoded examples, wherever they are, as training reads them."""

    @property
    def count(self) -> int:
        """What a training step counts: texts, or groups of them."""

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""

    def steps(self, size: int) -> int:
        """Count the batches of an epoch."""

    def batches(self, batching: Batching, start: int = 0) -> "tf.data.Dataset":
        """Endless, shuffled, full batches of like length from a step on.

        Each is (inputs, targets, weights). Inputs are int32 (size, length); targets are named as
        the outputs that they are compared with. Where words were asked for, targets come by word
        and are laid on first pieces: (size, length), -1 on all other tokens. Of groups of texts
        the inputs are (size * texts of each, length), a group's texts one after the other, and
        targets and weights stay (size, ...). The same seed gives the same batches in any process.
        """

    def sample(self) -> Encoded:
        """Give some of the texts, to see how long a step takes."""


@dataclass(frozen=True)
class InMemory:
    """Examples, their targets by output name, and their weights (records,)."""

    encoded: Encoded
    targets: Arrays
    weights: np.ndarray

    @property
    def count(self) -> int:
        """What a training step counts."""
        return self.encoded.examples

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return int(self.encoded.lengths.max())

    def steps(self, size: int) -> int:
        """Count the batches of an epoch."""
        return self.count // size

    def batches(self, batching: Batching, start: int = 0) -> "tf.data.Dataset":
        """Give batches as `Examples` says."""
        import tensorflow as tf

        table = table_of(self.encoded, self.targets, self.weights)
        # The GPU belongs to the training step; ids stay in host memory until a batch is ready.
        with tf.device("CPU"):
            table = tf.nest.map_structure(tf.constant, table)
        steps = self.steps(batching.size)
        order = tf.data.Dataset.counter(start // steps).flat_map(
            lambda epoch: drawn(table, batching, epoch)).skip(start % steps)
        return order.map(Cut(self.encoded.pad_id, self.encoded.words is not None),
                         num_parallel_calls=2, deterministic=True).prefetch(tf.data.AUTOTUNE)

    def sample(self) -> Encoded:
        """Give all texts."""
        return self.encoded


def table_of(encoded: Encoded, targets: Arrays, weights: np.ndarray) -> Table:
    """Lay examples out without padding, targets by token where words were asked for.

    `ids` and `types` (tokens,); `starts` and `lengths` (texts,) of the texts in them; `groups`
    (examples, texts of each): which texts an example is; `weights` (examples,); `targets`
    (examples, ...) or (tokens,).
    """
    words = encoded.words
    if words is not None:
        targets = {name: words.at_tokens(values, len(encoded.ids), -1)
                   for name, values in targets.items()}
        weights = weights[words.owners]
    groups = np.arange(len(encoded))[:, None] if encoded.groups is None else encoded.groups
    return {"ids": encoded.ids, "types": encoded.types, "targets": targets, "weights": weights,
            "starts": encoded.splits[:-1], "lengths": encoded.lengths.astype(np.int32),
            "groups": groups.astype(np.int32)}


def drawn(table: Table, batching: Batching, number: "tf.Tensor") -> "tf.data.Dataset":
    """Give what `Cut` takes for each batch of a table; `number` tells one order from another."""
    import tensorflow as tf

    lengths = tf.reduce_max(tf.gather(table["lengths"], table["groups"]), 1)
    order = tf.data.Dataset.from_tensor_slices(draw(lengths, batching, number))
    return order.map(lambda rows, length: (table, rows, length))


@dataclass(frozen=True)
class Cut:
    """Cuts padded batches out of a table, inside tf.data."""

    pad_id: int
    by_token: bool  # whether a target belongs to a token

    def __call__(self, table: Table, rows: "tf.Tensor", length: "tf.Tensor") -> tuple:
        """Give the batch of these examples, each text `length` long: inputs, targets, weights."""
        import tensorflow as tf

        texts = tf.reshape(tf.gather(table["groups"], rows), [-1])
        lengths = table["lengths"]
        starts = tf.gather(table["starts"], texts)
        columns = tf.range(length)[None]
        real = columns < tf.gather(lengths, texts)[:, None]
        index = tf.where(real, starts[:, None] + tf.cast(columns, tf.int64), 0)
        inputs = {"input_ids": tf.where(real, tf.gather(table["ids"], index), self.pad_id),
                  "attention_mask": tf.cast(real, tf.int32),
                  "token_type_ids": tf.where(real, tf.gather(table["types"], index), 0)}
        targets = {name: tf.where(real, tf.gather(values, index), -1) if self.by_token
                   else tf.gather(values, rows) for name, values in table["targets"].items()}
        return inputs, targets, tf.gather(table["weights"], rows)
