"""The step of a large batch in the memory of a small one, on the TensorFlow backend."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


class AccumulatedGradients(keras.Model):
    """A model that adds up the gradients of `records` records at a time: one step for the batch.

    Each record weighs the same, as in one piece; where a loss is a mean over words, each part's
    mean counts by its records.
    """

    def __init__(self, inputs: Any, outputs: Any, records: int):
        super().__init__(inputs, outputs)
        self._records = records

    def train_step(self, data: Any) -> dict[str, Any]:
        """Take one step."""
        weights = [weight.value for weight in self.trainable_weights]
        records = tf.shape(data[2])[0]

        def add(part: Any, number: Any, total: Any, *sums: Any) -> list[Any]:
            inputs, targets, shares = part
            with tf.GradientTape() as tape:
                loss = self.compute_loss(inputs, targets, self(inputs, training=True), shares)
                loss *= tf.cast(tf.shape(shares)[0] / records, loss.dtype)
                scaled = self.optimizer.scale_loss(loss)
            return [total + loss, *_added(sums, tape.gradient(scaled, weights))]

        loss, *gradients = _in_parts(add, data, records, self._records,
                                     [0.0, *(tf.zeros_like(w) for w in weights)])
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return _tracked(self, loss)


class CachedGradients(keras.Model):
    """A model of one output whose loss compares the records of a batch, in the memory of `records`.

    Gradient caching (Gao et al. 2021): embed the whole batch in parts without gradients, take the
    loss's gradient with respect to the embeddings, and embed each part again to go on from there.
    The step is that of the whole batch.
    """

    def __init__(self, inputs: Any, outputs: dict[str, Any], records: int):
        super().__init__(inputs, outputs)
        (self._name,) = outputs
        self._records = records

    def train_step(self, data: Any) -> dict[str, Any]:
        """Take one step."""
        inputs, targets, shares = data
        texts = tf.shape(inputs["input_ids"])[0]
        size = self._records * (texts // tf.shape(shares)[0])
        weights = {id(weight) for weight in self.weights}
        seeds = [variable for variable in self.variables if id(variable) not in weights]
        states = [tf.identity(seed) for seed in seeds]
        embeddings = self._embed(inputs, texts, size)
        for seed, state in zip(seeds, states, strict=True):
            seed.assign(state)  # the second pass must drop what the first one dropped
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            loss = self.compute_loss(inputs, targets, {self._name: embeddings}, shares)
            scaled = self.optimizer.scale_loss(loss)
        gradients = self._gradients((inputs, tape.gradient(scaled, embeddings)), texts, size)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return _tracked(self, loss)

    def _embed(self, inputs: dict[str, Any], texts: Any, size: Any) -> Any:
        """Embed all texts, `size` at a time: (texts, hidden)."""
        def embed(part: Any, number: Any, found: Any) -> list[Any]:
            return [found.write(number, self(part, training=True)[self._name])]

        hidden = self.output[self._name].shape[-1]
        found = tf.TensorArray("float32", 0, dynamic_size=True, infer_shape=False,
                               element_shape=(None, hidden))
        return _in_parts(embed, inputs, texts, size, [found])[0].concat()

    def _gradients(self, data: Any, texts: Any, size: Any) -> list[Any]:
        """Give the weights' gradients, from those of the embeddings (texts, hidden)."""
        weights = [weight.value for weight in self.trainable_weights]

        def add(part: Any, number: Any, *sums: Any) -> list[Any]:
            inputs, upstream = part
            with tf.GradientTape() as tape:
                embeddings = self(inputs, training=True)[self._name]
            return _added(sums, tape.gradient(embeddings, weights, output_gradients=upstream))

        return _in_parts(add, data, texts, size, [tf.zeros_like(w) for w in weights])


def _in_parts(act: Callable[..., list[Any]], data: Any, rows: Any, size: Any,
              state: list[Any]) -> list[Any]:
    """Call `act(part of the data's rows, number, *state)` part by part for a new state.

    A loop of the graph, one round at a time: unrolled, parts would be in memory together.
    """
    def step(number: Any, *state: Any) -> tuple[Any, ...]:
        part = slice(number * size, tf.minimum((number + 1) * size, rows))
        return (number + 1, *act(tf.nest.map_structure(lambda values: values[part], data), number,
                                 *state))

    return list(tf.while_loop(lambda number, *_: number * size < rows, step, [0, *state],
                              parallel_iterations=1)[1:])


def _added(sums: Any, gradients: Any) -> list[Any]:
    return [old + tf.convert_to_tensor(new) for old, new in zip(sums, gradients, strict=True)]


def _tracked(model: keras.Model, loss: Any) -> dict[str, Any]:
    """Update the metrics with the batch's loss, of which Keras made each device's share."""
    whole = loss * tf.distribute.get_strategy().num_replicas_in_sync
    for metric in model.metrics:  # the loss alone: none is compiled
        metric.update_state(whole)
    return {metric.name: metric.result() for metric in model.metrics}
