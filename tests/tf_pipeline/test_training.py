"""Training through the public call, and through the command in a second process."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from export.twin import Twin
from tests.conftest import ROOT, command, opinions, routes, travels, write_conll, write_csv
from tf_pipeline import callbacks, cli, run
from tf_pipeline.config import TrainConfig
from tf_pipeline.errors import UserError
from tf_pipeline.run import Run
from tf_pipeline.training import fit

FILES = {"run.json", "backbone.json", "tokenizer.json", "labels.json", "model.weights.h5",
         "evaluation.jsonl", "metrics.json", "confusion.png", "logs"}


def config(csv: Path, out: Path, **changes: object) -> TrainConfig:
    usual = {"task": "classify", "train": f"csv:{csv}", "out": out, "backbone": "tiny",
             "epochs": 1, "max_len": 64}
    return TrainConfig(**{**usual, **changes})


def test_run_folder_is_complete_and_describes_itself(run_folder: Path) -> None:
    assert {p.name for p in run_folder.iterdir()} == FILES
    run = Run.load(run_folder)
    assert run.info["metric"] == "accuracy"
    assert run.metrics["test"]["accuracy"] > 0.9  # the toy data can be learned, and was
    assert run.info["data"]["train"]["rows"] > 700
    assert list(run.task.labels) == ["bad", "good"]
    rows = [json.loads(line) for line in (run_folder / "evaluation.jsonl").open(encoding="utf-8")]
    assert {row["split"] for row in rows} == {"test", "validation"}
    assert set(run.metrics["test"]["table"]) >= {"bad", "good", "macro avg"}
    assert (run_folder / "confusion.png").read_bytes()[:4] == b"\x89PNG"


def test_weights_file_holds_no_optimizer_slots(run_folder: Path) -> None:
    count = Run.load(run_folder).model.count_params()
    # The tiny model's file is mostly HDF5's own tables; two AdamW slots would triple the numbers.
    import h5py

    with h5py.File(run_folder / "model.weights.h5") as stored:
        sizes: list[int] = []
        stored.visititems(lambda _, item: sizes.append(item.size)
                          if isinstance(item, h5py.Dataset) else None)
    assert sum(sizes) == count


def test_learning_rate_and_scores_reach_tensorboard(run_folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_folder / "logs"))
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"train/loss", "train/learning_rate", "validation/accuracy"} <= tags


@pytest.mark.slow
def test_same_seed_gives_the_same_weights_in_two_processes(opinions_csv: Path,
                                                           tmp_path: Path) -> None:
    small = write_csv(tmp_path / "small.csv", opinions(300))
    weights = []
    for name in ("a", "b"):
        done = command("tf_pipeline", "train", "--task", "classify", "--train", f"csv:{small}",
                       "--backbone", "tiny", "--epochs", "1", "--max-len", "64", "--out",
                       tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert str(tmp_path / name) in done.stdout.splitlines()[-1]
        assert "Training on CPU" in done.stderr
        assert "float32" in done.stderr
        weights.append((tmp_path / name / "model.weights.h5").read_bytes())
    a, b = (Run.load(tmp_path / name).model.get_weights() for name in "ab")
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_warmup_then_linear_decay() -> None:
    from tf_pipeline.schedule import WarmupAndDecay

    rate = WarmupAndDecay(1.0, 10, 110)
    values = [float(rate(step)) for step in (0, 4, 9, 10, 60, 109)]
    assert values == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5, 0.01], abs=1e-6)


def test_class_weights_count_rare_labels_more(opinions_csv: Path) -> None:
    from tf_pipeline.tasks import classify

    task = classify.Task(("a", "b"), classify.Options(class_weights="balanced"))
    weights = task.weights({"logits": np.array([0, 0, 0, 1])})
    assert weights.tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])


def test_a_run_is_a_backbone(run_folder: Path, opinions_csv: Path, tmp_path: Path) -> None:
    from tf_pipeline import checkpoints

    checkpoint = checkpoints.load(str(run_folder))
    trained = Run.load(run_folder).backbone
    again = checkpoint.build()
    for x, y in zip(trained.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(("changes", "words"), [
    ({"task": "clasify"}, ["clasify", "classify"]),
    ({"backbone": "nowhere"}, ["nowhere", "minilm", "tiny"]),
    ({"train": "excel:x.xls"}, ["excel", "csv", "tfds"]),
    ({"max_len": 600}, ["600", "512"]),
    ({"batch_size": 5000}, ["5000", "--batch-size"]),
    ({"out": None}, ["--out"]),
])
def test_wrong_settings_are_named(changes: dict, words: list[str], opinions_csv: Path,
                                  tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        fit(config(opinions_csv, **{"out": tmp_path / "run", **changes}))
    assert all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / "run").exists()


def test_one_label_is_refused(tmp_path: Path) -> None:
    rows = [{**row, "label": "good"} for row in opinions(100)]
    with pytest.raises(UserError, match="'good'.*at least two"):
        fit(config(write_csv(tmp_path / "one.csv", rows), tmp_path / "run"))


def test_label_that_training_never_saw_is_named(opinions_csv: Path, tmp_path: Path) -> None:
    strange = write_csv(tmp_path / "test.csv", [*opinions(20), {"text": "so so", "label": "fair"}])
    with pytest.raises(UserError, match="'fair'.*Known: 'bad', 'good'"):
        fit(config(opinions_csv, tmp_path / "run", test=f"csv:{strange}"))


def test_data_without_labels_is_refused(tmp_path: Path) -> None:
    rows = [{"text": row["text"]} for row in opinions(50)]
    with pytest.raises(UserError, match="needs the fields text, label"):
        fit(config(write_csv(tmp_path / "bare.csv", rows), tmp_path / "run"))


def test_existing_out_is_refused_and_named(opinions_csv: Path, run_folder: Path,
                                           tmp_path: Path) -> None:
    with pytest.raises(UserError, match="already holds a finished run"):
        fit(config(opinions_csv, run_folder))
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="exists and is not a run"):
        fit(config(opinions_csv, tmp_path / "mine"))


def test_a_learning_rate_that_diverges_stops(opinions_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="diverged.*--learning-rate.*Its batch: '"
                       r"\w.*', '\w.*', '\w.*', \.\.\.$"):
        fit(config(opinions_csv, tmp_path / "run", learning_rate=1e30, clip_norm=1e30, epochs=3))
    with pytest.raises(UserError, match="is not a finished run"):
        Run.load(tmp_path / "run")


def test_what_was_learned_before_is_kept(opinions_csv: Path, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    look = callbacks.Progress.on_train_batch_end

    def diverge(self: callbacks.Progress, batch: int, logs: dict[str, float]) -> None:
        late = self.bar.n == self.steps + 2
        look(self, batch, {"loss": float("nan")} if late else logs)

    monkeypatch.setattr(callbacks.Progress, "on_train_batch_end", diverge)
    assert cli.main(["train", "--task", "classify", "--train", f"csv:{opinions_csv}", "--backbone",
                     "tiny", "--epochs", "3", "--out", str(tmp_path / "run")]) == 2
    assert "The weights of epoch 1 are kept." in capsys.readouterr().err
    run = Run.load(tmp_path / "run")
    assert run.info["stopped"] == "DIVERGED"
    assert len(run.metrics["history"]) == 1
    assert all(np.isfinite(weight).all() for weight in run.model.get_weights())


@pytest.mark.slow
def test_a_resumed_training_that_diverges_at_once(opinions_csv: Path, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(opinions_csv, tmp_path / "run", epochs=3)

    def cut_off(self: callbacks.Progress, batch: int, logs: dict[str, float]) -> None:
        if self.bar.n == self.steps:
            raise ConnectionError
        look(self, batch, logs)

    look = callbacks.Progress.on_train_batch_end
    monkeypatch.setattr(callbacks.Progress, "on_train_batch_end", cut_off)
    with pytest.raises(ConnectionError):
        fit(settings)
    monkeypatch.setattr(callbacks.Progress, "on_train_batch_end",
                        lambda self, batch, logs: look(self, batch, {"loss": float("inf")}))
    run = fit(settings, resume=True)
    assert run.info["stopped"] == "DIVERGED"
    assert run.metrics["speed"]["steps"] == run.metrics["speed"]["examples_per_s"] == 0


@pytest.mark.slow
def test_too_large_batches_name_the_setting_to_lower(tmp_path: Path) -> None:
    """A limit on the process's memory is the small machine."""
    long = write_csv(tmp_path / "long.csv", [{**row, "text": f"{row['text']} " * 60}
                                             for row in opinions(3000)])
    code = ("import resource, sys, tensorflow; from tf_pipeline.cli import main; "
            "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)); "
            "sys.exit(main(sys.argv[1:]))")
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "--task", "classify", "--train", f"csv:{long}",
         "--backbone", "tiny", "--max-len", "512", "--batch-size", "2000", "--out",
         str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr[-3000:]
    assert ("The memory does not suffice for batches of 2000 times up to 512 tokens. Lower "
            "--batch-size or --max-len") in done.stderr.splitlines()[-1]


