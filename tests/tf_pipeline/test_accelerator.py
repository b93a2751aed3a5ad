"""Training on several devices, and under another backend, is the training of one."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, command, opinions, wait_for_step, write_csv
from tf_pipeline import accelerator, checkpoints, processes
from tf_pipeline.config import TrainConfig
from tf_pipeline.errors import UserError
from tf_pipeline.run import Run
from tf_pipeline.training import fit

Words = list[str]
Trained = tuple[Run, list[float]]


@dataclass(frozen=True)
class Machine:
    """What a training runs on: CPUs of a process, processes, CPUs that share a weight."""

    backend: str = "jax"
    devices: int = 1
    processes: int = 1
    across: int = 1

    def start(self, words: Words, last: Words | None = None) -> list[subprocess.Popen[str]]:
        """Start a training in processes of its own; `last` are further flags of the last."""
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        words = [sys.executable, "-m", "tf_pipeline", "train", "--device", "cpu", *words]
        env = {**os.environ, "KERAS_BACKEND": self.backend}
        if self.devices > 1:
            words += ["--devices", str(self.devices)]
        if self.across > 1:
            words += ["--model-parallel", str(self.across)]
        if self.processes > 1:
            env |= {processes.NUMBER: str(self.processes),
                    "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"localhost:{port}"}
        each = [words] * (self.processes - 1) + [words + (last or [])]
        return [subprocess.Popen(own, cwd=ROOT, text=True, stderr=subprocess.PIPE,
                                 env={**env, "KERAS_DISTRIBUTION_PROCESS_ID": str(number)})
                for number, own in enumerate(each)]


def ended(children: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Wait for processes: the exit code of each, and what it said."""
    said = [child.communicate(timeout=300)[1] for child in children]
    return [(child.returncode, text) for child, text in zip(children, said, strict=True)]


ONE = Machine()
TWO_PROCESSES = Machine(processes=2)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Words]:
    """Give a task's flags: the same weights, no dropout."""
    folder = tmp_path_factory.mktemp("data")
    rows = opinions(200)
    pairs = [{"text": row["text"], "text_b": f"{row['label']} {i}"} for i, row in enumerate(rows)]
    data = {"classify": write_csv(folder / "rows.csv", rows),
            "embed": write_csv(folder / "pairs.csv", pairs)}
    tiny = checkpoints.load("tiny")
    config = replace(tiny.config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoints, "_tiny", lambda: replace(tiny, config=config))
        fit(TrainConfig("embed", f"csv:{data['embed']}", folder / "start", backbone="tiny",
                        epochs=0))
    return lambda task: [
        "--task", task, "--train", f"csv:{data[task]}", "--backbone", str(folder / "start"),
        "--max-len", "32", "--batch-size", "16", "--epochs", "3", "--learning-rate", "1e-3"]


@pytest.fixture(scope="module")
def train(words: Callable[[str], Words], tmp_path_factory: pytest.TempPathFactory,
          ) -> Callable[[Machine, str], Trained]:
    """Train a task, once: the run and its losses."""
    folder = tmp_path_factory.mktemp("devices")
    done: dict[tuple[Machine, str], Trained] = {}

    def train(machine: Machine, task: str) -> Trained:
        key = machine, task
        if key not in done:
            out = folder / str(len(done))
            for code, stderr in ended(machine.start([*words(task), "--out", str(out)])):
                assert code == 0, stderr[-3000:]
            run = Run.load(out)
            done[key] = run, [row["train_loss"] for row in run.metrics["history"]]
        return done[key]

    return train


@pytest.mark.parametrize(("two", "task"), [
    (Machine("tensorflow", devices=2), "classify"), *(
        pytest.param(machine, "embed", marks=pytest.mark.slow) for machine in (
            Machine("tensorflow", devices=2), Machine(devices=2), TWO_PROCESSES,
            Machine(devices=2, across=2)))])
def test_two_devices_learn_what_one_learns(
        two: Machine, task: str, train: Callable[[Machine, str], Trained]) -> None:
    """Gradients are clipped, and texts compared, over the whole batch."""
    (first, losses), (second, others) = train(Machine(two.backend), task), train(two, task)
    assert second.info["device"].startswith("2 x CPU")
    assert len(losses) == 3
    assert others == pytest.approx(losses, rel=1e-4)
    assert losses[-1] < losses[0]
    for a, b in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)  # Adam doubts the sign of tiny gradients


