"""BERT's encoder in ONNX operators, in the shape that onnxruntime runs fastest.

Written by hand: traced, a layer norm falls into nine operators and each layer computes shapes of
its own (benchmarks/artifacts.md). Standard operators only, so that every runtime opens the file;
what onnxruntime can fuse (products with their bias, GELU) it fuses when it loads one.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_pipeline.backbone import MASKED_SCORE, BertConfig
from tf_pipeline.text import INPUTS, Arrays

if TYPE_CHECKING:
    import onnx

OPSET = 17  # the first with LayerNormalization
SEQUENCE, POOLED = "sequence_output", "pooled_output"


def encoder(config: BertConfig, weights: Mapping[str, np.ndarray], pooled: bool) -> Any:
    """Give the `onnx.GraphProto` of a backbone.

    `weights` are those of `backbone.get_weights`. Inputs int64 (batch_size, sequence_length);
    outputs SEQUENCE (batch_size, sequence_length, hidden) and, where `pooled`, POOLED.
    """
    return _Writer(config, weights).graph(pooled)


class _Writer:
    """Nodes and constants so far; methods add to them and give the new tensor's name."""

    def __init__(self, config: BertConfig, weights: Mapping[str, np.ndarray]):
        self.config, self.weights = config, weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: Arrays = {}

    def graph(self, pooled: bool) -> "onnx.GraphProto":
        """Write all of it."""
        from onnx import TensorProto, helper, numpy_helper

        shape = self.add("Shape", "input_ids", name="shape")
        # One row a token: every product with weights is then of two matrices, bias included.
        rows = self.add("Reshape", self._embeddings(shape), self.constant("rows", [-1, self.width]),
                        name="embeddings")
        heads = [self.config.num_attention_heads, self.width // self.config.num_attention_heads]
        split = self.add("Concat", shape, self.constant("heads", heads), name="split", axis=0)
        bias = self._attention_bias()
        for index in range(self.config.num_hidden_layers):
            rows = self._layer(f"encoder.layer.{index}", rows, split, bias)
        whole = self.add("Concat", shape, self.constant("width", [self.width]), name="whole",
                         axis=0)
        self.add("Reshape", rows, whole, name=SEQUENCE)
        if pooled:
            first = self.add("Gather", SEQUENCE, self.constant("first", 0), name="cls", axis=1)
            self.add("Tanh", self._dense(first, "pooler.dense"), name=POOLED)
        axes: tuple[str | int, ...] = ("batch_size", "sequence_length")
        outputs = {SEQUENCE: (*axes, self.width), POOLED: (axes[0], self.width)}
        return helper.make_graph(
            self.nodes, "bert",
            [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in INPUTS],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)
             for name, axes in outputs.items() if pooled or name != POOLED],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()])

    @property
    def width(self) -> int:
        return self.config.hidden_size

    def add(self, operator: str, *inputs: str, name: str, **attributes: Any) -> str:
        """Add a node whose one output has its name."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        """Store a constant once: int64 of whole numbers, float32 of all others."""
        array = np.array(value, order="C")
        self.constants[name] = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        return name

    def _weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def _embeddings(self, shape: str) -> str:
        length = self.add("Gather", shape, self.constant("length_axis", [1]), name="length")
        places = self.add("Slice", self._weight("embeddings.position_embeddings.weight"),
                          self.constant("start", [0]), length, name="positions")
        words, segments = (
            self.add("Gather", self._weight(f"embeddings.{table}.weight"), ids, name=table)
            for table, ids in (("word_embeddings", "input_ids"),
                               ("token_type_embeddings", "token_type_ids")))
        total = self.add("Add", self.add("Add", words, segments, name="words_and_segments"), places,
                         name="embedded")
        return self._norm(total, "embeddings.LayerNorm")

    def _attention_bias(self) -> str:
        """(batch, 1, 1, length), MASKED_SCORE on padding."""
        from onnx import TensorProto

        real = self.add("Cast", "attention_mask", name="real", to=TensorProto.FLOAT)
        padding = self.add("Sub", self.constant("one", 1.0), real, name="padding")
        scores = self.add("Mul", padding, self.constant("masked_score", MASKED_SCORE),
                          name="padding_scores")
        return self.add("Unsqueeze", scores, self.constant("bias_axes", [1, 2]),
                        name="attention_bias")

    def _layer(self, name: str, rows: str, split: str, bias: str) -> str:
        context = self._attend(f"{name}.attention.self", rows, split, bias)
        attended = self._dense(context, f"{name}.attention.output.dense")
        rows = self._norm(self.add("Add", attended, rows, name=f"{name}.attention.output.sum"),
                          f"{name}.attention.output.LayerNorm")
        inner = self._activate(self._dense(rows, f"{name}.intermediate.dense"))
        forwarded = self._dense(inner, f"{name}.output.dense")
        return self._norm(self.add("Add", forwarded, rows, name=f"{name}.output.sum"),
                          f"{name}.output.LayerNorm")

    def _attend(self, name: str, rows: str, split: str, bias: str) -> str:
        scale = (self.width // self.config.num_attention_heads) ** -0.5
        sides = {"query": (0, 2, 1, 3), "key": (0, 2, 3, 1), "value": (0, 2, 1, 3)}
        query, key, value = (
            self.add("Transpose", self.add(
                "Reshape", self._dense(rows, f"{name}.{side}", scale if side == "query" else 1.0),
                split, name=f"{name}.{side}.split"), name=f"{name}.{side}.turned", perm=axes)
            for side, axes in sides.items())
        scores = self.add("Add", self.add("MatMul", query, key, name=f"{name}.scores"), bias,
                          name=f"{name}.masked")
        shares = self.add("Softmax", scores, name=f"{name}.weights", axis=-1)
        context = self.add("Transpose", self.add("MatMul", shares, value, name=f"{name}.context"),
                           name=f"{name}.turned", perm=(0, 2, 1, 3))
        return self.add("Reshape", context, "rows", name=f"{name}.rows")

    def _dense(self, rows: str, name: str, scale: float = 1.0) -> str:
        """Multiply by a kernel and add a bias, both times `scale`."""
        # MatMul and Add, not Gemm: of these two the int8 tools quantize by column.
        kernel = self.constant(f"{name}.kernel", self.weights[f"{name}.weight"].T * scale)
        product = self.add("MatMul", rows, kernel, name=f"{name}.product")
        shift = self.constant(f"{name}.bias", self.weights[f"{name}.bias"] * scale)
        return self.add("Add", product, shift, name=name)

    def _norm(self, rows: str, name: str) -> str:
        return self.add("LayerNormalization", rows, self._weight(f"{name}.weight"),
                        self._weight(f"{name}.bias"), name=name, axis=-1,
                        epsilon=self.config.layer_norm_eps)

    def _activate(self, rows: str) -> str:
        """Apply what `backbone.ACTIVATIONS` says, in the forms that onnxruntime fuses."""
        kind = self.config.hidden_act

        def times(a: str, b: str | float, name: str) -> str:
            return self.add("Mul", a, b if isinstance(b, str) else self.constant(f"{b:.6g}", b),
                            name=f"{rows}.{name}")

        if kind == "relu":
            return self.add("Relu", rows, name=f"{rows}.relu")
        if kind == "silu":
            return times(rows, self.add("Sigmoid", rows, name=f"{rows}.sigmoid"), "silu")
        if kind == "gelu":
            inner = self.add("Div", rows, self.constant("sqrt_two", 2.0 ** 0.5),
                             name=f"{rows}.scaled")
            curve = self.add("Erf", inner, name=f"{rows}.erf")
        else:  # gelu_new, gelu_pytorch_tanh
            cube = self.add("Pow", rows, self.constant("three", 3.0), name=f"{rows}.cube")
            inner = self.add("Add", rows, times(cube, 0.044715, "part"), name=f"{rows}.sum")
            curve = self.add("Tanh", times(inner, (2.0 / np.pi) ** 0.5, "scaled"),
                             name=f"{rows}.tanh")
        share = self.add("Add", curve, "one", name=f"{rows}.share")
        return times(times(rows, share, "gated"), 0.5, "gelu")
