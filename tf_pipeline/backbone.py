"""BERT in Keras 3 layers, loading the weights that transformers writes.

Own layers instead of KerasHub's, for three measured reasons: exact GELU is part of the saved
configuration, every product of the encoder is a plain 2-D MatMul (int8 reaches all of them), and
importing keras_hub takes about ten seconds. See docs/decisions.md.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from .errors import UserError
from .text import INPUTS

# Added to the score of a padding position. exp(-1e4) is 0 in float32, and unlike -1e9 the
# number does not stretch the range that static int8 has to cover (BERT's own code uses it too).
MASKED_SCORE = -1e4


def exact_gelu(x: Any) -> Any:
    """x * P(X <= x) for X normal (Hendrycks and Gimpel 2016), in the form that converters know.

    TensorFlow's own kernel uses Erfc, for which neither tf2onnx nor LiteRT has an operation; this
    form LiteRT fuses into its GELU.
    """
    return 0.5 * x * (1.0 + ops.erf(x * 0.7071067811865476))


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": exact_gelu,
    "gelu_new": lambda x: ops.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: ops.gelu(x, approximate=True),
    "relu": ops.relu,
    "silu": ops.silu,
}

# Which axis of a weight is cut among devices that share one model (Shoeybi et al. 2019): what a
# layer's first products give stays on a device until the second products add it up.
SPLIT = {
    r"layer_\d+/(query|key|value|intermediate)/kernel": (None, "model"),
    r"layer_\d+/(query|key|value|intermediate)/bias": ("model",),
    r"layer_\d+/(attention_output|output)/kernel": ("model", None),
    r"embeddings/word/embeddings": (None, "model"),
}


@dataclass(frozen=True)
class BertConfig:
    """The architecture, in the keys of a Hugging Face config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    pad_token_id: int = 0

    @classmethod
    def from_json(cls, text: str, name: str) -> "BertConfig":
        """Read config.json or backbone.json; `name` is the file that errors speak of."""
        try:
            keys = json.loads(text)
        except ValueError as error:
            raise UserError(f"{name} is not JSON ({error}). Copy the file again.") from None
        kind = keys.get("model_type")
        if kind != "bert":
            raise UserError(f"{name} says model_type {kind!r}; only 'bert' can be trained here. "
                            "Choose a BERT checkpoint.")
        fields = [f for f in dataclasses.fields(cls)]
        lacking = [f.name for f in fields
                   if f.default is dataclasses.MISSING and f.name not in keys]
        if lacking:
            raise UserError(f"{name} lacks {', '.join(lacking)}. Copy the checkpoint's own file.")
        config = cls(**{f.name: keys[f.name] for f in fields if keys.get(f.name) is not None})
        if config.hidden_act not in ACTIVATIONS:
            raise UserError(f"{name} says hidden_act {config.hidden_act!r}. "
                            f"Known: {', '.join(ACTIVATIONS)}.")
        if config.hidden_size % config.num_attention_heads:
            raise UserError(f"{name} says hidden_size {config.hidden_size} with "
                            f"{config.num_attention_heads} heads; the first must be a multiple.")
        return config

    def to_json(self) -> str:
        """Write backbone.json."""
        return json.dumps({"model_type": "bert", **dataclasses.asdict(self)}, indent=2)


def _initializer(config: BertConfig) -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=config.initializer_range)


