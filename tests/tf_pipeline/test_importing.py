"""A folder that transformers wrote (tests/data/write_transformers.py) becomes a run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export.options import ConvertOptions
from export.pipeline import build
from tests.conftest import ROOT, command, opinions, travels, write_conll, write_csv
from tests.data.write_transformers import LABELS, TEXTS
from tf_pipeline.config import ImportConfig
from tf_pipeline.errors import UserError
from tf_pipeline.importing import import_folder
from tf_pipeline.predictor import Predictor
from tf_pipeline.run import Run
from tf_pipeline.runner import run_all
from tf_pipeline.runtimes import keras as keras_runtime

FOLDER = ROOT / "tests/data/transformers_classify"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "theirs"))


@pytest.fixture
def change(folder: Path):
    """Change keys of the copied folder's config.json."""
    def change(**keys: object) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    return change


@pytest.mark.parametrize("task", LABELS)
def test_logits_are_those_of_transformers(task: str, tmp_path: Path,
                                          caplog: pytest.LogCaptureFixture) -> None:
    folder = FOLDER.with_name(f"transformers_{task}")
    run = import_folder(folder, ImportConfig(out=tmp_path / "run", max_len=64))
    encoded = run.encoder.encode(TEXTS)
    logits = run_all(keras_runtime.wrap(run.model), encoded)["logits"]
    with np.load(folder.with_suffix(".npz")) as loaded:
        theirs = loaded["logits"]
    if task == "tag":  # theirs has values on padding, which nothing reads
        theirs = theirs * (np.arange(64) < encoded.lengths[:, None])[..., None]
    np.testing.assert_allclose(logits, theirs, atol=1e-5)
    assert run.task.labels == tuple(LABELS[task])
    assert "pooler" not in caplog.text


@pytest.mark.slow
def test_a_tagger_is_imported_converted_and_answers(tmp_path: Path) -> None:
    folder = FOLDER.with_name("transformers_tag")
    data = write_conll(tmp_path / "travels.conll", travels(60))
    run = import_folder(folder, ImportConfig(out=tmp_path / "run", data=f"conll:{data}",
                                             max_len=64))
    assert run.info["own_answers"] is False
    assert 0 <= run.metrics["test"]["span_f1"] < 0.5  # random weights
    own = write_csv(tmp_path / "texts.csv", [{"text": row["text"]} for row in opinions(60)])
    run = import_folder(folder, ImportConfig(out=tmp_path / "own", data=f"csv:{own}", max_len=64))
    assert run.metrics["test"]["span_f1"] == 1.0
    build(run, ConvertOptions(out=tmp_path / "a", quantize="none"))
    expected = Predictor(tmp_path / "own")(TEXTS)
    for runtime in ("onnx", "tflite", "saved_model"):
        answers = Predictor(tmp_path / "a", runtime)(TEXTS)
        for answer, wanted in zip(answers, expected, strict=True):
            assert ([(s["label"], s["start"], s["end"]) for s in answer["spans"]]
                    == [(s["label"], s["start"], s["end"]) for s in wanted["spans"]])


def test_import_convert_verify_answer_by_command(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "texts.csv", [{"text": row["text"]} for row in opinions(60)])
    done = command("tf_pipeline", "import", FOLDER, "--out", tmp_path / "run", "--data",
                   f"csv:{data}", "--max-len", "64")
    assert done.returncode == 0, done.stderr
    assert "judged by its own answers on 48 texts" in done.stdout
    assert done.stdout.splitlines()[-1] == f"Wrote {tmp_path / 'run'}"
    done = command("export", "convert", tmp_path / "run", "--out", tmp_path / "artifact",
                   "--formats", "onnx", "--quantize", "none")
    assert done.returncode == 0, done.stderr
    assert command("export", "verify", tmp_path / "artifact").returncode == 0
    expected = Predictor(tmp_path / "run")(TEXTS)
    answers = Predictor(tmp_path / "artifact")(TEXTS)
    assert [a["label"] for a in answers] == [a["label"] for a in expected]


