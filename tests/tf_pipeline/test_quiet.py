"""TensorFlow's import, in processes of its own: it happens once in each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, command
from tf_pipeline.quiet import _jax_is_chosen

IMPORTED = """
import sys
from tf_pipeline.quiet import import_tensorflow
import_tensorflow()
names = ("sklearn", "matplotlib", "jax")
print([name for name in names if name in sys.modules])
import jax, matplotlib, sklearn
print(all(name in sys.modules for name in names))
"""


@pytest.mark.parametrize(("backend", "found"), [("tensorflow", []), ("jax", ["jax"])])
def test_what_nobody_asked_for_is_not_imported_and_can_be(backend: str, found: list[str]) -> None:
    environment = {**os.environ, "KERAS_BACKEND": backend}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, env=environment, text=True,
                          capture_output=True, check=True)
    assert done.stdout.splitlines() == [str(found), "True"]
    assert done.stderr == ""


def test_the_backend_in_keras_json_counts(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    environment.pop("KERAS_BACKEND", None)
    done = subprocess.run([sys.executable, "-c", f"{IMPORTED}import keras\n"
                           "print(keras.backend.backend())"], cwd=ROOT, env=environment, text=True,
                          capture_output=True, check=True)
    assert done.stdout.splitlines() == ["['jax']", "True", "jax"]


def test_a_keras_json_that_cannot_be_read_chooses_nothing(tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert not _jax_is_chosen()
    (tmp_path / "keras.json").write_bytes(b"\xff\xfe no text")
    assert not _jax_is_chosen()
    (tmp_path / "keras.json").unlink()
    (tmp_path / "keras.json").mkdir()
    assert not _jax_is_chosen()


def test_a_backend_that_keras_does_not_know_is_named(tmp_path: Path) -> None:
    done = command("tf_pipeline", "train", "--task", "classify", "--train", "vader:tweets",
                   "--out", tmp_path / "run", KERAS_BACKEND="banana")
    assert done.returncode == 2
    assert done.stderr == ("error: Keras's backend is banana (KERAS_BACKEND, or keras.json in "
                           "~/.keras); allowed: tensorflow, jax. Set KERAS_BACKEND=tensorflow.\n")
    assert not (tmp_path / "run").exists()
