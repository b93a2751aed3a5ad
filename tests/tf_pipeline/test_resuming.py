"""A training that was cut off goes on to the very weights that it would have had."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from tests.conftest import ROOT, command, opinions, wait_for_step, write_csv, write_lines
from tf_pipeline import callbacks, run
from tf_pipeline.config import TrainConfig
from tf_pipeline.errors import Preempted, UserError
from tf_pipeline.run import Run
from tf_pipeline.training import fit


class CutOffError(Exception):
    """What stands for a crash here."""


def settings(task: str, folder: Path, out: str, **changes: object) -> TrainConfig:
    rows = opinions(160)
    train = f"csv:{write_csv(folder / 'a.csv', rows)}"
    if task == "embed":
        pairs = [{"text": row["text"], "text_b": f"{row['label']} {i}"}
                 for i, row in enumerate(rows)]
        train = f"csv:{write_csv(folder / 'pairs.csv', pairs)}"
    if task == "mlm":
        train = f"lines:{write_lines(folder / 'a.txt', [row['text'] for row in rows])}"
    usual = {"backbone": "tiny", "max_len": 32, "epochs": 3, "batch_size": 16, "seed": 1,
             "learning_rate": 1e-3, "checkpoint_steps": 3}
    return TrainConfig(task, train, folder / out, **{**usual, **changes})  # type: ignore[arg-type]


def weights(run: Run) -> list[np.ndarray]:
    return run.model.get_weights()


def assert_equal(first: Run, second: Run) -> None:
    for a, b in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.metrics["history"] == second.metrics["history"]
    # Keras traces `predict` anew for the first shapes it meets, and kernels round differently.
    assert first.metrics["test"]["loss"] == pytest.approx(second.metrics["test"]["loss"], rel=1e-6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Give the run of a training that nobody cut off; each is trained once."""
    return lru_cache(None)(lambda task, **changes: fit(
        settings(task, tmp_path_factory.mktemp("whole"), "run", **changes)))


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the next training end after so many steps, without a word to anyone."""
    save = callbacks.Saver.on_train_batch_end

    def after(steps: int) -> None:
        def end(self: callbacks.Saver, batch: int, logs: object = None) -> None:
            save(self, batch, logs)
            if self.step == steps:
                monkeypatch.setattr(callbacks.Saver, "on_train_batch_end", save)
                raise CutOffError

        monkeypatch.setattr(callbacks.Saver, "on_train_batch_end", end)

    return after


@pytest.mark.parametrize(("task", "changes"), [
    ("classify", {}), *(pytest.param(task, changes, marks=pytest.mark.slow) for task, changes in (
        ("embed", {"mini_batch_size": 8}), ("mlm", {})))])
def test_every_kind_of_step_goes_on(task: str, changes: dict[str, int], tmp_path: Path,
                                    whole: Callable[..., Run],
                                    crash: Callable[[int], None]) -> None:
    expected = whole(task, **changes)
    assert expected.metrics["history"][-1]["epoch"] == 3
    for step in (2, 7, 13):  # before the first checkpoint, inside the first epoch or the next
        crash(step)
        with pytest.raises(CutOffError):
            fit(settings(task, tmp_path, f"cut{step}", **changes), resume=True)
        assert_equal(fit(settings(task, tmp_path, f"cut{step}", **changes), resume=True), expected)


@pytest.mark.slow
def test_a_crash_inside_an_epoch(tmp_path: Path, whole: Callable[..., Run],
                                 crash: Callable[[int], None]) -> None:
    crash(5)
    with pytest.raises(CutOffError):
        fit(settings("classify", tmp_path, "cut", epochs=1, max_len=8))
    resumed = fit(settings("classify", tmp_path, "cut", epochs=1, max_len=8), resume=True)
    assert_equal(resumed, whole("classify", epochs=1, max_len=8))


@pytest.mark.slow
@pytest.mark.parametrize("step", [7, 8])
def test_sigterm_at_an_epochs_last_step_and_after(step: int, tmp_path: Path,
                                                  whole: Callable[..., Run],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of an epoch's 7 steps is validated first, though a checkpoint falls on it."""
    changes = {"checkpoint_steps": 7}
    save = callbacks.Saver.on_train_batch_end

    def ask(self: callbacks.Saver, batch: int, logs: object = None) -> None:
        if self.step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        save(self, batch, logs)

    with monkeypatch.context() as patched:
        patched.setattr(callbacks.Saver, "on_train_batch_end", ask)
        with pytest.raises(Preempted, match=f"after step {step}"):
            fit(settings("classify", tmp_path, "cut", **changes))
    resumed = fit(settings("classify", tmp_path, "cut", **changes), resume=True)
    assert_equal(resumed, whole("classify"))  # checkpoints change nothing


