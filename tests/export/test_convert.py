"""A run to an artifact, through the public calls: what is published, and that it agrees."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export import formats, pipeline
from export.options import ConvertOptions
from tests.conftest import ROOT, command, opinions, write_csv
from tf_pipeline import plugins, tasks
from tf_pipeline.artifact import Manifest
from tf_pipeline.config import TrainConfig
from tf_pipeline.errors import ParityError, UserError
from tf_pipeline.predictor import Predictor
from tf_pipeline.run import Run
from tf_pipeline.tasks import classify
from tf_pipeline.text import INPUTS
from tf_pipeline.training import fit

# What people type and paste, and what they do not mean to.
TEXTS = ["the room was lovely", "", "   ", "\t\n", "😀 👍🏽 wonderful", "كان الفندق رائعا", "a",
         "naïve café", "x" * 10_000, "word " * 2_000, "[MASK] awful [SEP]", "Ünïcödé ÇÉ",
         "1234567890 $%&/()="]


@pytest.mark.parametrize(("name", "task"), [
    pytest.param(name, task, marks=[pytest.mark.slow] * (task == "mlm"))  # compares all masks
    for name in plugins.names(formats) for task in plugins.names(tasks)])
def test_every_format_of_every_task_agrees_with_keras(
        task: str, name: str, toy_artifact: Callable[[str], Path],
        toy_weights: Callable[[str], Path]) -> None:
    folder = (toy_weights if name in ("safetensors", "keras") else toy_artifact)(task)
    graphs = [g for g in Manifest.load(folder).graphs if g.runtime == name]
    assert {g.variant for g in graphs} >= {"float32"}
    for graph in graphs:
        assert graph.parity["ok"]
        assert graph.parity["agreement"] >= (1.0 if graph.variant == "float32" else 0.99)
        assert graph.parity["metric_after"] > (-0.8 if task == "mlm" else 0.9)
        assert graph.latency_ms is not None
        assert graph.latency_ms > 0


def test_mean_pooling_is_exported_and_leaves_padding_out(opinions_csv: Path,
                                                         tmp_path: Path) -> None:
    fit(TrainConfig(task="classify", train=f"csv:{opinions_csv}", out=tmp_path / "run",
                    backbone="tiny", max_len=96, epochs=4, batch_size=16, learning_rate=5e-3),
        classify.Options(pooling="mean"))
    pipeline.build(Run.load(tmp_path / "run"), ConvertOptions(out=tmp_path / "artifact"))
    graphs = Manifest.load(tmp_path / "artifact").graphs
    assert len(graphs) == 5
    assert all(g.parity["ok"] and g.parity["metric_after"] > 0.9 for g in graphs)
    onnx = Predictor(tmp_path / "artifact")
    ids = onnx.encode([{"text": "the garden was lovely"}])
    short, long = (onnx.run(ids.padded([0], length))["logits"] for length in (32, 96))
    np.testing.assert_allclose(short, long, atol=1e-6)
    empty = {name: np.zeros((1, 8), np.int32) for name in INPUTS}
    assert np.isfinite(onnx.run(empty)["logits"]).all()


def test_artifact_holds_what_the_contract_names(artifact: Path) -> None:
    manifest = Manifest.load(artifact)
    assert {g.path for g in manifest.graphs} == {
        "saved_model/1", "model_L96.tflite", "model_L96_int8.tflite", "onnx/model.onnx",
        "onnx/model_quantized.onnx"}
    there = {p.relative_to(artifact).as_posix() for p in artifact.rglob("*") if p.is_file()}
    assert there == {*manifest.files, "manifest.json"}
    assert there >= {"tokenizer.json", "vocab.txt", "labels.txt", "config.json", "README.md",
                     "tokenizer_config.json", "golden.npz"}
    assert (artifact / "labels.txt").read_text() == "bad\ngood\n"
    config = json.loads((artifact / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert manifest.signatures["serving_default"]["inputs"]["text"]["dtype"] == "DT_STRING"
    assert set(manifest.signatures["tokens"]["outputs"]) == {"logits", "probabilities"}
    assert "| onnx/model.onnx" in (artifact / "README.md").read_text()


@pytest.mark.slow
def test_mean_pooling_has_no_class_in_transformers(opinions_csv: Path, tmp_path: Path) -> None:
    fit(TrainConfig(task="classify", train=f"csv:{opinions_csv}", out=tmp_path / "run",
                    backbone="tiny", max_len=32, epochs=1), classify.Options(pooling="mean"))
    with pytest.raises(ParityError, match="reads the pooler, and this model was trained with "
                                          "--pooling mean"):
        pipeline.build(Run.load(tmp_path / "run"), ConvertOptions(
            out=tmp_path / "artifact", formats=("safetensors",)))
    assert not (tmp_path / "artifact").exists()


def test_inputs_and_outputs_have_the_contract_names(artifact: Path) -> None:
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    session = onnxruntime.InferenceSession(artifact / "onnx" / "model.onnx")
    inputs = {i.name: (i.type, i.shape) for i in session.get_inputs()}
    shape = ["batch_size", "sequence_length"]
    assert inputs == {name: ("tensor(int64)", shape)
                      for name in ("input_ids", "attention_mask", "token_type_ids")}
    assert [o.name for o in session.get_outputs()] == ["logits"]
    runner = Interpreter(str(artifact / "model_L96_int8.tflite")).get_signature_runner(
        "serving_default")
    details = runner.get_input_details()
    assert {name: (tuple(d["shape"]), d["dtype"]) for name, d in details.items()} == {
        name: ((1, 96), np.int32) for name in ("input_ids", "attention_mask", "token_type_ids")}
    assert list(runner.get_output_details()) == ["probabilities"]


def test_weights_are_stored_once(artifact: Path, run_folder: Path) -> None:
    weights = 4 * Run.load(run_folder).model.count_params()
    variables = sum(p.stat().st_size for p in (artifact / "saved_model/1/variables").iterdir())
    assert variables < 1.06 * weights  # 1.001 for MiniLM; the tables of names weigh more here


@pytest.mark.parametrize(("runtime", "variant"), [
    ("onnx", "float32"), ("onnx", "int8"), ("tflite", "float32"), ("tflite", "int8"),
    ("saved_model", "float32")])
def test_all_kinds_of_text_get_the_answer_of_keras(runtime: str, variant: str, artifact: Path,
                                                   run_folder: Path) -> None:
    expected = Predictor(run_folder)(TEXTS)
    actual = Predictor(artifact, runtime, variant)(TEXTS)
    # int8 moves the scores of texts that are like nothing in the training data the most.
    tolerance = 1e-5 if variant == "float32" else 0.2
    for text, one, other in zip(TEXTS, expected, actual, strict=True):
        assert abs(one["scores"]["good"] - other["scores"]["good"]) <= tolerance, text[:40]
        if abs(one["score"] - 0.5) > tolerance:
            assert one["label"] == other["label"], text[:40]


def test_text_signature_answers_strings(artifact: Path, run_folder: Path) -> None:
    from tf_pipeline.runtimes import saved_model

    answer = saved_model.text_runner(saved_model.open_folder(artifact / "saved_model/1"))
    texts = [t for t in TEXTS if "[MASK]" not in t]  # only there the ids differ, as documented
    outputs = answer(text=texts)
    expected = Predictor(run_folder)(texts)
    labels = [label.decode() for label in outputs["label"]]
    assert labels == [a["label"] for a in expected]
    scores = outputs["probabilities"].max(-1)
    assert scores == pytest.approx([a["score"] for a in expected], abs=1e-5)


@pytest.mark.slow
def test_a_copied_run_converts_without_its_data(tmp_path: Path) -> None:
    from tf_pipeline.config import TrainConfig
    from tf_pipeline.training import fit

    csv = write_csv(tmp_path / "data.csv", opinions(400))
    fit(TrainConfig(task="classify", train=f"csv:{csv}", out=tmp_path / "run", backbone="tiny",
                    epochs=1, max_len=64))
    csv.unlink()
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    # The call for Python users: a process of its own, here with an empty cache and no index.
    manifest = pipeline.convert(tmp_path / "elsewhere", tmp_path / "artifact",
                                ConvertOptions(formats=("onnx",), golden_text=False))
    assert [g.path for g in manifest.graphs] == ["onnx/model.onnx", "onnx/model_quantized.onnx"]
    with np.load(tmp_path / "artifact" / "golden.npz") as golden:
        records = [json.loads(r) for r in golden["records"]]
    assert len(records) == 64
    assert all("label" not in r and "was" not in r["text"] for r in records)
    assert "no real text" in (tmp_path / "artifact" / "README.md").read_text()
    assert command("export", "verify", tmp_path / "artifact").returncode == 0


def test_tokens_signature_needs_core_operations_only(run_folder: Path, tmp_path: Path) -> None:
    manifest = pipeline.build(Run.load(run_folder), ConvertOptions(
        out=tmp_path / "a", formats=("saved_model",), signatures="tokens", version=7,
        lengths=(32,)))
    assert [g.path for g in manifest.graphs] == ["saved_model/7"]
    assert manifest.graphs[0].required_ops == ()
    assert "input_ids" in manifest.signatures["serving_default"]["inputs"]
    text = "import sys, tensorflow as tf; tf.saved_model.load(sys.argv[1]).signatures['tokens']"
    import subprocess
    import sys

    # In a process that never imports tensorflow_text.
    done = subprocess.run([sys.executable, "-c", text, str(tmp_path / "a/saved_model/7")],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("words", "named"), [
    (["--formats", "onnx,coreml"], ["coreml", "onnx", "tflite"]),
    (["--lengths", "9999"], ["9999", "512"]),
    (["--lengths", "1"], ["1"]),
    (["--version", "0"], ["0"]),
    (["--drop-failed", "--accept-drift"], ["--drop-failed", "--accept-drift"]),
])
def test_wrong_options_are_one_line(words: list[str], named: list[str], run_folder: Path,
                                    tmp_path: Path) -> None:
    done = command("export", "convert", run_folder, "--out", tmp_path / "a", *words)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert all(word in last for word in named), last
    assert not list(tmp_path.iterdir())


def test_existing_targets_are_refused(run_folder: Path, artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="already holds an artifact"):
        pipeline.build(Run.load(run_folder), ConvertOptions(out=artifact))
    with pytest.raises(UserError, match="already holds an artifact"):
        pipeline.convert(run_folder, artifact)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="exists. Choose another"):
        pipeline.build(Run.load(run_folder), ConvertOptions(out=tmp_path / "empty"))
    with pytest.raises(UserError, match="--out is missing"):
        pipeline.build(Run.load(run_folder), ConvertOptions())


def test_artifact_questions_that_cannot_be_answered(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no graph with runtime tflite, length 999.*L|length 96"):
        Predictor(artifact, "tflite", length=999)
    with pytest.raises(UserError, match="no graph with runtime coreml. It has: saved_model"):
        Predictor(artifact, "coreml")
    with pytest.raises(UserError, match="is not a finished artifact"):
        Predictor(tmp_path)


def test_tokens_only_saved_model_needs_no_tensorflow_text(run_folder: Path, tmp_path: Path) -> None:
    manifest = pipeline.build(Run.load(run_folder), ConvertOptions(
        out=tmp_path / "a", formats=("saved_model",), signatures="tokens"))
    assert set(manifest.signatures) == {"tokens", "serving_default"}
    assert set(manifest.signatures["serving_default"]["inputs"]) == {
        "input_ids", "attention_mask", "token_type_ids"}
    code = ("import sys, tensorflow as tf\n"
            f"loaded = tf.saved_model.load({str(tmp_path / 'a/saved_model/1')!r})\n"
            "row = tf.constant([[2, 5, 3]])\n"
            "loaded.signatures['tokens'](input_ids=row, attention_mask=row, token_type_ids=row * 0)"
            "\nassert 'tensorflow_text' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert Predictor(tmp_path / "a")(["the room was lovely"])[0]["label"] == "good"


def test_full_disk_is_one_line_and_nothing_is_published(run_folder: Path, tmp_path: Path) -> None:
    def limit() -> None:  # writes fail half-way, as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [sys.executable, "-m", "export", "convert", str(run_folder), "--out",
         str(tmp_path / "artifacts" / "a")], cwd=ROOT, capture_output=True, text=True, check=False,
        preexec_fn=limit)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "disk is full" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "artifacts").iterdir())


@pytest.mark.slow
def test_the_real_checkpoint_keeps_its_answers_and_sizes(opinions_csv: Path,
                                                         tmp_path: Path) -> None:
    config = TrainConfig(task="classify", train=f"csv:{opinions_csv}", out=tmp_path / "run",
                         max_len=32, epochs=1, learning_rate=1e-4)
    run = fit(config)
    weights = 4 * run.model.count_params()
    manifest = pipeline.build(run, ConvertOptions(out=tmp_path / "a", formats=("tflite", "onnx")))
    shares = {g.path: g.bytes / weights for g in manifest.graphs}
    assert max(shares["model_L32.tflite"], shares["onnx/model.onnx"]) < 1.02
    assert max(shares["model_L32_int8.tflite"], shares["onnx/model_quantized.onnx"]) < 0.27
    texts = [t for t in TEXTS if len(t) < 100]
    expected = Predictor(tmp_path / "run")(texts)
    for graph in manifest.graphs:
        if graph.variant == "float32":
            answers = Predictor(tmp_path / "a", graph.runtime, "float32")(texts)
            assert [a["label"] for a in answers] == [a["label"] for a in expected]
            for answer, wanted in zip(answers, expected, strict=True):
                assert answer["score"] == pytest.approx(wanted["score"], abs=1e-4)


@pytest.mark.parametrize("task", ["classify", *(
    pytest.param(task, marks=pytest.mark.slow) for task in ("tag", "embed", "mlm"))])
def test_float16_files_are_half_as_large_and_nearly_exact(
        task: str, toy_run: Callable[[str], Path], tmp_path: Path) -> None:
    manifest = pipeline.build(Run.load(toy_run(task)), ConvertOptions(
        out=tmp_path / "a", formats=("onnx", "tflite"), quantize="float16"))
    graphs = {g.path: g for g in manifest.graphs}
    length = manifest.choose("tflite").length
    for whole, half in (("onnx/model.onnx", "onnx/model_fp16.onnx"),
                        (f"model_L{length}.tflite", f"model_L{length}_float16.tflite")):
        assert graphs[half].variant == "float16"
        assert graphs[half].bytes < 0.75 * graphs[whole].bytes  # a toy is structure for the most
        assert 0 < max(graphs[half].parity["differences"].values()) < 0.1
    assert set(graphs) == {g.path for g in manifest.graphs if g.variant in ("float32", "float16")}
