"""The layers that answer: transformers' heads, under their names or as `logits`."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from .backbone import ACTIVATIONS, BertConfig, BertLayer
from .config import Pooling
from .errors import UserError

NO_TARGET = -1  # tokens that the loss leaves out


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


def loss_of_known(targets: Any, logits: Any) -> Any:
    """Give (batch,) losses whose mean is the mean over all tokens of the batch with a target.

    Targets are (batch, tokens), NO_TARGET where there is none; logits (batch, tokens, classes).
    """
    targets = ops.cast(targets, "int32")
    known = ops.cast(targets != NO_TARGET, logits.dtype)
    losses = keras.losses.sparse_categorical_crossentropy(ops.maximum(targets, 0), logits,
                                                          from_logits=True)
    count = ops.maximum(ops.mean(ops.sum(known, -1)), 1e-6)
    return ops.sum(losses * known, -1) / count


@keras.saving.register_keras_serializable("bert")
class VocabularyHead(BertLayer):
    """BertForMaskedLM's head: dense, activation, norm, and the word table as the last weights.

    (batch, tokens, hidden) -> float32 (batch, tokens, vocabulary). `word` is the backbone's own
    table; without it the head has one of its own, as a layer that is read from a file must.
    """

    def __init__(self, config: BertConfig | dict[str, Any],
                 word: keras.layers.Embedding | None = None, **kwargs: Any):
        super().__init__(config, **kwargs)
        config = self.config
        self.word = word or keras.layers.Embedding(config.vocab_size, config.hidden_size,
                                                   dtype=self.variable_dtype, name="word")
        self.dense = self._dense(config.hidden_size, "dense")
        self.norm = self._norm("norm")

    def build(self, input_shape: Any) -> None:
        """Create the weights, of the table only where it is the head's own."""
        if not self.word.built:
            self.word.build((None, None))
        self.dense.build((None, self.config.hidden_size))
        self.norm.build((None, self.config.hidden_size))
        self.bias = self.add_weight(shape=(self.config.vocab_size,), initializer="zeros",
                                    name="bias", dtype="float32")
        self.built = True

    def call(self, hidden: Any) -> Any:
        """Give logits for every row."""
        tokens = ops.shape(hidden)[1]
        rows = ops.reshape(hidden, (-1, self.config.hidden_size))  # 2-D MatMuls, as in the encoder
        rows = self.norm(ACTIVATIONS[self.config.hidden_act](self.dense(rows)))
        table = ops.cast(self.word.embeddings, rows.dtype)
        logits = ops.cast(ops.matmul(rows, ops.transpose(table)), "float32") + self.bias
        return ops.reshape(logits, (-1, tokens, self.config.vocab_size))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, L, H) -> (B, L, V)."""
        return (*input_shape[:2], self.config.vocab_size)


def for_vocabulary(backbone: keras.Model, name: str) -> keras.Model:
    """Give logits (batch, length, vocabulary)."""
    _leave_pooler(backbone)
    embeddings = backbone.get_layer("embeddings")
    head = VocabularyHead(embeddings.config, embeddings.word, name="vocabulary")
    return keras.Model(backbone.input,
                       {"logits": head(backbone(backbone.input)["sequence_output"])}, name=name)


def with_own_table(model: keras.Model) -> keras.Model:
    """Give the model, or one whose vocabulary head holds a copy of the word table.

    A .keras file stores layer by layer, and cannot say that two of them share a weight.
    """
    if "vocabulary" not in [layer.name for layer in model.layers]:
        return model
    tied = model.get_layer("vocabulary")
    hidden = model.get_layer("backbone")(model.input)["sequence_output"]
    head = VocabularyHead(tied.config, name="vocabulary")
    outputs = {"logits": head(hidden)}
    for layer in ("word", "dense", "norm"):
        getattr(head, layer).set_weights(getattr(tied, layer).get_weights())
    head.bias.assign(tied.bias)
    return keras.Model(model.input, outputs, name=model.name)


def at_positions(model: keras.Model) -> keras.Model:
    """Give a model over the same layers with logits at `positions` only: (batch, positions, V)."""
    positions = keras.Input((None,), dtype="int32", name="positions")
    hidden = model.get_layer("backbone")(model.input)["sequence_output"]
    rows = ops.take_along_axis(hidden, ops.expand_dims(positions, -1), 1)
    return keras.Model({**model.input, "positions": positions},
                       {"logits": model.get_layer("vocabulary")(rows)})


def _vocabulary_variables(model: keras.Model) -> dict[str, tuple[keras.Variable, bool]]:
    """Name the head's weights as transformers does, and say which PyTorch stores transposed."""
    head, prefix = model.get_layer("vocabulary"), "cls.predictions"
    return {f"{prefix}.transform.dense.weight": (head.dense.kernel, True),
            f"{prefix}.transform.dense.bias": (head.dense.bias, False),
            f"{prefix}.transform.LayerNorm.weight": (head.norm.gamma, False),
            f"{prefix}.transform.LayerNorm.bias": (head.norm.beta, False),
            f"{prefix}.bias": (head.bias, False)}


def get_vocabulary_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Read the head's weights under the names and in the layout of a BertForMaskedLM."""
    arrays = {name: (ops.convert_to_numpy(variable), turned)
              for name, (variable, turned) in _vocabulary_variables(model).items()}
    return {name: array.T if turned else array for name, (array, turned) in arrays.items()}


def set_vocabulary_weights(model: keras.Model, weights: Mapping[str, np.ndarray]) -> bool:
    """Load the head of a BertForMaskedLM; False, and nothing loaded, where there is none."""
    variables = _vocabulary_variables(model)
    if not set(variables) <= set(weights):
        return False
    for name, (variable, turned) in variables.items():
        array = weights[name].T if turned else weights[name]
        if name.endswith("predictions.bias"):  # pieces that were added to the vocabulary
            array = np.pad(array, (0, max(0, variable.shape[0] - len(array))))
        if array.shape != tuple(variable.shape):
            raise UserError(f"The checkpoint's {name!r} has shape {array.shape}; config.json "
                            f"says {tuple(variable.shape)}. The two files do not belong together.")
        variable.assign(array)
    return True