@pytest.mark.slow
def test_float16_and_several_crashes(tmp_path: Path, whole: Callable[..., Run],
                                     crash: Callable[[int], None]) -> None:
    changes = {"precision": "mixed_float16"}
    for step in (5, 4, 11, 19):
        crash(step)
        with pytest.raises(CutOffError):
            fit(settings("classify", tmp_path, "cut", **changes), resume=True)
    resumed = fit(settings("classify", tmp_path, "cut", **changes), resume=True)
    assert_equal(resumed, whole("classify", **changes))


def test_what_is_finished_stays_and_what_never_began_begins(tmp_path: Path) -> None:
    config = settings("classify", tmp_path, "run", epochs=1)
    run = fit(config, resume=True)
    assert not (run.path / "checkpoints").exists()
    created = run.info["created"]
    assert fit(config, resume=True).info["created"] == created
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="exists and is not a run"):
        fit(settings("classify", tmp_path, "mine"), resume=True)


def test_the_older_checkpoint_still_finds_its_best_weights(tmp_path: Path,
                                                           crash: Callable[[int], None]) -> None:
    crash(22)  # of 7 steps an epoch: right after the third
    with pytest.raises(CutOffError):
        fit(settings("classify", tmp_path, "cut", epochs=9, patience=9, checkpoint_steps=0))
    folder = tmp_path / "cut" / "checkpoints"
    for path in folder.glob("step-*.safetensors"):
        with safe_open(path, "numpy") as stored:
            best = json.loads(stored.metadata()["progress"])["best"]["epoch"]
        assert (folder / f"best-{best:05}.weights.h5").exists()
    assert len(list(folder.glob("best-*"))) <= 2


@pytest.mark.slow
def test_a_crash_after_the_last_step(tmp_path: Path, whole: Callable[..., Run],
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: object) -> None:
        raise CutOffError

    with monkeypatch.context() as patched:
        patched.setattr(run, "write", end)
        with pytest.raises(CutOffError):
            fit(settings("classify", tmp_path, "cut"))
    (tmp_path / "moved").mkdir()  # the data may lie elsewhere, too
    moved = settings("classify", tmp_path / "moved", "../cut")
    assert_equal(fit(moved, resume=True), whole("classify"))


def test_damaged_settings_are_named(tmp_path: Path, crash: Callable[[int], None]) -> None:
    crash(4)
    with pytest.raises(CutOffError):
        fit(settings("classify", tmp_path, "cut"))
    (tmp_path / "cut" / "checkpoints" / "training.json").write_text('{"--seed": 1')
    with pytest.raises(UserError, match="training.json is damaged.*start anew"):
        fit(settings("classify", tmp_path, "cut"), resume=True)


@pytest.mark.parametrize(("changes", "message"), [
    ({"learning_rate": 2e-3}, "has --learning-rate 0.001; given is 0.002"),
    ({"seed": 2}, "has --seed 1; given is 2")])