def test_labelled_data_gives_the_models_own_score(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "texts.csv", opinions(60))
    run = import_folder(FOLDER, ImportConfig(out=tmp_path / "run", data=f"csv:{data}", max_len=64))
    assert run.info["own_answers"] is False
    assert 0 < run.metrics["test"]["accuracy"] < 1  # random weights
    assert {r["label"] for r in run.evaluation("test")} == {"good", "bad"}


def test_without_data_generated_texts_are_judged(tmp_path: Path,
                                                 caplog: pytest.LogCaptureFixture) -> None:
    run = import_folder(FOLDER, ImportConfig(out=tmp_path / "run", max_len=64))
    assert "No --data" in caplog.text
    assert run.metrics["test"]["accuracy"] == 1.0
    manifest = build(Run.load(tmp_path / "run"), ConvertOptions(
        out=tmp_path / "a", formats=("tflite",), quantize="none"))
    assert manifest.graphs[0].parity["agreement"] == 1.0


def test_an_imported_run_is_a_backbone_too(tmp_path: Path) -> None:
    from tf_pipeline import checkpoints

    run = import_folder(FOLDER, ImportConfig(out=tmp_path / "run", max_len=64))
    assert checkpoints.load(str(run.path)).config == run.config


@pytest.mark.parametrize(("keys", "message"), [
    ({"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM; imported are BertForSequence.*"
                                             "train --backbone"),
    ({"architectures": None}, "no architecture"),
    ({"problem_type": "regression"}, "problem_type 'regression' with 3 labels"),
    ({"problem_type": "ranking"}, "problem_type 'ranking'; imported are 'single_label_class"),
    ({"id2label": {"0": "a", "2": "b"}}, "numbered from 0 without a gap"),
    ({"id2label": {"0": "a"}}, "config.json names 1 labels"),  # a regression, for transformers
    ({"id2label": {"0": "a"}, "problem_type": "single_label_classification"}, "2 or more labels"),
    ({"id2label": {"0": "a", "1": "a"}}, "gives 'a' to more than one id"),
    ({"id2label": {"0": "a", "1": "b"}}, r"shape \(3, 32\).*names 2 labels"),
])
def test_configs_that_do_not_fit_are_named(folder: Path, change, keys: dict[str, object],
                                           message: str, tmp_path: Path) -> None:
    change(**keys)
    with pytest.raises(UserError, match=message):
        import_folder(folder, ImportConfig(out=tmp_path / "run", max_len=64))
    assert not (tmp_path / "run").exists()


def test_folders_that_hold_no_model_are_named(folder: Path, tmp_path: Path) -> None:
    config = ImportConfig(out=tmp_path / "run", max_len=64)
    with pytest.raises(UserError, match="holds no config.json"):
        import_folder(tmp_path / "nowhere", config)
    with pytest.raises(UserError, match="config.json holds no config.json"):
        import_folder(folder / "config.json", config)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pytorch_model.bin.*safe_serialization"):
        import_folder(folder, config)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        import_folder(folder, config)


def test_an_encoder_without_its_head_is_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    for part in ("classifier", "bert.pooler"):
        kept = {k: v for k, v in weights.items() if not k.startswith(part)}
        save_file(kept, folder / "model.safetensors")
        name = "classifier.weight" if part == "classifier" else "pooler.dense.weight"
        with pytest.raises(UserError, match=f"has no {name}"):
            import_folder(folder, ImportConfig(out=tmp_path / "run", max_len=64))


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--max-len is 128; allowed: 3 to 64"):
        import_folder(FOLDER, ImportConfig(out=tmp_path / "run"))
    with pytest.raises(UserError, match="--out is missing"):
        import_folder(FOLDER, ImportConfig())
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="exists and is not a run"):
        import_folder(FOLDER, ImportConfig(out=tmp_path / "run", max_len=64))
    few = write_csv(tmp_path / "few.csv", opinions(3))
    with pytest.raises(UserError, match="has 3 texts; at least 10"):
        import_folder(FOLDER, ImportConfig(out=tmp_path / "new", data=f"csv:{few}", max_len=64))
