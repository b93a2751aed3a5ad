"""MediaPipe's own TextClassifier opens the files and answers as Keras does."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export import mediapipe
from export.twin import Twin
from tests.conftest import opinions
from tf_pipeline.run import Run
from tf_pipeline.runner import run_all

pytestmark = pytest.mark.platforms
PROGRAM = Path(__file__).with_name("classify_mediapipe.py")
TEXTS = [row["text"] for row in opinions(120, seed=3)] + [
    "Café naïve RÉSUMÉ", "THE ÉLAN of déjà vu", "x\u200by\u00adz\ttab", "½ — “quote” …", "🙂 ok",
    "a" * 300, "word " * 300]


@pytest.fixture(scope="module")
def classify(environment: Callable[[str], Path], artifact: Path,
             ) -> Callable[[str, list[str]], np.ndarray]:
    """Give MediaPipe's scores (texts, labels)."""
    def run(file: str, texts: list[str]) -> np.ndarray:
        done = subprocess.run([environment("mediapipe"), PROGRAM, artifact / file], text=True,
                              input="".join(f"{json.dumps(text)}\n" for text in texts),
                              capture_output=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return np.array([[row[label] for label in ("bad", "good")] for row in rows])

    return run


@pytest.fixture(scope="module")
def twin(run_folder: Path) -> Twin:
    return Twin(Run.load(run_folder))


@pytest.mark.parametrize(("file", "most"), [("model_L96.tflite", 1e-4),
                                            ("model_L96_int8.tflite", 0.2)])
def test_folded_texts_get_the_answers_of_keras(
        file: str, most: float, twin: Twin,
        classify: Callable[[str, list[str]], np.ndarray]) -> None:
    expected = twin.outputs([{"text": text} for text in TEXTS], 96)["probabilities"]
    found = classify(file, [mediapipe.fold(text) for text in TEXTS])
    assert np.abs(found - expected).max() < most
    if most < 0.01:
        assert (found.argmax(1) == expected.argmax(1)).all()


def test_what_convert_says_of_its_tokenizer_is_so(
        twin: Twin, classify: Callable[[str, list[str]], np.ndarray]) -> None:
    ids = mediapipe._encode(twin.encoder, TEXTS, 96)
    expected = run_all(twin.runner, ids)["probabilities"]
    right = twin.outputs([{"text": text} for text in TEXTS], 96)["probabilities"]
    found = classify("model_L96.tflite", TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - right).max() > 0.01  # accents do cost something
