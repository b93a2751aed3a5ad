"""Encoded examples to tf.data: what the training step eats."""

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
    (batch, bucket), -1 on all other tokens. The same seed gives the same batches in any process.
    """
    import tensorflow as tf

    words = encoded.words
    if words is not None:
        targets = {name: words.at_tokens(values, len(encoded.ids), -1)
                   for name, values in targets.items()}
        weights = weights[words.owners]

    # The GPU belongs to the training step; ids stay in host memory until a batch is ready.
    with tf.device("CPU"):
        ids, types = tf.constant(encoded.ids), tf.constant(encoded.types)
        splits = tf.constant(encoded.splits)
        goals = {name: tf.constant(values) for name, values in targets.items()}
        shares = tf.constant(weights)

    def example(row: "tf.Tensor") -> tuple:
        start, stop = splits[row], splits[row + 1]
        inputs = {"input_ids": ids[start:stop],
                  "attention_mask": tf.ones([stop - start], tf.int32),
                  "token_type_ids": types[start:stop]}
        part = row if words is None else slice(start, stop)
        return inputs, {name: values[part] for name, values in goals.items()}, shares[row]

    longest = int(encoded.lengths.max())
    bounds = [b for b in BUCKETS if b < longest]
    rows = tf.data.Dataset.range(len(encoded))
    # Shuffle before repeat: each epoch sees every example once before any comes again. Bucket
    # after repeat: what does not fill a batch waits for the next epoch instead of being lost.
    rows = rows.shuffle(len(encoded), seed=seed, reshuffle_each_iteration=True).repeat()
    examples = rows.map(example, num_parallel_calls=2, deterministic=True)
    padding = {"input_ids": encoded.pad_id, "attention_mask": 0, "token_type_ids": 0}
    goal_padding = {name: np.array(-1, values.dtype) for name, values in targets.items()}
    batches = examples.bucket_by_sequence_length(
        lambda inputs, *_: tf.shape(inputs["input_ids"])[0],
        # +1: a boundary is exclusive, and each batch is padded to its bucket's boundary - 1.
        bucket_boundaries=[b + 1 for b in [*bounds, longest]],
        bucket_batch_sizes=[batch] * (len(bounds) + 2), pad_to_bucket_boundary=True,
        padding_values=(padding, goal_padding, np.float32(0)), drop_remainder=True)
    return batches.prefetch(tf.data.AUTOTUNE)
