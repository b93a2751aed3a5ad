"""Outlier channels move into the weights: equal float answers, nearer int8 ones."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from export import outliers
from tf_pipeline.text import Arrays


def answers(model: onnx.ModelProto, inputs: Arrays) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.fixture
def peaked() -> tuple[onnx.ModelProto, Arrays]:
    """Two products of one activation with a channel ten times the others, summed."""
    random = np.random.default_rng(0)
    weights = [random.normal(size=(32, 8)).astype(np.float32) for _ in range(2)]
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Cast", ["table"], ["x"], to=onnx.TensorProto.FLOAT),
         helper.make_node("MatMul", ["x", "a"], ["left"]),
         helper.make_node("MatMul", ["x", "b"], ["right"]),
         helper.make_node("Add", ["left", "right"], ["y"])], "peaked",
        [helper.make_tensor_value_info("table", onnx.TensorProto.INT64, ["n", 32])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 8])],
        [onnx.numpy_helper.from_array(w, name) for name, w in zip("ab", weights, strict=True)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    values = random.integers(-9, 10, size=(4, 32))
    values[:, 5] *= 10
    return model, {"table": values}


def test_float_answers_stay(peaked: tuple[onnx.ModelProto, Arrays]) -> None:
    model, inputs = peaked
    evened = outliers.move_to_weights(model, outliers.largest_values(model, [inputs]), 2.0)
    onnx.checker.check_model(evened)
    assert [n.op_type for n in evened.graph.node].count("Mul") == 1  # both products share it
    np.testing.assert_allclose(answers(evened, inputs), answers(model, inputs), rtol=1e-5,
                               atol=1e-3)


def test_int8_answers_come_nearer(peaked: tuple[onnx.ModelProto, Arrays], tmp_path: Path) -> None:
    model, inputs = peaked
    inputs = {"table": inputs["table"].copy()}
    inputs["table"][0, 5] = 5  # a row without the outlier, beside rows with it
    errors = []
    evened = outliers.move_to_weights(model, outliers.largest_values(model, [inputs]), 2.0)
    for name, source in (("plain", model), ("evened", evened)):
        target = tmp_path / f"{name}.onnx"
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8, per_channel=True)
        errors.append(np.abs(answers(onnx.load(target), inputs) - answers(model, inputs))[0].max())
    assert errors[1] < errors[0] / 2
