"""Names in text with a trained model: offsets, long texts, words without a piece, bad tags."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from serving.options import Limits
from serving.server import create_app
from tests.conftest import command, travels, write_conll
from tf_pipeline.config import TrainConfig
from tf_pipeline.errors import UserError
from tf_pipeline.predictor import Predictor
from tf_pipeline.reading import read_data
from tf_pipeline.tasks.tag import Options, Task

TEXT = "Today Quentin Quist went to Xanten!"


@pytest.fixture(scope="module")
def run(toy_run: Callable[[str], Path]) -> Path:
    return toy_run("tag")


@pytest.fixture(scope="module")
def artifact(toy_artifact: Callable[[str], Path]) -> Path:
    return toy_artifact("tag")


def named(answer: dict) -> list[tuple[str, str]]:
    return [(span["label"], span["text"]) for span in answer["spans"]]


def test_spans_carry_the_texts_own_characters(run: Path) -> None:
    (answer,) = Predictor(run)([f"  {TEXT}"])
    assert named(answer) == [("PER", "Quentin Quist"), ("LOC", "Xanten")]
    for span in answer["spans"]:
        assert f"  {TEXT}"[span["start"]:span["end"]] == span["text"]
        assert 0.5 < span["score"] <= 1


@pytest.mark.parametrize("runtime", ["onnx", "tflite", "saved_model"])
def test_files_answer_as_the_run_does(run: Path, artifact: Path, runtime: str) -> None:
    texts = [TEXT, "", "   ", "\u200b\u200b", "😀", "Nothing was there.", "x" * 3000]
    expected = Predictor(run)(texts)
    answers = Predictor(artifact, runtime, "float32")(texts)
    assert list(map(named, answers)) == list(map(named, expected))
    assert answers[1] == {"spans": []}


@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_a_text_of_many_windows_keeps_every_name(artifact: Path, runtime: str) -> None:
    text = " ".join([TEXT] * 20)
    answer = Predictor(artifact, runtime)([text])[0]
    found = named(answer)
    assert found.count(("LOC", "Xanten")) >= 19
    assert found.count(("PER", "Quentin Quist")) >= 19
    assert max(span["end"] for span in answer["spans"]) > len(text) - 10


def test_the_server_answers_spans_and_raw_logits(artifact: Path) -> None:
    client = TestClient(create_app(Predictor(artifact, "onnx"), Limits()))
    answer = client.post("/v1/models/tag:answer", json={"text": TEXT}).json()["answers"][0]
    assert named(answer) == [("PER", "Quentin Quist"), ("LOC", "Xanten")]
    rows = client.post("/v1/models/tag:predict", json={"instances": [TEXT, "Zoe left"]}).json()
    from tf_pipeline.runtimes.saved_model import open_folder, text_runner

    served = text_runner(open_folder(artifact / "saved_model/1"))(
        text=[TEXT, "Zoe left"])["logits"]
    np.testing.assert_allclose(rows["predictions"], served, atol=1e-4)


def test_evaluate_and_predict_by_command(run: Path, artifact: Path, tmp_path: Path) -> None:
    data = write_conll(tmp_path / "more.conll", travels(50, seed=1))
    done = command("tf_pipeline", "evaluate", artifact, "--data", f"conll:{data}")
    assert done.returncode == 0, done.stderr
    assert "span_f1" in done.stdout
    assert "PER" in done.stdout
    done = command("tf_pipeline", "predict", run, TEXT)
    assert "PER 'Quentin Quist'" in done.stdout


def test_iob1_data_trains_the_same_labels(tmp_path: Path) -> None:
    loose = [(words, [t.replace("B-", "I-") for t in tags]) for words, tags in travels(200)]
    tasks = [read_data(TrainConfig(task="tag", train=f"conll:{write_conll(tmp_path / n, s)}"),
                       Options())[1] for n, s in (("a.conll", loose), ("b.conll", travels(200)))]
    assert tasks[0].labels == tasks[1].labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def test_repaired_tags_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    rows = [{"tokens": list("abc"), "tags": ["B-PER", "O", "B-LOC"]}] * 3
    Task.learn([*rows, {"tokens": ["a"], "tags": ["I-PER"]}], Options())
    assert "1 of 7 spans open with I- and no B- before" in caplog.text
    Task.learn([{"tokens": list("abc"), "tags": ["I-PER", "O", "I-LOC"]}], Options())
    assert "2 of 2 spans open with I-, as IOB1 writes them" in caplog.text


def test_tags_that_cannot_be_are_named() -> None:
    task = Task(("O", "B-PER", "I-PER"), Options())
    with pytest.raises(UserError, match="'B-LOC' .1x.*Known: 'O', 'B-PER'"):
        task.targets([{"tokens": ["a"], "tags": ["B-LOC"]}])
    with pytest.raises(UserError, match="2 tokens and 1 tags in the sentence 'a b'"):
        task.targets([{"tokens": ["a", "b"], "tags": ["O"]}])
    with pytest.raises(UserError, match="hold no 'O'"):
        Task(("B-PER",), Options())
    with pytest.raises(UserError, match="None of the 1 training sentences"):
        Task.learn([{"tokens": ["a"], "tags": ["O"]}], Options())