class Dropout(keras.layers.Dropout):
    """Dropout (Srivastava et al. 2014) that draws 16 random bits a value on a CPU instead of 32.

    Drawing them was a fifteenth of a step on texts of 128 tokens. The rate is met to 1/65,536.
    """

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        """Set some values to 0 and make the others larger, in training only."""
        if not training or not self.rate or not _tensorflow_on_cpu():
            return super().call(inputs, training=training)
        import tensorflow as tf

        seed = tf.cast(self.seed_generator.next(), "int32")
        count = tf.size(inputs, tf.int64)
        two_values = tf.random.stateless_uniform(((count + 1) // 2,), seed, None, None, tf.uint32)
        bits = tf.reshape(tf.bitcast(two_values, tf.uint16), (-1,))[:count]
        kept = bits >= tf.constant(round(self.rate * 2**16), tf.uint16)
        return tf.where(tf.reshape(kept, tf.shape(inputs)), inputs / (1 - self.rate),
                        tf.zeros((), inputs.dtype))


def _tensorflow_on_cpu() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_logical_devices("GPU")


class BertLayer(keras.layers.Layer):
    """A layer that is rebuilt from the whole architecture, so nothing of it is lost in saving.

    In mixed precision only products with weights are of few bits: norms and what runs past the
    products keep float32, as under PyTorch's autocast.
    """

    def __init__(self, config: BertConfig | dict[str, Any], **kwargs: Any):
        # autocast would round what comes in; the sublayers cast what they need.
        super().__init__(**{"autocast": False, **kwargs})
        self.config = BertConfig(**config) if isinstance(config, dict) else config

    def get_config(self) -> dict[str, Any]:
        """Give what `from_config` needs."""
        return {**super().get_config(), "config": dataclasses.asdict(self.config)}

    def _dense(self, units: int, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(units, kernel_initializer=_initializer(self.config),
                                  dtype=self.dtype_policy, name=name)

    def _norm(self, name: str) -> keras.layers.LayerNormalization:
        return keras.layers.LayerNormalization(epsilon=self.config.layer_norm_eps,
                                               dtype=self.variable_dtype, name=name)


@keras.saving.register_keras_serializable("bert")
class Embeddings(BertLayer):
    """Word, position and segment embeddings, summed and normalized: (B, L) -> (B, L, H)."""

    def __init__(self, config: BertConfig | dict[str, Any], **kwargs: Any):
        super().__init__(config, **kwargs)
        config = self.config

        def table(rows: int, name: str) -> keras.layers.Embedding:
            return keras.layers.Embedding(rows, config.hidden_size, _initializer(config),
                                          dtype=self.variable_dtype, name=name)

        self.word = table(config.vocab_size, "word")
        self.position = table(config.max_position_embeddings, "position")
        self.segment = table(config.type_vocab_size, "segment")
        self.norm = self._norm("norm")
        self.dropout = Dropout(config.hidden_dropout_prob, dtype=self.variable_dtype)

    def build(self, input_shape: Any) -> None:
        """Create the tables: in advance, so that weights load before the first call."""
        for layer in (self.word, self.position, self.segment):
            layer.build((None, None))
        self.norm.build((None, None, self.config.hidden_size))
        self.built = True

    def call(self, input_ids: Any, token_type_ids: Any, training: bool | None = None) -> Any:
        """Embed ids and segments."""
        positions = ops.arange(ops.shape(input_ids)[1], dtype="int32")
        embedded = self.word(input_ids) + self.segment(token_type_ids) + self.position(positions)
        return self.dropout(self.norm(embedded), training=training)

    def compute_output_shape(self, input_shape: Any, *_: Any) -> tuple[int | None, ...]:
        """(B, L) -> (B, L, H)."""
        return (*input_shape, self.config.hidden_size)


@keras.saving.register_keras_serializable("bert")
class EncoderLayer(BertLayer):
    """Self-attention and feed-forward with residuals and post-norm (Vaswani et al. 2017)."""

    def __init__(self, config: BertConfig | dict[str, Any], **kwargs: Any):
        super().__init__(config, **kwargs)
        config = self.config
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = self._dense(config.hidden_size, "query")
        self.key = self._dense(config.hidden_size, "key")
        self.value = self._dense(config.hidden_size, "value")
        self.attention_output = self._dense(config.hidden_size, "attention_output")
        self.attention_norm = self._norm("attention_norm")
        self.intermediate = self._dense(config.intermediate_size, "intermediate")
        self.output_dense = self._dense(config.hidden_size, "output")
        self.output_norm = self._norm("output_norm")
        policy = self.dtype_policy
        self.attention_dropout = Dropout(config.attention_probs_dropout_prob, dtype=policy)
        self.dropout = Dropout(config.hidden_dropout_prob, dtype=policy)

    def build(self, input_shape: Any) -> None:
        """Create the weights of the eight sublayers that have some."""
        rows = (None, self.config.hidden_size)
        for layer in (self.query, self.key, self.value, self.attention_output, self.attention_norm,
                      self.intermediate, self.output_norm):
            layer.build(rows)
        self.output_dense.build((None, self.config.intermediate_size))
        self.built = True

    def call(self, hidden: Any, attention_bias: Any, training: bool | None = None) -> Any:
        """Encode (B, L, H) with a bias (B, 1, 1, L) that is MASKED_SCORE on padding."""
        batch, length = ops.shape(hidden)[0], ops.shape(hidden)[1]
        # One row a token, (B*L, H): all products with weights are 2-D MatMuls.
        rows = ops.reshape(hidden, (-1, self.config.hidden_size))
        context = self._attend(rows, attention_bias, (batch, length), training)
        attended = self.dropout(self.attention_output(context), training=training)
        rows = self.attention_norm(ops.add(rows, attended))
        activated = ACTIVATIONS[self.config.hidden_act](self.intermediate(rows))
        forwarded = self.dropout(self.output_dense(activated), training=training)
        rows = self.output_norm(ops.add(rows, forwarded))
        return ops.reshape(rows, (batch, length, self.config.hidden_size))

    def _attend(self, rows: Any, bias: Any, shape: tuple[Any, Any], training: bool | None) -> Any:
        batch, length = shape

        def heads(dense: keras.layers.Dense) -> Any:  # (B*L, H) -> (B, heads, L, head_size)
            split = (batch, length, self.config.num_attention_heads, self.head_size)
            return ops.transpose(ops.reshape(dense(rows), split), (0, 2, 1, 3))

        query = heads(self.query) * (self.head_size ** -0.5)
        scores = ops.matmul(query, ops.transpose(heads(self.key), (0, 1, 3, 2)))
        weights = self.attention_dropout(ops.softmax(ops.add(scores, bias)), training=training)
        context = ops.transpose(ops.matmul(weights, heads(self.value)), (0, 2, 1, 3))
        return ops.reshape(context, (-1, self.config.hidden_size))

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        """Keep the shape."""
        return input_shape


def build(config: BertConfig) -> keras.Model:
    """Build the network with new weights.

    int32 `input_ids attention_mask token_type_ids` (batch, length) give `sequence_output`
    (batch, length, hidden) and `pooled_output` (batch, hidden).
    """
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in INPUTS}
    real = ops.cast(inputs["attention_mask"], "float32")
    bias = ops.expand_dims((1.0 - real) * MASKED_SCORE, (1, 2))  # (B, 1, 1, L)
    hidden = Embeddings(config, name="embeddings")(inputs["input_ids"], inputs["token_type_ids"])
    for index in range(config.num_hidden_layers):
        hidden = EncoderLayer(config, name=f"layer_{index}")(hidden, bias)
    pooler = keras.layers.Dense(config.hidden_size, "tanh", name="pooler",
                                kernel_initializer=_initializer(config))
    outputs = {"sequence_output": hidden, "pooled_output": pooler(hidden[:, 0])}
    return keras.Model(inputs, outputs, name="backbone")


def _named_layers(backbone: keras.Model) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Pair each layer that has weights with its name in a transformers checkpoint."""
    embeddings = backbone.get_layer("embeddings")
    yield "embeddings.word_embeddings", embeddings.word
    yield "embeddings.position_embeddings", embeddings.position
    yield "embeddings.token_type_embeddings", embeddings.segment
    yield "embeddings.LayerNorm", embeddings.norm
    for index in range(embeddings.config.num_hidden_layers):
        layer, prefix = backbone.get_layer(f"layer_{index}"), f"encoder.layer.{index}"
        yield f"{prefix}.attention.self.query", layer.query
        yield f"{prefix}.attention.self.key", layer.key
        yield f"{prefix}.attention.self.value", layer.value
        yield f"{prefix}.attention.output.dense", layer.attention_output
        yield f"{prefix}.attention.output.LayerNorm", layer.attention_norm
        yield f"{prefix}.intermediate.dense", layer.intermediate
        yield f"{prefix}.output.dense", layer.output_dense
        yield f"{prefix}.output.LayerNorm", layer.output_norm
    yield "pooler.dense", backbone.get_layer("pooler")


def _named_variables(backbone: keras.Model) -> Iterator[tuple[str, keras.Variable, bool]]:
    """Give (name, variable, whether PyTorch stores it transposed) for every weight."""
    for name, layer in _named_layers(backbone):
        if isinstance(layer, keras.layers.Embedding):
            yield f"{name}.weight", layer.embeddings, False
        elif isinstance(layer, keras.layers.LayerNormalization):
            yield f"{name}.weight", layer.gamma, False
            yield f"{name}.bias", layer.beta, False
        else:
            yield f"{name}.weight", layer.kernel, True
            yield f"{name}.bias", layer.bias, False


def get_weights(backbone: keras.Model) -> dict[str, np.ndarray]:
    """Read all weights under the names and in the layout of a transformers BertModel."""
    arrays = {}
    for name, variable, transposed in _named_variables(backbone):
        array = keras.ops.convert_to_numpy(variable)
        arrays[name] = array.T if transposed else array
    return arrays


def set_weights(backbone: keras.Model, weights: Mapping[str, np.ndarray]) -> list[str]:
    """Load transformers weights; returns the pooler's names where the checkpoint has no pooler.

    Anything else that lacks, or has another shape than the configuration says, is a UserError.
    """
    new: list[str] = []
    for name, variable, transposed in _named_variables(backbone):
        if name not in weights:
            if not name.startswith("pooler."):
                raise UserError(f"The checkpoint has no weight {name!r}; it holds "
                                f"{len(weights)} others. It is not a BERT, or it was cut short.")
            new.append(name)
            continue
        array = weights[name].T if transposed else weights[name]
        if array.shape != tuple(variable.shape):
            raise UserError(f"The checkpoint's {name!r} has shape {array.shape}; config.json "
                            f"says {tuple(variable.shape)}. The two files do not belong together.")
        variable.assign(array)
    return new
