"""The layer that answers: transformers' heads, a dropout and a dense layer named `logits`."""

from typing import Any

import keras
import numpy as np
from keras import ops

from .config import Pooling


def for_text(backbone: keras.Model, pooling: Pooling, units: int, name: str) -> keras.Model:
    """Give logits (batch, units), read from what `pooling` names."""
    outputs = backbone(backbone.input)
    if pooling == "pooler":
        return _finish(backbone, outputs["pooled_output"], units, name)
    return _finish(backbone, mean_of_tokens(backbone, outputs["sequence_output"]), units, name)


def for_tokens(backbone: keras.Model, units: int, name: str) -> keras.Model:
    """Give logits (batch, length, units)."""
    _leave_pooler(backbone)
    return _finish(backbone, backbone(backbone.input)["sequence_output"], units, name)


def mean_of_tokens(backbone: keras.Model, sequence: Any) -> Any:
    """Average a text's tokens, padding left out (Reimers and Gurevych 2019): (batch, hidden)."""
    _leave_pooler(backbone)
    real = ops.expand_dims(ops.cast(backbone.input["attention_mask"], "float32"), -1)
    # maximum: a row that is all padding, as some clients fill a batch with, is no NaN.
    return ops.sum(ops.cast(sequence, "float32") * real, 1) / ops.maximum(ops.sum(real, 1), 1.0)


def _leave_pooler(backbone: keras.Model) -> None:
    backbone.get_layer("pooler").trainable = False  # no answer depends on it


def _finish(backbone: keras.Model, hidden: Any, units: int, name: str) -> keras.Model:
    """Put dropout and the dense layer on; logits are float32 also under mixed precision."""
    config = backbone.get_layer("embeddings").config
    hidden = keras.layers.Dropout(config.hidden_dropout_prob, name="head_dropout")(hidden)
    logits = keras.layers.Dense(units, name="logits", dtype="float32",
                                kernel_initializer=keras.initializers.TruncatedNormal(
                                    stddev=config.initializer_range))(hidden)
    return keras.Model(backbone.input, {"logits": logits}, name=name)


def rescale(model: keras.Model, scale: float, shift: float = 0.0) -> None:
    """Fold `logits * scale + shift` into the dense layer: every exported file then has it."""
    head = model.get_layer("logits")
    kernel, bias = (np.asarray(w) for w in head.get_weights())
    head.set_weights([kernel * scale, bias * scale + shift])
