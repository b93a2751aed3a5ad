"""Encoded examples to tf.data: what the training step eats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .text import Arrays, Encoded

if TYPE_CHECKING:
    import tensorflow as tf

# Lengths that batches are padded to where each costs a compilation (TPU). Close together where
# texts are many and short.
BUCKETS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 448, 512)

GOLDEN = (5 ** 0.5 - 1) / 2


@dataclass(frozen=True)
class Batching:
    """How many examples make a batch, in which order, and which lengths batches may have."""

    size: int
    seed: int
    buckets: Sequence[int] = ()  # empty: any; a batch is as long as its longest text


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
    longest = tf.reduce_max(lengths)
    bounds = tf.constant(batching.buckets, tf.int32)
    bounds = tf.concat([bounds[bounds < longest], [longest]], 0)
    return rows, tf.gather(bounds, tf.searchsorted(bounds, needed))


def training_batches(encoded: Encoded, targets: Arrays, weights: np.ndarray, batching: Batching,
                     start: int = 0) -> "tf.data.Dataset":
    """Endless, shuffled, full batches of like length from a step on: (inputs, targets, weights).

    Inputs are int32 (size, length); targets are named as the outputs that they are compared
    with. Where words were asked for, targets come by word and are laid on first pieces:
    (size, length), -1 on all other tokens. Of groups of texts the inputs are (size * texts of
    each, length), a group's texts one after the other, and targets and weights stay (size, ...).
    The same seed gives the same batches in any process.
    """
    import tensorflow as tf

    steps = encoded.examples // batching.size
    words = encoded.words
    if words is not None:
        targets = {name: words.at_tokens(values, len(encoded.ids), -1)
                   for name, values in targets.items()}
        weights = weights[words.owners]

    # The GPU belongs to the training step; ids stay in host memory until a batch is ready.
    with tf.device("CPU"):
        texts = _Texts(encoded)
        lengths = tf.constant(encoded.example_lengths)
        goals = {name: tf.constant(values) for name, values in targets.items()}
        shares = tf.constant(weights)

    def batch(rows: "tf.Tensor", length: "tf.Tensor") -> tuple:
        index, real = texts.places(rows, length)
        found = {name: tf.gather(values, rows) if words is None else
                 tf.where(real, tf.gather(values, index), -1) for name, values in goals.items()}
        return texts.inputs(index, real), found, tf.gather(shares, rows)

    def epoch(number: "tf.Tensor") -> "tf.data.Dataset":
        return tf.data.Dataset.from_tensor_slices(draw(lengths, batching, number))

    order = tf.data.Dataset.counter(start // steps).flat_map(epoch).skip(start % steps)
    return order.map(batch, num_parallel_calls=2, deterministic=True).prefetch(tf.data.AUTOTUNE)


class _Texts:
    """Token ids of all texts as tensors, and rectangles cut from them."""

    def __init__(self, encoded: Encoded):
        import tensorflow as tf

        self.ids, self.types = tf.constant(encoded.ids), tf.constant(encoded.types)
        self.starts, self.lengths = tf.constant(encoded.splits[:-1]), tf.constant(encoded.lengths)
        self.groups = None if encoded.groups is None else tf.constant(encoded.groups)
        self.pad_id = encoded.pad_id

    def places(self, rows: "tf.Tensor", length: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        """Give where each token of the rectangle stands, and which ones are real: (texts, length).

        The texts are the rows, or the members of the groups that the rows are.
        """
        import tensorflow as tf

        if self.groups is not None:
            rows = tf.reshape(tf.gather(self.groups, rows), [-1])
        columns = tf.range(length, dtype=tf.int64)[None]
        real = columns < tf.gather(self.lengths, rows)[:, None]
        return tf.where(real, tf.gather(self.starts, rows)[:, None] + columns, 0), real

    def inputs(self, index: "tf.Tensor", real: "tf.Tensor") -> "dict[str, tf.Tensor]":
        """Give the three standard inputs."""
        import tensorflow as tf

        return {"input_ids": tf.where(real, tf.gather(self.ids, index), self.pad_id),
                "attention_mask": tf.cast(real, tf.int32),
                "token_type_ids": tf.where(real, tf.gather(self.types, index), 0)}
