"""Converters that lie: doubles of ours around the real ones. Nothing of theirs is published."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import cli, gate, pipeline
from export.formats import onnx as onnx_format
from export.formats import tflite as tflite_format
from export.options import ConvertOptions
from export.twin import Twin
from tests.conftest import ROOT, command
from tf_pipeline.artifact import Manifest
from tf_pipeline.errors import ParityError, UserError
from tf_pipeline.predictor import Predictor
from tf_pipeline.run import Run


def wrong_bias(twin: Twin, staging: Path, options: ConvertOptions) -> Iterator[Any]:
    """Write the real file of a model whose last bias was changed: wrong numbers, whole file."""
    layer = twin.run.model.get_layer("logits")
    kernel, bias = layer.get_weights()
    try:
        layer.set_weights([kernel, bias + np.array([30.0, 0.0], np.float32)])
        yield from list(onnx_format_convert(twin, staging, options))
    finally:
        layer.set_weights([kernel, bias])


onnx_format_convert = onnx_format.convert


def test_wrong_numbers_are_named_and_nothing_is_published(
        run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(onnx_format, "convert", wrong_bias)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    out = tmp_path / "artifacts" / "toy"
    code = cli.main(["convert", str(run_folder), "--out", str(out), "--formats", "onnx"])
    assert code == 3
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"  # TF32 is not float32
    line = capsys.readouterr().err.splitlines()[-1]
    assert "onnx/model.onnx: largest difference of logits 3.00e+01 exceeds 1e-04" in line
    assert "worst example: row " in line
    assert "decisions differ" in line
    assert "Nothing was published" in line
    assert [p.name for p in out.parent.iterdir()] == ["toy.parity.json"]
    report = json.loads((out.parent / "toy.parity.json").read_text())
    assert report["files"]["onnx/model.onnx"]["worst"]["record"]["text"]


def test_drop_failed_publishes_the_rest(run_folder: Path, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_format, "convert", wrong_bias)
    manifest = pipeline.build(Run.load(run_folder), ConvertOptions(
        out=tmp_path / "a", formats=("tflite", "onnx"), drop_failed=True))
    assert {g.runtime for g in manifest.graphs} == {"tflite"}
    assert {r["path"] for r in manifest.refused} == {"onnx/model.onnx",
                                                     "onnx/model_quantized.onnx"}
    assert not (tmp_path / "a/onnx/model.onnx").exists()
    with pytest.raises(UserError, match="Refused at export: onnx/model.onnx"):
        Predictor(tmp_path / "a", "onnx")


def test_accept_drift_publishes_and_says_so_each_time(
        run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(onnx_format, "convert", wrong_bias)
    pipeline.build(Run.load(run_folder), ConvertOptions(
        out=tmp_path / "a", formats=("onnx",), accept_drift=True))
    assert Manifest.load(tmp_path / "a").drift
    Predictor(tmp_path / "a")
    assert "--accept-drift" in caplog.text
    done = command("export", "verify", tmp_path / "a")
    assert "DRIFT" in done.stdout + done.stderr or "same answers" in done.stdout
    assert "--accept-drift" in done.stderr


def test_only_failures_and_drop_failed_still_publishes_nothing(
        run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_format, "convert", wrong_bias)
    with pytest.raises(ParityError, match="Nothing was published"):
        pipeline.build(Run.load(run_folder), ConvertOptions(
            out=tmp_path / "a", formats=("onnx",), drop_failed=True))
    assert not (tmp_path / "a").exists()


# The traps: each writes a file that TensorFlow's converter is content with.

def _nan(twin: Twin, length: int, folder: Path) -> None:
    """A twin with a weight that is NaN."""
    layer = twin.run.model.get_layer("logits")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, bias * np.nan])
    try:
        real_save(twin, length, folder)
    finally:
        layer.set_weights([kernel, bias])


def _unfrozen(twin: Twin, length: int, folder: Path) -> None:
    """Keras variables left as variables: READ_VARIABLE without anything that sets them."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = twin.model.variables
    module.serve = tf.function(twin.function(("probabilities",)),
                               input_signature=twin.specs(1, length, "int32"))
    tf.saved_model.save(module, str(folder),
                        signatures={"serving_default": module.serve.get_concrete_function()})


real_save = tflite_format._save_frozen


