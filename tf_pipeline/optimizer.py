"""AdamW for fine-tuning on TensorFlow: embedding tables row by row, all else in fused kernels."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from .heads import VocabularyHead


class LazyAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter 2019) that works on those rows of `tables` that a batch read.

    A batch of short texts reads some hundred of 30,000 word vectors, and plain Adam rewrites all,
    half of a small BERT. Here a row that is read again catches up on the steps since: its moments
    decay, and it moves as far as its first moment would have moved it (with the rate of now).
    `settle` lets all rows catch up. Rows that nobody reads are not decayed. All gradients of
    `tables` must be tf.IndexedSlices: lookups, no products.
    """

    def __init__(self, *args: Any, tables: Sequence[keras.Variable] = (), **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._tables = {table.path for table in tables}
        self._seen: dict[int, keras.Variable] = {}  # of each row, the step that it is up to

    def build(self, variables: list[keras.Variable]) -> None:
        """Create the slots."""
        if self.built:
            return
        super().build(variables)
        for index, variable in enumerate(variables):
            if variable.path in self._tables:
                self._seen[index] = self.add_variable(
                    (variable.shape[0],), "zeros", "int32", name=f"{variable.name}_seen")

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        """Clip by the global norm, a row that several tokens read counted as one."""
        grads = [_summed(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]
        norm = tf.linalg.global_norm(grads)
        scale = self.global_clipnorm / tf.maximum(norm, self.global_clipnorm)
        return [tf.IndexedSlices(g.values * scale, g.indices, g.dense_shape)
                if isinstance(g, tf.IndexedSlices) else g * scale for g in grads]

    def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
        super()._apply_weight_decay([v for v in variables if v.path not in self._tables])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        index = self._get_variable_index(variable)
        if index in self._seen:
            self._update_rows(gradient, variable, index, learning_rate)
            return
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle, beta1_power=self.beta_1 ** step,
            beta2_power=self.beta_2 ** step, lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1, beta2=self.beta_2, epsilon=self.epsilon,
            grad=tf.convert_to_tensor(gradient))

    def settle(self) -> None:
        """Let all rows catch up: to be called before the weights are used for anything else."""
        for index, seen in self._seen.items():
            variable = self._trainable_variables[index].value
            rows, now = tf.range(tf.shape(variable)[0]), tf.cast(self.iterations, "int32")
            self._write(index, variable, rows, self._caught_up(
                index, rows, now, now - seen.value + 1, self.learning_rate), now)

    def _update_rows(self, gradient: tf.IndexedSlices, variable: tf.Variable, index: int,
                     learning_rate: Any) -> None:
        rows, now = gradient.indices, tf.cast(self.iterations + 1, "int32")
        idle = now - tf.gather(self._seen[index].value, rows)
        first, second, missed = self._caught_up(index, rows, now, idle, learning_rate)
        first = self.beta_1 * first + (1 - self.beta_1) * gradient.values
        second = self.beta_2 * second + (1 - self.beta_2) * gradient.values ** 2
        update = self._rate(now, learning_rate) * first / (tf.sqrt(second) + self.epsilon)
        decay = tf.cast(learning_rate, "float32") * self.weight_decay * tf.gather(variable, rows)
        self._write(index, variable, rows, (first, second, missed + update + decay), now)

    def _caught_up(self, index: int, rows: tf.Tensor, now: tf.Tensor, idle: tf.Tensor,
                   learning_rate: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Give both moments as of the step before, and the displacement of `idle` - 1 steps."""
        first, second = (tf.gather(slots[index].value, rows)
                         for slots in (self._momentums, self._velocities))
        steps = tf.cast(idle - 1, first.dtype)[:, None]
        ratio = self.beta_1 / self.beta_2 ** 0.5  # of an update to the one before it
        length = ratio * (1 - ratio ** steps) / (1 - ratio)
        # Most of it would have been moved soon after the row was read.
        rate = self._rate(tf.maximum(now - idle + 1, 1), learning_rate)[:, None]
        missed = rate * length * first / (tf.sqrt(second) + self.epsilon)
        return first * self.beta_1 ** steps, second * self.beta_2 ** steps, missed

    def _rate(self, now: tf.Tensor, learning_rate: Any) -> tf.Tensor:
        """Give Adam's rate with both corrections for moments that began at 0."""
        step = tf.cast(now, "float32")
        return (tf.cast(learning_rate, "float32") * tf.sqrt(1 - self.beta_2 ** step)
                / (1 - self.beta_1 ** step))

    def _write(self, index: int, variable: tf.Variable, rows: tf.Tensor,
               values: tuple[tf.Tensor, tf.Tensor, tf.Tensor], now: tf.Tensor) -> None:
        first, second, displacement = values
        self._momentums[index].value.scatter_update(tf.IndexedSlices(first, rows))
        self._velocities[index].value.scatter_update(tf.IndexedSlices(second, rows))
        self._seen[index].value.scatter_update(
            tf.IndexedSlices(tf.fill(tf.shape(rows), now), rows))
        variable.scatter_sub(tf.IndexedSlices(displacement, rows))


class Settling(keras.callbacks.Callback):
    """Lets all rows catch up at an epoch's end, before the weights are judged and kept."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Settle the optimizer."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if isinstance(optimizer, LazyAdamW):
            optimizer.settle()


def lookup_tables(trainer: keras.Model) -> list[keras.Variable]:
    """Find the word table, if nothing but lookups reach it in this model's training step."""
    multiplied = any(isinstance(layer, VocabularyHead) for layer in trainer.layers)
    # A model with a step of its own may add gradients up, which makes them dense.
    if multiplied or type(trainer).train_step is not keras.Model.train_step:
        return []
    return [trainer.get_layer("backbone").get_layer("embeddings").word.embeddings]


def _summed(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    """Add up what belongs to the same row."""
    rows, places = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)
