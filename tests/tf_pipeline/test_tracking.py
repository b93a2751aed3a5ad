"""Where a training's numbers go: lines, TensorBoard's files, Weights & Biases without a network."""

import json
import sys
from pathlib import Path

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from tests.conftest import command, opinions, write_csv
from tests.tf_pipeline.test_resuming import CutOffError, settings
from tf_pipeline import callbacks, tracking
from tf_pipeline.errors import UserError
from tf_pipeline.training import fit


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "logs/scalars.jsonl").read_text().splitlines()]


def test_lines_and_events_hold_the_same(tmp_path: Path) -> None:
    run = fit(settings("classify", tmp_path, "run"))
    found = lines(run.path)
    steps = 3 * 7
    assert [row["step"] for row in found if "train/loss" in row] == [10, 20]
    assert [row["validation/accuracy"] for row in found if "validation/accuracy" in row] == [
        row["accuracy"] for row in run.metrics["history"]]
    assert found[-1]["test/accuracy"] == run.metrics["test"]["accuracy"]
    events = EventAccumulator(str(run.path / "logs")).Reload()
    for row in found:
        for name, value in row.items():
            if name != "step":
                assert events.Tensors(name)[-1].step <= steps
                assert any(make_ndarray(event.tensor_proto) == pytest.approx(value, rel=1e-6)
                           for event in events.Tensors(name))
    assert "learning_curves" in events.Tags()["tensors"]
    speed = run.metrics["speed"]
    assert speed["steps"] == steps
    assert speed["examples_per_s"] == pytest.approx(steps * 16 / speed["seconds"], rel=0.05)


@pytest.mark.slow
def test_a_resumed_training_has_each_step_once(tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(settings("classify", tmp_path, "whole"))
    save = callbacks.Scalars.on_train_batch_end

    def end(self: callbacks.Scalars, batch: int, logs: dict[str, float]) -> None:
        save(self, batch, logs)
        if self.step == 20:  # two steps behind the checkpoint
            with self.tracker.path.open("a") as stream:
                stream.write('{"step": 2')  # cut off while it was written
            raise CutOffError

    with monkeypatch.context() as patched:
        patched.setattr(callbacks.Scalars, "on_train_batch_end", end)
        with pytest.raises(CutOffError):
            fit(settings("classify", tmp_path, "cut"))
    fit(settings("classify", tmp_path, "cut"), resume=True)
    assert lines(tmp_path / "cut") == lines(whole.path)


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "a.csv", opinions(120))
    done = command("tf_pipeline", "train", "--task", "classify", "--train", f"csv:{data}",
                   "--backbone", "tiny", "--epochs", "1", "--batch-size", "8", "--track", "wandb",
                   "--out", tmp_path / "run", WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "run/logs/wandb").glob("offline-run-*/run-*.wandb")
    name = (tmp_path / "run/logs/wandb-id.txt").read_text()
    assert file.stem == f"run-{name}"
    content = file.read_bytes()
    assert all(word in content for word in (b"train/loss", b"validation/accuracy", b"classify",
                                            b"confusion"))


def test_what_weights_and_biases_lacks_is_named(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings("classify", tmp_path, "run", track="wandb")

    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match="No API key configured.*WANDB_MODE=offline"):
        tracking.Tracker(tmp_path / "logs", config)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="--track wandb needs the package wandb.*pip install"):
        fit(config)
    assert not (tmp_path / "run").exists()


def test_the_profiler_records_steps(tmp_path: Path) -> None:
    fit(settings("classify", tmp_path, "run", epochs=4, patience=4, profile_steps=2))
    assert list((tmp_path / "run/logs/plugins/profile").glob("*/*.xplane.pb"))


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "said"), [
    (3, "Recorded 1 steps"), (2, "--profile-steps is 9, and records from step 20 on; training "
                                 "ended after 14")])
def test_the_profiler_of_a_short_training(epochs: int, said: str, tmp_path: Path,
                                          caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tf_pipeline.callbacks")
    fit(settings("classify", tmp_path, "run", epochs=epochs, profile_steps=9))
    assert said in caplog.text