@pytest.mark.slow
def test_jax_learns_what_tensorflow_learns(train: Callable[[Machine, str], Trained],
                                           tmp_path: Path) -> None:
    (first, losses), (second, others) = train(Machine("tensorflow"), "embed"), train(ONE, "embed")
    steps = 3 * (first.info["data"]["train"]["rows"] // 16)
    assert steps >= 20
    assert others == pytest.approx(losses, abs=1e-4)
    exported = command("export", "convert", second.path, "--out", tmp_path / "artifact",
                       "--formats", "onnx", "--lengths", "16")
    assert exported.returncode == 0, exported.stderr


@pytest.mark.slow
def test_sigterm_at_one_process_stops_all_and_they_go_on_together(
        words: Callable[[str], Words], train: Callable[[Machine, str], Trained],
        tmp_path: Path) -> None:
    flags = [*words("embed"), "--checkpoint-steps", "1", "--out", str(tmp_path / "run")]
    children = TWO_PROCESSES.start(flags)
    wait_for_step(tmp_path / "run" / "checkpoints", 1)
    children[1].terminate()
    for code, stderr in ended(children):
        assert code == 75, stderr[-3000:]
        assert "as all processes do" in stderr
    ends = ended(TWO_PROCESSES.start([*flags, "--resume"]))
    assert [code for code, _ in ends] == [0, 0], ends[0][1][-3000:]
    assert "Going on after step" in ends[1][1]
    whole, _ = train(TWO_PROCESSES, "embed")
    for a, b in zip(Run.load(tmp_path / "run").model.get_weights(), whole.model.get_weights(),
                    strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_processes_that_were_told_different_things_stop(words: Callable[[str], Words],
                                                        tmp_path: Path) -> None:
    flags = [*words("embed"), "--out", str(tmp_path / "run")]
    for code, stderr in ended(TWO_PROCESSES.start(flags, ["--seed", "1"])):
        assert code == 2, stderr[-3000:]
        assert "error: Process 1 has other settings, data or checkpoints" in stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "value"), [
    (processes.NUMBER, "2"),
    ("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker"}}')])
def test_tensorflow_in_several_processes_is_refused(
        name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{name} asks for several .* Set KERAS_BACKEND=jax"):
        accelerator.choose(TrainConfig("classify", ""))


@pytest.mark.parametrize(("settings", "message"), [
    ({"device": "tpu"}, "--device is tpu, which Keras 3 trains on with its JAX backend only"),
    ({"device": "gpu"}, "--device is gpu, and .*"),
    ({"model_parallel": 2}, "--model-parallel is 2, and training is on 1 x CPU"),
    ({"devices": 2}, "--devices is 2, and this machine has 1: CPU"),
    ({"devices": 2, "device": "cpu"}, "--device is cpu and --devices 2, and this process has begun "
                                      "with 1 CPU and 0 GPU. Train in a process of its own.")])
def test_what_is_not_there_is_named(settings: dict[str, object], message: str) -> None:
    import tensorflow as tf

    tf.constant(0)  # the runtime is up
    with pytest.raises(UserError, match=message):
        accelerator.choose(TrainConfig("classify", "", **settings))  # type: ignore[arg-type]


def test_model_parallel_cuts_the_matrices() -> None:
    code = ("from tf_pipeline import accelerator, checkpoints, config\n"
            "device = accelerator.choose(config.TrainConfig('classify', '', device='cpu', "
            "devices=4, model_parallel=2))\n"
            "with device.scope():\n"
            "    model = checkpoints.load('tiny').build()\n"
            "for weight in model.weights:\n"
            "    shards = weight.value.addressable_shards\n"
            "    print(weight.path, len(shards), shards[0].data.shape)")
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                           check=False, env={**os.environ, "KERAS_BACKEND": "jax"})
    for line in ("embeddings/word/embeddings 4 (109, 16)", "layer_0/query/kernel 4 (32, 16)",
                 "layer_0/query/bias 4 (16,)", "layer_1/attention_output/kernel 4 (16, 32)",
                 "layer_1/intermediate/kernel 4 (32, 32)", "layer_1/output/kernel 4 (32, 32)",
                 "layer_1/output/bias 4 (32,)"):
        assert line in child.stdout, child.stdout + child.stderr[-2000:]


def test_devices_share_batches_evenly() -> None:
    code = ("from tf_pipeline import accelerator, config; accelerator.choose(config.TrainConfig("
            "'classify', '', batch_size=9, device='cpu', devices=2))")
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                           check=False)
    assert ("--batch-size is 9, which 2 devices cannot share evenly. Give a multiple of 2, or "
            "fewer --devices.") in child.stderr
