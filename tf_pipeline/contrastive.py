"""Learning which texts belong together: losses over a batch of embeddings, and cached gradients.

A record's texts stand one after the other, so embeddings are (batch * texts of each, hidden).
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

_NEVER = -1e9  # a score that adds nothing to a sum of exponentials


def in_batch_negatives(temperature: float) -> Callable[[Any, Any], Any]:
    """Give a loss for pairs: each first text must pick its second text among those of all records.

    Multiple negatives ranking (Henderson et al. 2017) over cosines divided by `temperature`; third
    texts are wrong answers for all. It takes a number for each text (batch, texts of each), the
    same for equal ones: what a record has as its own, or an equal first text has as its second, is
    no wrong answer. Gives (batch,).
    """
    def loss(numbers: Any, embeddings: Any) -> Any:
        texts = numbers.shape[1]
        vectors = ops.reshape(embeddings, (-1, texts, embeddings.shape[-1]))
        # All second texts, then all third ones: (batch * (texts - 1), hidden).
        answers = ops.reshape(ops.transpose(vectors[:, 1:], (1, 0, 2)),
                              (-1, embeddings.shape[-1]))
        scores = ops.matmul(vectors[:, 0], ops.transpose(answers)) / temperature
        found = ops.reshape(ops.transpose(numbers[:, 1:]), (1, -1))
        asked = ops.concatenate([numbers[:, 0], *[ops.full_like(numbers[:, 0], -1)] * (texts - 2)])
        rows = ops.arange(ops.shape(scores)[0])
        right = rows[:, None] == ops.arange(ops.shape(scores)[1])[None]
        known = (found == numbers[:, :1]) | (found == numbers[:, 1:2]) | (
            asked[None] == numbers[:, :1])
        scores = ops.where(known & ~right, _NEVER, scores)
        return ops.logsumexp(scores, -1) - ops.sum(ops.where(right, scores, 0.0), -1)

    return loss


def cosent(temperature: float) -> Callable[[Any, Any], Any]:
    """Give a loss for graded pairs: a higher score must have the higher cosine.

    CoSENT (Su 2022, kexue.fm/archives/8847; its factor 20 is a temperature of .05): the log of one
    plus, over all two pairs of the batch, e to the cosine of the lower less that of the higher.
    Takes scores (batch, 1); gives (batch,), the same for each.
    """
    def loss(scores: Any, embeddings: Any) -> Any:
        vectors = ops.reshape(embeddings, (-1, 2, embeddings.shape[-1]))
        cosines = ops.sum(vectors[:, 0] * vectors[:, 1], -1)
        excess = (cosines[None] - cosines[:, None]) / temperature
        terms = ops.where(scores > ops.transpose(scores), excess, _NEVER)
        return ops.logaddexp(0.0, ops.logsumexp(terms)) * ops.ones_like(cosines)

    return loss


def of_whole_batch(loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Let a loss that compares a batch's records see those of all TensorFlow replicas.

    JAX cuts batches without the loss's knowledge.
    """
    def whole(targets: Any, embeddings: Any) -> Any:
        if keras.backend.backend() != "tensorflow":
            return loss(targets, embeddings)
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:  # None while Keras builds
            return loss(targets, embeddings)
        records = ops.shape(targets)[0]
        found = loss(*(tf.ensure_shape(context.all_gather(values, 0), (None, *values.shape[1:]))
                       for values in (targets, embeddings)))
        first = context.replica_id_in_sync_group * records
        return found[first:first + records]

    return whole


class CachedGradients(keras.Model):
    """A model of one output that trains on large batches in the memory of `records` records.

    Gradient caching (Gao et al. 2021): embed the whole batch in parts without gradients, take the
    loss's gradient with respect to the embeddings, and embed each part again to go on from there.
    The step is that of the whole batch. TensorFlow backend only.
    """

    def __init__(self, inputs: Any, outputs: dict[str, Any], records: int):
        super().__init__(inputs, outputs)
        (self._name,) = outputs
        self._records = records

    def train_step(self, data: Any) -> dict[str, Any]:
        """Take one step."""
        import tensorflow as tf

        inputs, targets, shares = keras.utils.unpack_x_y_sample_weight(data)
        texts = tf.shape(inputs["input_ids"])[0]
        size = self._records * (texts // tf.shape(shares)[0])
        weights = {id(weight) for weight in self.weights}
        seeds = [variable for variable in self.variables if id(variable) not in weights]
        states = [tf.identity(seed) for seed in seeds]
        embeddings = self._embed(inputs, size)
        for seed, state in zip(seeds, states, strict=True):
            seed.assign(state)  # the second pass must drop what the first one dropped
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            loss = self.compute_loss(inputs, targets, {self._name: embeddings}, shares)
            scaled = self.optimizer.scale_loss(loss)
        gradients = self._gradients(inputs, tape.gradient(scaled, embeddings), size)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        for metric in self.metrics:  # the loss alone: none is compiled
            metric.update_state(loss)
        return {metric.name: metric.result() for metric in self.metrics}

    def _embed(self, inputs: dict[str, Any], size: Any) -> Any:
        """Embed all texts, `size` at a time: (texts, hidden)."""
        import tensorflow as tf

        def embed(part: Any, values: Any, number: Any, found: Any) -> tuple[Any]:
            return (found.write(number, self(part, training=True)[self._name]),)

        hidden = self.output[self._name].shape[-1]
        found = tf.TensorArray("float32", 0, dynamic_size=True, infer_shape=False,
                               element_shape=(None, hidden))
        return _in_parts(embed, inputs, inputs["input_ids"], size, [found])[0].concat()

    def _gradients(self, inputs: dict[str, Any], upstream: Any, size: Any) -> list[Any]:
        """Give the weights' gradients, from those of the embeddings (texts, hidden)."""
        import tensorflow as tf

        weights = [weight.value for weight in self.trainable_weights]

        def add(part: Any, values: Any, number: Any, *sums: Any) -> list[Any]:
            with tf.GradientTape() as tape:
                embeddings = self(part, training=True)[self._name]
            found = tape.gradient(embeddings, weights, output_gradients=values)
            return [old + tf.convert_to_tensor(new)
                    for old, new in zip(sums, found, strict=True)]

        return _in_parts(add, inputs, upstream, size, [tf.zeros_like(w) for w in weights])


def _in_parts(act: Callable[..., Any], inputs: dict[str, Any], values: Any, size: Any,
              state: list[Any]) -> list[Any]:
    """Call `act(part of inputs, part of values, number, *state)` part by part for a new state.

    A loop of the graph, one round at a time: unrolled, parts would be in memory together.
    """
    import tensorflow as tf

    texts = tf.shape(values)[0]

    def step(number: Any, *state: Any) -> tuple[Any, ...]:
        part = slice(number * size, tf.minimum((number + 1) * size, texts))
        return (number + 1, *act({name: tensor[part] for name, tensor in inputs.items()},
                                 values[part], number, *state))

    return list(tf.while_loop(lambda number, *_: number * size < texts, step, [0, *state],
                              parallel_iterations=1)[1:])
