"""The layer that answers: transformers' heads, a dropout and a dense layer named `logits`."""

from typing import Literal

import keras
import numpy as np


def put_on(backbone: keras.Model, output: Literal["pooled_output", "sequence_output"],
           units: int, name: str) -> keras.Model:
    """Give logits (batch, units) or (batch, length, units), float32 also under mixed precision."""
    if output == "sequence_output":
        backbone.get_layer("pooler").trainable = False  # no answer depends on it
    config = backbone.get_layer("embeddings").config
    hidden = keras.layers.Dropout(config.hidden_dropout_prob, name="head_dropout")(
        backbone(backbone.input)[output])
    logits = keras.layers.Dense(units, name="logits", dtype="float32",
                                kernel_initializer=keras.initializers.TruncatedNormal(
                                    stddev=config.initializer_range))(hidden)
    return keras.Model(backbone.input, {"logits": logits}, name=name)


def rescale(model: keras.Model, scale: float, shift: float = 0.0) -> None:
    """Fold `logits * scale + shift` into the dense layer: every exported file then has it."""
    head = model.get_layer("logits")
    kernel, bias = (np.asarray(w) for w in head.get_weights())
    head.set_weights([kernel * scale, bias * scale + shift])