def test_other_settings_are_refused(changes: dict[str, float], message: str, tmp_path: Path,
                                    crash: Callable[[int], None]) -> None:
    crash(4)
    with pytest.raises(CutOffError):
        fit(settings("classify", tmp_path, "run"))
    with pytest.raises(UserError, match="holds a training that was cut off. Go on with --resume"):
        fit(settings("classify", tmp_path, "run"))
    with pytest.raises(UserError, match=message):
        fit(settings("classify", tmp_path, "run", **changes), resume=True)
    changed = settings("classify", tmp_path, "run")
    write_csv(tmp_path / "a.csv", opinions(170))
    with pytest.raises(UserError, match="has train data sha256 .* Give the same settings and data"):
        fit(changed, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_is_passed_over(harm: str, tmp_path: Path,
                                             whole: Callable[..., Run],
                                             crash: Callable[[int], None],
                                             caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tf_pipeline.callbacks")
    crash(10)
    with pytest.raises(CutOffError):
        fit(settings("classify", tmp_path, "cut"))
    first, newest = sorted((tmp_path / "cut" / "checkpoints").glob("step-*"))
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes({"cut": content[:-1000], "flip": content, "empty": b""}[harm])
    assert_equal(fit(settings("classify", tmp_path, "cut"), resume=True), whole("classify"))
    assert f"{newest} is damaged and is passed over" in caplog.text
    assert f"Going on after step {int(first.stem.partition('-')[2])}." in caplog.text


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, whole: Callable[..., Run],
                                                crash: Callable[[int], None]) -> None:
    """A limit on file sizes is the full disk that needs no root: writes fail half-way."""
    crash(4)
    with pytest.raises(CutOffError):
        fit(settings("classify", tmp_path, "cut"))
    code = ("import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
            "from tf_pipeline.cli import main; sys.exit(main(sys.argv[1:]))")
    words = ["train", "--task", "classify", "--train", f"csv:{tmp_path / 'a.csv'}", "--backbone",
             "tiny", "--max-len", "32", "--epochs", "3", "--batch-size", "16", "--seed", "1",
             "--learning-rate", "1e-3", "--checkpoint-steps", "3", "--out", str(tmp_path / "cut"),
             "--resume"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "disk is full" in done.stderr.splitlines()[-1]
    assert [p.name for p in (tmp_path / "cut" / "checkpoints").glob("*step*")] == [
        "step-00000003.safetensors"]
    assert_equal(fit(settings("classify", tmp_path, "cut"), resume=True), whole("classify"))


@pytest.mark.slow
def test_jax_goes_on_too(tmp_path: Path) -> None:
    """The backend is chosen once a process, so a test of this very file runs in another one."""
    inner = f"{__file__}::{test_a_crash_inside_an_epoch.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp",
         str(tmp_path / "inner"), inner], cwd=ROOT, env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "1 passed" in done.stdout


def _train(csv: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tf_pipeline", "train", "--task", "classify", "--train",
         f"csv:{csv}", "--backbone", "tiny", "--epochs", "60", "--patience", "60", "--max-len",
         "64", "--checkpoint-steps", "5", "--out", str(out), *words], cwd=ROOT,
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_twenty_kills_leave_readable_checkpoints_and_the_same_weights(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "a.csv", opinions(300))
    whole = _train(data, tmp_path / "whole")
    _, stderr = whole.communicate()
    assert whole.returncode == 0, stderr
    folder, choose = tmp_path / "cut" / "checkpoints", random.Random(0)
    for kill in range(20):
        process = _train(data, tmp_path / "cut", "--resume")
        wait_for_step(folder, 18 * kill + 5)
        time.sleep(choose.uniform(0, 0.5))
        process.kill()
        process.communicate()
        for path in folder.glob("step-*.safetensors"):
            with safe_open(path, "numpy") as stored:
                assert all(np.isfinite(stored.get_tensor(name)).all() for name in stored.keys())  # noqa: SIM118
    last = _train(data, tmp_path / "cut", "--resume")
    _, stderr = last.communicate()
    assert last.returncode == 0, stderr
    assert "is damaged" not in stderr
    assert_equal(Run.load(tmp_path / "cut"), Run.load(tmp_path / "whole"))


@pytest.mark.slow
def test_processes_that_are_killed_go_on(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "a.csv", opinions(300))
    whole, stderr = (lambda p: (p, p.communicate()[1]))(_train(data, tmp_path / "whole"))
    assert whole.returncode == 0, stderr
    for number, step in ((signal.SIGKILL, 20), (signal.SIGTERM, 60), (signal.SIGKILL, 110)):
        process = _train(data, tmp_path / "cut", "--resume")
        wait_for_step(tmp_path / "cut" / "checkpoints", step)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=120)
        if number is signal.SIGTERM:
            assert process.returncode == 75, stderr
            assert "The same command with --resume goes on." in stderr.splitlines()[-1]
    last = _train(data, tmp_path / "cut", "--resume")
    _, stderr = last.communicate(timeout=300)
    assert last.returncode == 0, stderr
    assert "Going on after step" in stderr
    first, second = (Run.load(tmp_path / name) for name in ("whole", "cut"))
    assert_equal(first, second)
    assert json.loads((second.path / "metrics.json").read_text())["history"][-1]["epoch"] > 1
    again = command("tf_pipeline", "train", "--task", "classify", "--train", f"csv:{data}",
                    "--backbone", "tiny", "--out", tmp_path / "cut", "--resume")
    assert again.returncode == 0, again.stderr
    assert os.path.exists(tmp_path / "cut" / "run.json")
