"""TFLite files of several lengths: each text goes to the shortest that holds it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export import ConvertOptions
from export.pipeline import build
from tf_pipeline import Predictor, Run
from tf_pipeline.errors import UserError
from tf_pipeline.runner import Runner, by_length
from tf_pipeline.text import Arrays

LENGTHS = (8, 16, 32)


def named(length: int) -> Runner:
    """Give the length of what answers, for the text and for each token."""
    def run(inputs: Arrays) -> Arrays:
        assert {values.shape for values in inputs.values()} == {(1, length)}
        return {"text": np.full((1, 2), length), "tokens": np.full((1, length, 3), length)}

    return run


def test_the_row_alone_decides() -> None:
    mask = np.zeros((5, 32), np.int32)
    mask[0, :8] = mask[1, :9] = mask[2, :] = 1
    mask[3, [0, 15]] = 1  # holes, as a client may send; row 4 has no token
    found = by_length({length: named(length) for length in LENGTHS})(
        {"input_ids": mask, "attention_mask": mask})
    assert found["text"].tolist() == [[8, 8], [16, 16], [32, 32], [16, 16], [32, 32]]
    assert found["tokens"].shape == (5, 32, 3)
    assert [int((row != 0).all(1).sum()) for row in found["tokens"]] == [8, 16, 32, 16, 32]


@pytest.mark.parametrize("task", ["classify", "tag"])
def test_answers_are_those_of_the_file(task: str, toy_run: Callable[[str], Path],
                                       tmp_path: Path) -> None:
    manifest = build(Run.load(toy_run(task)), ConvertOptions(
        out=tmp_path / "a", formats=("tflite",), quantize="none", lengths=LENGTHS))
    assert [graph.length for graph in manifest.graphs] == list(LENGTHS)
    predictor = Predictor(tmp_path / "a")
    assert predictor.name.endswith("model_L32.tflite (tflite float32; shorter texts: length 8, 16)")
    texts = [{"text": "a! " * count} for count in range(1, 15)]
    encoded = predictor.encode(texts)
    outputs = predictor.outputs(encoded)
    needed = [next(n for n in LENGTHS if n >= tokens) for tokens in encoded.lengths]
    assert set(needed) == set(LENGTHS)
    for length in LENGTHS:
        rows = [i for i, n in enumerate(needed) if n == length]
        alone = Predictor(tmp_path / "a", length=length)
        assert alone.name.endswith(f"model_L{length}.tflite (tflite float32)")
        for name, values in alone.outputs(alone.encode([texts[i] for i in rows])).items():
            wide = outputs[name][rows]
            assert np.array_equal(wide[:, :values.shape[1]], values)
            assert not wide[:, values.shape[1]:].any()


def test_a_damaged_shorter_file_is_named(toy_run: Callable[[str], Path], tmp_path: Path) -> None:
    build(Run.load(toy_run("classify")), ConvertOptions(
        out=tmp_path / "a", formats=("tflite",), quantize="none", lengths=LENGTHS))
    with (tmp_path / "a/model_L8.tflite").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(UserError, match=r"model_L8\.tflite"):
        Predictor(tmp_path / "a")
    assert Predictor(tmp_path / "a", length=32)(["a joy"])