def _long_training(csv: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tf_pipeline", "train", "--task", "classify", "--train",
         f"csv:{csv}", "--backbone", "tiny", "--epochs", "500", "--patience", "500", "--max-len",
         "64", "--out", str(out)], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True)


def _wait_for(folder: Path, pattern: str, timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while not any(folder.glob(pattern)):
        assert time.monotonic() < end, f"{folder / pattern} never came"
        time.sleep(0.05)


def test_ctrl_c_keeps_the_best_weights(opinions_csv: Path, tmp_path: Path) -> None:
    process = _long_training(opinions_csv, tmp_path / "run")
    _wait_for(tmp_path / "run" / "checkpoints", "best-*.weights.h5")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "SIGINT: stopping after this step" in stderr
    run = Run.load(tmp_path / "run")
    assert run.info["stopped"] == "SIGINT"
    assert run.metrics["test"]["examples"] > 50


def test_kill_leaves_nothing_that_counts(opinions_csv: Path, tmp_path: Path) -> None:
    process = _long_training(opinions_csv, tmp_path / "run")
    _wait_for(tmp_path / "run" / "checkpoints", "step-*.safetensors")
    process.kill()
    process.communicate()
    with pytest.raises(UserError, match="not a finished run: its training was cut off"):
        Run.load(tmp_path / "run")
    done = command("tf_pipeline", "train", "--task", "classify", "--train", f"csv:{opinions_csv}",
                   "--backbone", "tiny", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "holds a training that was cut off. Go on with --resume" in done.stderr


def test_full_disk_is_one_line_and_no_run(opinions_csv: Path, tmp_path: Path) -> None:
    """A limit on file sizes is the full disk that needs no root: writes fail half-way."""
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [sys.executable, "-m", "tf_pipeline", "train", "--task", "classify", "--train",
         f"csv:{opinions_csv}", "--backbone", "tiny", "--epochs", "1", "--out",
         str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True, check=False,
        preexec_fn=limit)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "disk is full" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("file", ["model.weights.h5", "tokenizer.json", "labels.json"])
def test_damage_to_a_run_is_found(file: str, run_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy)
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(UserError, match=f"{file} has sha256"):
        Run.load(copy)
    (copy / file).write_bytes(content[:-5])
    with pytest.raises(UserError, match=f"{file} has .* bytes"):
        Run.load(copy)


def test_a_run_of_a_newer_version_is_refused(run_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy)
    info = json.loads((copy / "run.json").read_text("utf-8"))
    (copy / "run.json").write_text(json.dumps({**info, "schema": 99}))
    with pytest.raises(UserError, match="newer version of this kit .schema 99"):
        Run.load(copy)


def test_data_report_looks_and_trains_nothing(opinions_csv: Path, tmp_path: Path) -> None:
    done = command("tf_pipeline", "train", "--task", "classify", "--train", f"csv:{opinions_csv}",
                   "--backbone", "tiny", "--data-report", "--json", "--max-len", "64")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert sum(report["sizes"].values()) == 1000
    assert report["lengths"]["train"]["max"] > 64


@pytest.mark.parametrize("task", ["tag", "embed"])
def test_the_rows_that_a_run_keeps_are_scored(task: str, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "EVALUATION_ROWS", 12)
    data = (f"conll:{write_conll(tmp_path / 'names.txt', travels(300))}" if task == "tag" else
            f"csv:{write_csv(tmp_path / 'routes.csv', routes())}")
    trained = fit(TrainConfig(task, data, tmp_path / "run", backbone="tiny", max_len=32, epochs=1))
    rows = trained.evaluation("test")
    assert len(rows) < trained.metrics["test"]["examples"]
    kept, again = trained.metrics["kept"], Twin(trained).score(rows)
    assert kept["examples"] == len(rows)
    for name in (trained.info["metric"], "loss"):
        assert kept[name] == pytest.approx(again[name], abs=1e-4)
