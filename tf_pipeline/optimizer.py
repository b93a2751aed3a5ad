"""AdamW for fine-tuning on TensorFlow: embedding tables row by row, all else in fused kernels."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from .heads import VocabularyHead


class LazyAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter 2019) that works on those rows of `tables` that a batch read.

    A batch of short texts reads some hundred of 30,000 word vectors, and plain Adam rewrites all,
    half of a small BERT. Here a row's second moment decays for the steps in which nobody read it
    (exact), and its update takes the gradient itself in place of the first moment: the same
    displacement, summed over the steps that the moment would have spread it over. Unread rows
    are not decayed. All gradients of `tables` must be tf.IndexedSlices: lookups, no products.
    """

    def __init__(self, *args: Any, tables: Sequence[keras.Variable] = (), **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._tables = {table.path for table in tables}

    def build(self, variables: list[keras.Variable]) -> None:
        """Create slots: of a table its rows' second moments, and the step that saw each last."""
        if self.built:
            return
        keras.optimizers.Optimizer.build(self, variables)
        self._momentums: list[keras.Variable | None] = []
        self._velocities: list[keras.Variable] = []
        self._seen: dict[int, keras.Variable] = {}
        for index, variable in enumerate(variables):
            self._velocities.append(self.add_variable_from_reference(variable, "velocity"))
            if variable.path in self._tables:
                self._momentums.append(None)
                self._seen[index] = self.add_variable(
                    (variable.shape[0],), "zeros", "int32", name=f"{variable.name}_seen")
            else:
                self._momentums.append(self.add_variable_from_reference(variable, "momentum"))

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
        rate = tf.cast(learning_rate, variable.dtype)
        step = tf.cast(self.iterations + 1, variable.dtype)
        index = self._get_variable_index(variable)
        velocity = self._velocities[index].value
        if index in self._seen:
            self._update_rows(gradient, variable, velocity, self._seen[index].value, rate)
            return
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=self._momentums[index].value.handle, v=velocity.handle,
            beta1_power=self.beta_1 ** step, beta2_power=self.beta_2 ** step, lr=rate,
            beta1=self.beta_1, beta2=self.beta_2, epsilon=self.epsilon,
            grad=tf.convert_to_tensor(gradient))

    def _update_rows(self, gradient: tf.IndexedSlices, variable: tf.Variable,
                     velocity: tf.Variable, seen: tf.Variable, rate: tf.Tensor) -> None:
        rows, now = gradient.indices, tf.cast(self.iterations + 1, seen.dtype)
        idle = tf.cast(now - tf.gather(seen, rows), variable.dtype)
        moments = (tf.gather(velocity, rows) * (self.beta_2 ** idle)[:, None]
                   + (1 - self.beta_2) * gradient.values ** 2)
        correction = tf.sqrt(1 - self.beta_2 ** tf.cast(now, variable.dtype))
        update = rate * correction * gradient.values / (tf.sqrt(moments) + self.epsilon)
        decay = rate * self.weight_decay * tf.gather(variable, rows)
        velocity.scatter_update(tf.IndexedSlices(moments, rows))
        seen.scatter_update(tf.IndexedSlices(tf.fill(tf.shape(rows), now), rows))
        variable.scatter_sub(tf.IndexedSlices(update + decay, rows))


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
