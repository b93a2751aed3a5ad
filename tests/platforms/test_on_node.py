"""transformers.js and onnxruntime-web, in Node, open the artifact as it is and answer as Keras."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.twin import Twin
from tf_pipeline import plugins, tasks
from tf_pipeline.predictor import Predictor
from tf_pipeline.run import Run
from tf_pipeline.runner import Runner
from tf_pipeline.text import SPECIAL_TOKENS, Arrays

pytestmark = pytest.mark.platforms
TEXTS = ["the room was lovely", "Café, honestly — 😀", "a", "Quentin Quist left Jena .",
         "one [MASK], ten hen, one [MASK]"]
LONG = "word " * 90
PIPELINES = {"classify": "text-classification", "multilabel": "text-classification",
             "tag": "token-classification"}
DTYPES = [("fp32", "float32"), ("q8", "int8")]

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def node(npm_folder: Callable[[str], Path]) -> Ask:
    """Give a function that runs a program of tests/platforms/node: JSON in, JSON lines out."""
    folder = npm_folder("node")

    def ask(program: str, *words: Path | str, given: Any) -> list[dict[str, Any]]:
        done = subprocess.run(["node", folder / program, *words], input=json.dumps(given),
                              text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return ask


class Reference:
    """What answers are held beside: Keras, or of an int8 file what this kit makes of it."""

    def __init__(self, run: Path, artifact: Path, variant: str):
        self.twin = Twin(Run.load(run))
        self.task, self.encoder = self.twin.task, self.twin.encoder
        self.run: Runner = (self.twin.runner if variant == "float32" else
                            Predictor(artifact, "onnx", variant).run)

    def inputs(self, text: str | list[str]) -> Arrays:
        first, *second = [text] if isinstance(text, str) else text
        one = self.encoder.encode([first], second or None, self.twin.run.max_len)
        return dict(one.padded([0], len(one.ids)))

    def check(self, given: Arrays, found: dict[str, Any], near: float = 1e-4) -> np.ndarray:
        """Compare all outputs for one row, and give what was expected of the first."""
        expected = self.run(given)
        assert set(found) == set(self.task.OUTPUTS["onnx"])
        for name in found:
            np.testing.assert_allclose(np.reshape(found[name], expected[name][0].shape),
                                       expected[name][0], atol=near * self.task.unit)
        return expected.get("logits", expected.get("last_hidden_state"))[0]


@pytest.mark.parametrize(("dtype", "variant"), DTYPES)
@pytest.mark.parametrize("task", plugins.names(tasks))
def test_transformers_js_gives_our_answers(task: str, dtype: str, variant: str, node: Ask,
                                           toy_run: Callable[[str], Path],
                                           toy_artifact: Callable[[str], Path]) -> None:
    artifact = toy_artifact(task)
    reference = Reference(toy_run(task), artifact, variant)
    pair = len(reference.task.text_fields) == 2
    texts: list[Any] = [[text, "lovely !"] for text in TEXTS] if pair else [*TEXTS, LONG]
    found = node("answer_transformers.js", f"{artifact.parent}/", artifact.name, dtype,
                 *([PIPELINES[task]] if task in PIPELINES else []), given=texts)
    assert len(found) == len(texts)
    for text, answer in zip(texts, found, strict=True):
        given = reference.inputs(text)
        assert answer["ids"] == given["input_ids"][0].tolist()
        logits = reference.check(given, answer["outputs"])
        if text == LONG:  # docs/export.md says so; the pipelines cut in the same way
            assert answer["given"] != answer["ids"][-1], "transformers.js keeps [SEP] now"
            continue
        assert answer["given"] == answer["ids"][-1]
        if task == "tag":  # a label for each piece; the unknown one counts as special there
            labels = [reference.task.labels[best] for best, number in
                      zip(logits.argmax(-1), answer["ids"], strict=True)
                      if reference.encoder.vocabulary[number] not in SPECIAL_TOKENS]
            assert [piece["entity"] for piece in answer["answer"]] == labels
        elif task in PIPELINES:
            scores = {row["label"]: row["score"] for row in answer["answer"]}
            wanted = reference.task.served({"logits": logits[None]})["probabilities"][0]
            np.testing.assert_allclose([scores[label] for label in reference.task.labels], wanted,
                                       atol=1e-4)


@pytest.mark.parametrize("variant", ["float32", "int8"])
@pytest.mark.parametrize("task", ["classify", "tag", "embed"])
def test_onnxruntime_web_gives_our_answers(task: str, variant: str, node: Ask,
                                           toy_run: Callable[[str], Path],
                                           toy_artifact: Callable[[str], Path]) -> None:
    artifact = toy_artifact(task)
    reference = Reference(toy_run(task), artifact, variant)
    rows = [reference.inputs(text) for text in (*TEXTS, LONG)]
    file = "model.onnx" if variant == "float32" else "model_quantized.onnx"
    found = node("answer_onnxruntime_web.js", artifact / "onnx" / file,
                 given=[{name: values[0].tolist() for name, values in row.items()}
                        for row in rows])
    assert len(found) == len(rows)
    # Some CPUs round sums of int8 products where WebAssembly does not.
    near = 1e-4 if variant == "float32" else 2e-2
    for row, answer in zip(rows, found, strict=True):
        reference.check(row, answer, near)
