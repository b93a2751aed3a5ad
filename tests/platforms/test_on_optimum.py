"""optimum and sentence-transformers open the artifact as it is and answer as Keras does."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.twin import Twin
from tests.platforms.conftest import HERE
from tf_pipeline import plugins, tasks
from tf_pipeline.predictor import Predictor
from tf_pipeline.run import Run
from tf_pipeline.task import Task

pytestmark = pytest.mark.platforms
FILES = {"float32": "model.onnx", "int8": "model_quantized.onnx"}
TEXTS = ["the room was lovely", "Café, honestly — 😀", "a", "Quentin Quist left Jena .",
         "one [MASK], ten hen, one [MASK]", "word " * 90]


def ask(python: Path, program: str, words: list[Path | str], given: Any) -> None:
    done = subprocess.run([python, HERE / program, *words], input=json.dumps(given), text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def texts_for(task: Task) -> list[list[str]]:
    return [[text, "lovely !"][:len(task.text_fields)] for text in TEXTS]


@pytest.fixture(scope="module")
def found(toy_artifact: Callable[[str], Path], environment: Callable[[str], Path],
          tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with optimum's answers: importing it takes longer than all of them."""
    folder = tmp_path_factory.mktemp("optimum")
    jobs = [[str(toy_artifact(task)), file, str(folder / f"{task}-{variant}.npz"),
             texts_for(Predictor(toy_artifact(task)).task)]
            for task in plugins.names(tasks) for variant, file in FILES.items()]
    ask(environment("optimum"), "answer_optimum.py", [], jobs)
    return folder


@pytest.mark.parametrize("variant", FILES)
@pytest.mark.parametrize("task", plugins.names(tasks))
def test_optimum_gives_our_answers(task: str, variant: str, found: Path,
                                   toy_run: Callable[[str], Path],
                                   toy_artifact: Callable[[str], Path]) -> None:
    twin = Twin(Run.load(toy_run(task)))
    # The reference of a float32 file is Keras; of an int8 file what this kit makes of it.
    run = (twin.runner if variant == "float32" else
           Predictor(toy_artifact(task), "onnx", variant).run)
    answers = np.load(found / f"{task}-{variant}.npz")
    for i, text in enumerate(texts_for(twin.task)):
        one = twin.encoder.encode(text[:1], text[1:] or None, twin.run.max_len)
        assert answers[f"ids{i}"].tolist() == one.ids.tolist()
        expected = run(one.padded([0], len(one.ids)))
        wanted = expected["last_hidden_state" if task == "embed" else "logits"][0]
        # One more rounding of an activation to 8 bits shows in the outputs.
        near = 1e-4 if variant == "float32" else 1e-3
        np.testing.assert_allclose(answers[f"out{i}"], wanted, atol=near * twin.task.unit)
        if variant == "int8" and task in ("classify", "match"):
            assert answers[f"out{i}"].argmax() == wanted.argmax()


@pytest.mark.parametrize("variant", FILES)
def test_sentence_transformers_gives_our_vectors(variant: str, environment: Callable[[str], Path],
                                                 toy_artifact: Callable[[str], Path],
                                                 tmp_path: Path) -> None:
    artifact = toy_artifact("embed")
    ask(environment("optimum"), "embed_sentence_transformers.py",
        [artifact, FILES[variant], tmp_path / "found.npy"], TEXTS)
    predictor = Predictor(artifact, "onnx", variant)
    wanted = np.array([predictor([text])[0]["embedding"] for text in TEXTS])
    vectors = np.load(tmp_path / "found.npy")
    if variant == "float32":
        np.testing.assert_allclose(vectors, wanted, atol=1e-5)
    else:  # a hundred times nearer than the float32 file's vectors
        assert (vectors * wanted).sum(1).min() > 1 - 1e-5