@pytest.mark.parametrize(("save", "reason"), [
    (_nan, "hold NaN or infinity"),
    (_unfrozen, "too few to hold.*READ_VARIABLE at .* reads a variable that nothing initializes"),
])
def test_traps_of_tflite_are_refused(save: Callable[..., None], reason: str, run_folder: Path,
                                     tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_format, "_save_frozen", save)
    with pytest.raises(ParityError, match=reason):
        pipeline.build(Run.load(run_folder), ConvertOptions(
            out=tmp_path / "a", formats=("tflite",), quantize="none"))
    assert not (tmp_path / "a").exists()


@pytest.fixture(scope="module")
def nameless() -> bytes:
    """A sound file with 64 KB of weights, converted the short way, and so without a signature."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = tf.Variable(np.ones((128, 128), np.float32))
    function = tf.function(lambda x: {"y": tf.matmul(x, module.weights)},
                           input_signature=[tf.TensorSpec((1, 128), name="x")])
    return tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], module).convert()


def _faults(content: bytes, folder: Path, least: int = 0) -> list[str]:
    (folder / "m.tflite").write_bytes(content)
    return gate.tflite_faults(folder / "m.tflite", "float32", least)


def test_a_file_without_signature_is_a_fault(nameless: bytes, tmp_path: Path) -> None:
    from tf_pipeline.runtimes import tflite

    faults = _faults(_without_signature(nameless), tmp_path)
    assert faults == ["the file has no signature, so its inputs have no names"]
    with pytest.raises(UserError, match="no signature 'serving_default'"):
        tflite.load(tmp_path / "m.tflite")


def _without_signature(content: bytes) -> bytes:
    """Newer converters write one all the same; take it out, as older ones leave it."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    model.signatureDefs = []
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_an_empty_file_is_a_fault(nameless: bytes, tmp_path: Path) -> None:
    assert any("too few to hold the weights" in f
               for f in _faults(nameless, tmp_path, 10_000_000))
    assert not any("too few" in f for f in _faults(nameless, tmp_path, 4 * 128 * 128))


def test_a_flex_operation_is_named_with_its_layer(tmp_path: Path) -> None:
    import tensorflow as tf

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 8), name="x")])
        def __call__(self, x: Any) -> dict[str, Any]:
            with tf.name_scope("my_layer"):
                return {"y": tf.strings.to_number(tf.strings.as_string(x))}

    model = Model()
    tf.saved_model.save(model, str(tmp_path / "s"), signatures={
        "serving_default": model.__call__.get_concrete_function()})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "s"))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS,
                                           tf.lite.OpsSet.SELECT_TF_OPS]
    faults = _faults(converter.convert(), tmp_path)
    assert any("FlexAsString at my_layer/AsString" in f and "100 MB" in f for f in faults), faults


@pytest.mark.parametrize("file", ["onnx/model.onnx", "model_L96_int8.tflite", "tokenizer.json"])
def test_a_flipped_byte_is_found(file: str, artifact: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a"
    shutil.copytree(artifact, copy)
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    done = command("export", "verify", copy)
    assert done.returncode == 2
    assert f"{file} has sha256" in done.stderr.splitlines()[-1]
    runtime = "tflite" if file.endswith("tflite") else "onnx"
    variant = "int8" if "int8" in file else None
    with pytest.raises(UserError, match="has sha256"):
        Predictor(copy, runtime, variant)


def test_an_artifact_of_a_newer_version_is_refused(artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(artifact, tmp_path / "a")
    path = tmp_path / "a" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(UserError, match="newer version of this kit .schema 99"):
        Manifest.load(tmp_path / "a")


@pytest.mark.slow
def test_kill_during_convert_publishes_nothing(run_folder: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "export", "convert", str(run_folder), "--out", str(tmp_path / "a")],
        cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list(tmp_path.glob(".a.partial-*/saved_model")):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "a").exists()
    left = list(tmp_path.glob(".a.partial-*"))
    assert left
    done = command("export", "convert", run_folder, "--out", tmp_path / "a", "--formats", "onnx")
    assert done.returncode == 0, done.stderr
    assert f"Found {left[0]}: a conversion was cut off there" in done.stderr
    assert Manifest.load(tmp_path / "a").name == "a"


def test_inspect_and_verify_answer(artifact: Path) -> None:
    done = command("export", "inspect", artifact, "--json")
    assert json.loads(done.stdout)["labels"] == ["bad", "good"]
    done = command("export", "verify", artifact)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("same answers on 64 golden rows") == 5
    assert command("export", "inspect", artifact / "onnx").returncode == 2
