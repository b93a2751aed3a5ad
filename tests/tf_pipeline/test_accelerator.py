"""Training on several devices, and under another backend, is the training of one."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, command, opinions, write_csv
from tf_pipeline import accelerator, checkpoints
from tf_pipeline.config import TrainConfig
from tf_pipeline.errors import UserError
from tf_pipeline.run import Run
from tf_pipeline.training import fit

Trained = tuple[Run, list[float]]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, int], Trained]:
    """Train in a process of its own from the same weights without dropout: run and losses."""
    folder = tmp_path_factory.mktemp("devices")
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
    done: dict[tuple[str, str, int], Trained] = {}

    def train(backend: str, task: str, devices: int) -> Trained:
        key = (backend, task, devices)
        if key not in done:
            out = folder / "-".join(map(str, key))
            words = ["train", "--task", task, "--train", f"csv:{data[task]}", "--backbone",
                     str(folder / "start"), "--max-len", "32", "--batch-size", "16", "--epochs",
                     "3", "--learning-rate", "1e-3", "--device", "cpu", "--devices",
                     str(devices), "--out", str(out)]
            child = subprocess.run([sys.executable, "-m", "tf_pipeline", *words], cwd=ROOT,
                                   env={**os.environ, "KERAS_BACKEND": backend},
                                   capture_output=True, text=True, check=False)
            assert child.returncode == 0, child.stderr[-3000:]
            run = Run.load(out)
            done[key] = run, [row["train_loss"] for row in run.metrics["history"]]
        return done[key]

    return train


@pytest.mark.parametrize(("backend", "task"), [
    ("tensorflow", "classify"), ("tensorflow", "embed"), ("jax", "embed")])
def test_two_devices_learn_what_one_learns(backend: str, task: str,
                                           train: Callable[[str, str, int], Trained]) -> None:
    """Gradients are clipped, and texts compared, over the whole batch."""
    (one, losses), (two, others) = train(backend, task, 1), train(backend, task, 2)
    assert two.info["device"].startswith("2 x CPU")
    assert len(losses) == 3
    assert others == pytest.approx(losses, rel=1e-4)
    assert losses[-1] < losses[0]
    for a, b in zip(one.model.get_weights(), two.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)  # Adam doubts the sign of tiny gradients


def test_jax_learns_what_tensorflow_learns(train: Callable[[str, str, int], Trained],
                                           tmp_path: Path) -> None:
    (first, losses), (second, others) = train("tensorflow", "embed", 1), train("jax", "embed", 1)
    steps = 3 * (first.info["data"]["train"]["rows"] // 16)
    assert steps >= 20
    assert others == pytest.approx(losses, abs=1e-4)
    exported = command("export", "convert", second.path, "--out", tmp_path / "artifact",
                       "--formats", "onnx", "--lengths", "16")
    assert exported.returncode == 0, exported.stderr


@pytest.mark.parametrize(("settings", "message"), [
    ({"device": "tpu"}, "--device is tpu, which Keras 3 trains on with its JAX backend only"),
    ({"device": "gpu"}, "--device is gpu, and .*"),
    ({"devices": 2}, "--devices is 2, and this machine has 1: CPU"),
    ({"devices": 2, "device": "cpu"}, "--device is cpu and --devices 2, and this process has begun "
                                      "with 1 CPU and 0 GPU. Train in a process of its own.")])
def test_what_is_not_there_is_named(settings: dict[str, object], message: str) -> None:
    import tensorflow as tf

    tf.constant(0)  # the runtime is up
    with pytest.raises(UserError, match=message):
        accelerator.choose(TrainConfig("classify", "", **settings))  # type: ignore[arg-type]


def test_devices_share_batches_evenly() -> None:
    code = ("from tf_pipeline import accelerator, config; accelerator.choose(config.TrainConfig("
            "'classify', '', batch_size=9, device='cpu', devices=2))")
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                           check=False)
    assert ("--batch-size is 9, which 2 devices cannot share evenly. Give a multiple of 2, or "
            "fewer --devices.") in child.stderr
