"""samples/c/answer.c on LiteRT's C API, as phones have it, gives the answers of Keras."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import ai_edge_litert
import numpy as np
import pytest

from export.twin import Twin
from tests.conftest import ROOT, opinions
from tf_pipeline.artifact import Manifest
from tf_pipeline.run import Run

pytestmark = pytest.mark.platforms
LIBRARY = Path(ai_edge_litert.__file__).parent / "libLiteRt.so"
TEXTS = [row["text"] for row in opinions(30, seed=5)] + ["word " * 300, ""]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("c") / "answer"
    done = subprocess.run(["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2",
                           ROOT / "samples/c/answer.c", "-o", built, LIBRARY,
                           f"-Wl,-rpath,{LIBRARY.parent}"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return built


@pytest.mark.parametrize("task", ["classify", "tag", "embed"])
def test_answers_are_those_of_keras(task: str, program: Path,
                                    toy_run: Callable[[str], Path],
                                    toy_artifact: Callable[[str], Path]) -> None:
    twin = Twin(Run.load(toy_run(task)))
    graph = Manifest.load(toy_artifact(task)).choose("tflite", "float32")
    length = graph.length
    assert length is not None
    rows = [twin.encoder.encode([text], None, length).ids for text in TEXTS]
    done = subprocess.run([program, toy_artifact(task) / graph.path], text=True,
                          input="".join(" ".join(map(str, ids)) + "\n" for ids in rows),
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.array([line.split() for line in done.stdout.splitlines()], np.float32)
    (output,) = twin.task.OUTPUTS["tflite"]
    for ids, numbers in zip(rows, found, strict=True):
        inputs = {"input_ids": ids[None], "attention_mask": np.ones_like(ids)[None],
                  "token_type_ids": np.zeros_like(ids)[None]}
        expected = twin.runner(inputs)[output][0]
        # Of tokens, what stands on padding means nothing.
        real = numbers.reshape(length, -1)[:len(ids)] if task == "tag" else numbers
        np.testing.assert_allclose(real, expected, atol=1e-4)


@pytest.mark.parametrize(("words", "code", "message"), [
    ([], 2, "usage: answer MODEL.tflite < ids"),
    (["/nowhere.tflite"], 1, "/nowhere.tflite failed with status")])
def test_what_is_wrong_is_said(words: list[str], code: int, message: str, program: Path) -> None:
    done = subprocess.run([program, *words], input="", capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert message in done.stderr
