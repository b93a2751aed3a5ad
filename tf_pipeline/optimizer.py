"""AdamW for fine-tuning on TensorFlow: embedding tables row by row, all else in fused kernels."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from .heads import VocabularyHead


class LazyAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter 2019) that works on those rows of `tables` that a batch read.

    A batch of short texts reads some hundred of 30,000 word vectors, and plain Adam rewrites all,
    half of a small BERT. Here `catch_up` moves rows, before they are read again, as far as the
    steps since would have moved them: their first moment fades, and so do its updates, a geometric
    series. `settle` does so for all rows. All gradients of `tables` must be tf.IndexedSlices:
    lookups, no products.
    """

    def __init__(self, *args: Any, tables: Sequence[keras.Variable] = (), **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.tables = {table.path for table in tables}
        self._seen: dict[int, keras.Variable] = {}  # of each row, the step that it is up to

    def build(self, variables: list[keras.Variable]) -> None:
        """Create the slots."""
        if self.built:
            return
        super().build(variables)
        for index, variable in enumerate(variables):
            if variable.path in self.tables:
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
        super()._apply_weight_decay([v for v in variables if v.path not in self.tables])

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

    def catch_up(self, rows: tf.Tensor) -> None:
        """Bring these different rows of the tables up to the steps that were taken without them."""
        for index in self._seen:
            self._catch_up(index, rows)

    def settle(self) -> None:
        """Let all rows catch up: to be called before the weights are used for anything else."""
        for index in self._seen:
            self._catch_up(index, tf.range(self._trainable_variables[index].shape[0]))

    def _catch_up(self, index: int, rows: tf.Tensor) -> None:
        variable = self._trainable_variables[index].value
        first, second = self._moments(index, rows)
        seen = tf.gather(self._seen[index].value, rows)
        now = tf.cast(self.iterations, seen.dtype)
        since, missed = (tf.cast(steps, "float32")[:, None] for steps in (seen, now - seen))
        ratio = self.beta_1 / self.beta_2 ** 0.5  # of an update to the one before it
        power = ratio ** missed
        series = ratio * (1 - power) / (1 - ratio)
        # The mean step of the series, each step by its share in it: there rates are taken.
        mean = (1 / (1 - ratio)) - tf.math.divide_no_nan(missed * power, 1 - power)
        moved = self._rate(since + mean) * series * first / (tf.sqrt(second) + self.epsilon)
        decay = self.weight_decay * self._schedule(since + (missed - 1) / 2) * missed
        self._write(index, variable, rows, (
            first * self.beta_1 ** missed, second * self.beta_2 ** missed,
            moved + decay * tf.gather(variable, rows)), now)

    def _update_rows(self, gradient: tf.IndexedSlices, variable: tf.Variable, index: int,
                     learning_rate: Any) -> None:
        rows, now = gradient.indices, tf.cast(self.iterations + 1, "int32")
        first, second = self._moments(index, rows)
        first = self.beta_1 * first + (1 - self.beta_1) * gradient.values
        second = self.beta_2 * second + (1 - self.beta_2) * gradient.values ** 2
        update = self._rate(tf.cast(now, "float32")) * first / (tf.sqrt(second) + self.epsilon)
        decay = tf.cast(learning_rate, "float32") * self.weight_decay * tf.gather(variable, rows)
        self._write(index, variable, rows, (first, second, update + decay), now)

    def _moments(self, index: int, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return (tf.gather(self._momentums[index].value, rows),
                tf.gather(self._velocities[index].value, rows))

    def _rate(self, step: tf.Tensor) -> tf.Tensor:
        """Give Adam's rate at a step from 1 on, with both corrections for moments begun at 0."""
        return (self._schedule(step - 1) * tf.sqrt(1 - self.beta_2 ** step)
                / (1 - self.beta_1 ** step))

    def _schedule(self, done: tf.Tensor) -> tf.Tensor:
        """Give the learning rate after so many steps."""
        return tf.cast(self._learning_rate(done) if callable(self._learning_rate)
                       else self._learning_rate, "float32")

    def _write(self, index: int, variable: tf.Variable, rows: tf.Tensor,
               values: tuple[tf.Tensor, tf.Tensor, tf.Tensor], now: tf.Tensor) -> None:
        first, second, displacement = values
        self._momentums[index].value.scatter_update(tf.IndexedSlices(first, rows))
        self._velocities[index].value.scatter_update(tf.IndexedSlices(second, rows))
        self._seen[index].value.scatter_update(
            tf.IndexedSlices(tf.fill(tf.shape(rows), now), rows))
        variable.scatter_sub(tf.IndexedSlices(displacement, rows))


class LazyModel(keras.Model):
    """A model to be trained by LazyAdamW: the words of a batch catch up before they are read."""

    def train_step(self, data: Any) -> dict[str, Any]:
        """Take one step."""
        _lazy(self).catch_up(tf.unique(tf.reshape(data[0]["input_ids"], [-1]))[0])
        return super().train_step(data)


class MirroredAdamW(keras.optimizers.AdamW):
    """AdamW on several devices that clips what they found together, as one device would.

    Keras's own clips each device's gradients before it adds them up.
    """

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        context = tf.distribute.get_replica_context()
        whole = context.all_reduce(tf.distribute.ReduceOp.SUM,
                                   [tf.convert_to_tensor(grad) for grad in grads])
        return tf.clip_by_global_norm(whole, self.global_clipnorm)[0]

    def _all_reduce_sum_gradients(self, grads_and_vars: list[Any]) -> list[Any]:
        return grads_and_vars  # they are summed


class Settling(keras.callbacks.Callback):
    """Lets all rows catch up at an epoch's end, before the weights are judged and kept."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Settle the optimizer."""
        if isinstance(self.model, LazyModel):
            _lazy(self.model).settle()


def _lazy(model: LazyModel) -> LazyAdamW:
    """Give its optimizer, which float16 wraps for loss scaling."""
    optimizer: Any = model.optimizer
    return getattr(optimizer, "inner_optimizer", optimizer)


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
