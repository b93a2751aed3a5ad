"""The int8 ONNX file: recipes are tried, the nearest is taken, the manifest says why."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export import quantization
from export.formats import onnx as onnx_format
from export.quantization import Recipe
from export.twin import Twin
from tf_pipeline.artifact import Manifest
from tf_pipeline.run import Run
from tf_pipeline.text import Arrays


class Turned(Recipe):
    """Turns the encoder's values round, so that answers do too."""

    def write(self, model: onnx.ModelProto, largest: Arrays, target: Path) -> None:
        wrong = onnx.ModelProto()
        wrong.CopyFrom(model)
        for tensor in wrong.graph.initializer:
            if tensor.name.startswith("encoder.layer.1.output.LayerNorm."):
                tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor),
                                                        tensor.name))
        super().write(wrong, largest, target)


@pytest.fixture(scope="module")
def twin(run_folder: Path) -> Twin:
    return Twin(Run.load(run_folder))


@pytest.fixture(scope="module")
def model(twin: Twin) -> onnx.ModelProto:
    return onnx_format.whole(twin, ("logits",))


def kernels(path: Path) -> list[np.ndarray]:
    return [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer
            if t.name.endswith("kernel_quantized")]


def test_the_nearest_of_the_fast_recipes_is_taken(twin: Twin, model: onnx.ModelProto,
                                                  tmp_path: Path) -> None:
    tried = quantization.quantize(twin, model, tmp_path / "a.onnx")
    assert [(c["weights"], c["outliers"]) for c in tried] == [
        (r.weights, r.outliers) for r in quantization.FAST]
    (taken,) = [c for c in tried if c["taken"]]
    assert taken["error"] == min(c["error"] for c in tried) > 0
    assert taken["bytes"] == (tmp_path / "a.onnx").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    # 7 bits: a pair of products fits into 16 bits on every CPU.
    found = kernels(tmp_path / "a.onnx")
    assert len(found) >= 6 * twin.run.config.num_hidden_layers
    assert {k.dtype for k in found} == {np.dtype(np.int8)}
    assert max(np.abs(k.astype(int)).max() for k in found) <= 64


def test_exact_weights_take_over_where_fast_ones_lose_too_much(
        twin: Twin, model: onnx.ModelProto, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "FAST", (Turned("int7", 1.0),))
    fast, *exact = quantization.quantize(twin, model, tmp_path / "a.onnx")
    assert fast["agreement"] < 0.99
    assert [c["weights"] for c in exact] == ["uint8"] * 3
    (taken,) = [c for c in exact if c["taken"]]
    assert taken["agreement"] > fast["agreement"]
    assert {k.dtype for k in kernels(tmp_path / "a.onnx")} == {np.dtype(np.uint8)}


def test_the_manifest_lists_what_was_tried(toy_artifact: Callable[[str], Path]) -> None:
    for task in ("classify", "tag"):
        folder = toy_artifact(task)
        graph = Manifest.load(folder).choose("onnx", "int8")
        (taken,) = [c for c in graph.candidates if c["taken"]]
        assert taken["bytes"] == graph.bytes == (folder / graph.path).stat().st_size
        assert all(c["milliseconds"] > 0 and 0 <= c["metric"] <= 1 for c in graph.candidates)
