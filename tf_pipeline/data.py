"""Encoded examples to tf.data: what the training step eats."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .text import Arrays, Encoded

if TYPE_CHECKING:
    import tensorflow as tf

# Lengths that batches are padded to. Close together where texts are many and short; a wrong
# guess costs padding, and each length costs a compilation where shapes must be static (TPU).
BUCKETS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 448, 512)


def training_batches(encoded: Encoded, targets: Arrays, weights: np.ndarray, batch: int,
                     seed: int) -> "tf.data.Dataset":
    """Endless, shuffled, full batches of like length: (inputs, targets, weights).

    Inputs are int32 (batch, bucket); targets are named as the outputs that they are compared
    with. Where words were asked for, targets come by word and are laid on first pieces:
    (batch, bucket), -1 on all other tokens. Of groups of texts the inputs are (batch * texts of
    each, bucket), a group's texts one after the other, and targets and weights stay (batch, ...).
    The same seed gives the same batches in any process.
    """
    import tensorflow as tf

    words = encoded.words
    if words is not None:
        targets = {name: words.at_tokens(values, len(encoded.ids), -1)
                   for name, values in targets.items()}
        weights = weights[words.owners]

    # The GPU belongs to the training step; ids stay in host memory until a batch is ready.
    with tf.device("CPU"):
        read = _reader(encoded)
        splits = tf.constant(encoded.splits)
        goals = {name: tf.constant(values) for name, values in targets.items()}
        shares = tf.constant(weights)

    def example(row: "tf.Tensor") -> tuple:
        part = row if words is None else slice(splits[row], splits[row + 1])
        return read(row), {name: values[part] for name, values in goals.items()}, shares[row]

    longest = int(encoded.lengths.max())
    bounds = [b for b in BUCKETS if b < longest]
    rows = tf.data.Dataset.range(encoded.examples)
    # Shuffle before repeat: each epoch sees every example once before any comes again. Bucket
    # after repeat: what does not fill a batch waits for the next epoch instead of being lost.
    rows = rows.shuffle(encoded.examples, seed=seed, reshuffle_each_iteration=True).repeat()
    examples = rows.map(example, num_parallel_calls=2, deterministic=True)
    padding = {"input_ids": encoded.pad_id, "attention_mask": 0, "token_type_ids": 0}
    goal_padding = {name: np.array(-1, values.dtype) for name, values in targets.items()}
    batches = examples.bucket_by_sequence_length(
        lambda inputs, *_: tf.shape(inputs["input_ids"])[-1],
        # +1: a boundary is exclusive, and each batch is padded to its bucket's boundary - 1.
        bucket_boundaries=[b + 1 for b in [*bounds, longest]],
        bucket_batch_sizes=[batch] * (len(bounds) + 2), pad_to_bucket_boundary=True,
        padding_values=(padding, goal_padding, np.float32(0)), drop_remainder=True)
    if encoded.groups is not None:
        batches = batches.map(_flat, num_parallel_calls=2, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def _reader(encoded: Encoded) -> "Callable[[tf.Tensor], dict[str, tf.Tensor]]":
    """Give what makes an example's inputs: (length,), or (texts, length of the longest)."""
    import tensorflow as tf

    ids, types = tf.constant(encoded.ids), tf.constant(encoded.types)
    splits, groups = tf.constant(encoded.splits), encoded.groups
    if groups is None:
        def text(row: "tf.Tensor") -> "dict[str, tf.Tensor]":
            start, stop = splits[row], splits[row + 1]
            return {"input_ids": ids[start:stop],
                    "attention_mask": tf.ones([stop - start], tf.int32),
                    "token_type_ids": types[start:stop]}

        return text
    members, shape = tf.constant(groups), (groups.shape[1], None)
    all_ids, all_types = (tf.RaggedTensor.from_row_splits(values, splits, validate=False)
                          for values in (ids, types))

    def group(row: "tf.Tensor") -> "dict[str, tf.Tensor]":
        own = tf.gather(all_ids, members[row])
        inputs = {"input_ids": own.to_tensor(encoded.pad_id),
                  "attention_mask": tf.sequence_mask(own.row_lengths(), dtype=tf.int32),
                  "token_type_ids": tf.gather(all_types, members[row]).to_tensor()}
        return {name: tf.ensure_shape(values, shape) for name, values in inputs.items()}

    return group


def _flat(inputs: "dict[str, tf.Tensor]", targets: "dict[str, tf.Tensor]",
          weights: "tf.Tensor") -> tuple:
    """Lay groups out text by text: (batch, texts, length) -> (batch * texts, length)."""
    import tensorflow as tf

    flat = {name: tf.reshape(values, (-1, tf.shape(values)[-1]))
            for name, values in inputs.items()}
    return flat, targets, weights
