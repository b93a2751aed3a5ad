"""The float32 twin: the trained model as every export starts from, and the reference of parity."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tf_pipeline.run import Run
from tf_pipeline.runner import Runner, run_all
from tf_pipeline.runtimes import keras as keras_runtime
from tf_pipeline.task import Record, Scores
from tf_pipeline.text import INPUTS, Arrays

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class Twin:
    """A run's model rebuilt in float32, with every tensor that an export may name."""

    def __init__(self, run: Run):
        self.run, self.task, self.encoder = run, run.task, run.encoder

    @cached_property
    def model(self) -> "keras.Model":
        """The three inputs to all tensors of `task.export_outputs`, by name."""
        import keras

        trained = self.run.model
        return keras.Model(trained.input, self.task.export_outputs(trained.output), name="twin")

    @cached_property
    def head(self) -> "keras.Model":
        """What stands on the backbone: [pooled output, sequence output, mask] to all of `model`."""
        import keras

        # Keras has no public name for what a model gave where another one called it.
        call = self.model.get_layer("backbone")._inbound_nodes[0]
        pooled, sequence = sorted(call.output_tensors, key=lambda tensor: len(tensor.shape))
        return keras.Model([pooled, sequence, self.model.input["attention_mask"]],
                           self.model.output, name="head")

    def answers_text(self, signatures: str) -> bool:
        """Whether a SavedModel gets a signature for texts: wanted, and of use for the task."""
        return "text" in signatures and "text" in self.task.OUTPUTS

    def least_bytes(self, length: int) -> int:
        """The weights in float32 that any graph for texts of this length must hold.

        Not counted: positions past `length`, and the pooler, which not every task reads.
        """
        config = self.run.config
        unused = (config.max_position_embeddings - length + config.hidden_size) * config.hidden_size
        return 4 * (self.model.count_params() - unused)

    @cached_property
    def runner(self) -> Runner:
        """The twin as parity runs it."""
        return keras_runtime.wrap(self.model)

    def outputs(self, records: Sequence[Record], max_len: int) -> Arrays:
        """Run records, cut to `max_len` tokens."""
        return run_all(self.runner, self.task.encode(records, self.encoder, max_len))

    def score(self, records: Sequence[Record]) -> Scores:
        """Score records at the run's own length."""
        return self.task.score(self.outputs(records, self.run.max_len), records)

    def specs(self, batch: int | None, length: int | None, dtype: str) -> list["tf.TensorSpec"]:
        """Give the three named inputs: (batch, length)."""
        import tensorflow as tf

        return [tf.TensorSpec((batch, length), dtype, name=name) for name in INPUTS]

    def function(self, outputs: Sequence[str]) -> Callable[..., dict[str, Any]]:
        """Give a function of the three inputs, to be traced, that returns the named outputs."""
        import tensorflow as tf

        model = self.model  # built here: weights that are loaded while tracing are lost

        def call(input_ids: Any, attention_mask: Any, token_type_ids: Any) -> dict[str, Any]:
            values = model({"input_ids": tf.cast(input_ids, tf.int32),
                            "attention_mask": tf.cast(attention_mask, tf.int32),
                            "token_type_ids": tf.cast(token_type_ids, tf.int32)},
                           training=False)
            # identity: the graph's output then carries the name, whatever made it.
            return {name: tf.identity(values[name], name=name) for name in outputs}

        return call
