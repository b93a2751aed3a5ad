"""samples/c, on the C APIs of LiteRT and TensorFlow, gives the answers of Keras."""

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export import ConvertOptions
from export.pipeline import build
from export.twin import Twin
from tests.conftest import ROOT, opinions
from tf_pipeline.artifact import Manifest
from tf_pipeline.run import Run

pytestmark = pytest.mark.platforms
TEXTS = [row["text"] for row in opinions(30, seed=5)] + ["word " * 300, ""]


def folder_of(package: str) -> Path:
    """Find an installed package without importing it."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a function that compiles a program of samples/c with the library of a package."""
    folder = tmp_path_factory.mktemp("c")
    packages = {"answer": ("ai_edge_litert", ["libLiteRt.so"]),
                "saved_model": ("tensorflow", ["libtensorflow_cc.so.2",
                                               "libtensorflow_framework.so.2"])}

    def make(name: str) -> Path:
        package, libraries = packages[name]
        home = folder_of(package)
        done = subprocess.run(
            ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", f"-I{home / 'include'}",
             ROOT / f"samples/c/{name}.c", "-o", folder / name,
             *(home / library for library in libraries), f"-Wl,-rpath,{home}"],
            capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return folder / name

    return make


def answers(program: Path, words: list[object], rows: list[np.ndarray]) -> list[np.ndarray]:
    """Run a program on token ids: the numbers of each text."""
    done = subprocess.run([program, *map(str, words)], text=True, capture_output=True, check=False,
                          input="".join(" ".join(map(str, ids)) + "\n" for ids in rows))
    assert done.returncode == 0, done.stderr
    return [np.array(line.split(), np.float32) for line in done.stdout.splitlines()]


def expected(twin: Twin, ids: np.ndarray, output: str) -> np.ndarray:
    return twin.runner({"input_ids": ids[None], "attention_mask": np.ones_like(ids)[None],
                        "token_type_ids": np.zeros_like(ids)[None]})[output][0]


@pytest.mark.parametrize("task", ["classify", "tag", "embed"])
def test_litert_gives_the_answers_of_keras(task: str, compiled: Callable[[str], Path],
                                           toy_run: Callable[[str], Path],
                                           toy_artifact: Callable[[str], Path]) -> None:
    twin = Twin(Run.load(toy_run(task)))
    graph = Manifest.load(toy_artifact(task)).choose("tflite", "float32")
    length = graph.length
    assert length is not None
    rows = [twin.encoder.encode([text], None, length).ids for text in TEXTS]
    found = answers(compiled("answer"), [toy_artifact(task) / graph.path], rows)
    (output,) = twin.task.OUTPUTS["tflite"]
    for ids, numbers in zip(rows, found, strict=True):
        # Of tokens, what stands on padding means nothing.
        real = numbers.reshape(length, -1)[:len(ids)] if task == "tag" else numbers
        np.testing.assert_allclose(real, expected(twin, ids, output), atol=1e-4)


def test_tensorflow_gives_the_answers_of_keras(compiled: Callable[[str], Path],
                                               run_folder: Path, tmp_path: Path) -> None:
    run = Run.load(run_folder)
    manifest = build(run, ConvertOptions(out=tmp_path / "artifact", formats=("saved_model",),
                                         signatures="tokens"))
    name = manifest.signatures["serving_default"]["outputs"]["probabilities"]["name"]
    twin = Twin(run)
    rows = [twin.encoder.encode([text], None, 96).ids for text in TEXTS]
    found = answers(compiled("saved_model"), [tmp_path / "artifact/saved_model/1",
                                              "serving_default", *name.split(":")], rows)
    for ids, numbers in zip(rows, found, strict=True):
        np.testing.assert_allclose(numbers, expected(twin, ids, "probabilities"), atol=1e-4)


@pytest.mark.parametrize(("name", "words", "code", "message"), [
    ("answer", [], 2, "usage: answer MODEL.tflite < ids"),
    ("answer", ["/nowhere.tflite"], 1, "/nowhere.tflite failed with status"),
    ("saved_model", [], 2, "usage: saved_model FOLDER SIGNATURE OUTPUT INDEX < ids"),
    ("saved_model", ["/nowhere", "a", "b", "0"], 1, "/nowhere: Could not find SavedModel")])
def test_what_is_wrong_is_said(name: str, words: list[str], code: int, message: str,
                               compiled: Callable[[str], Path]) -> None:
    done = subprocess.run([compiled(name), *words], input="", capture_output=True, text=True,
                          check=False)
    assert done.returncode == code
    assert message in done.stderr
