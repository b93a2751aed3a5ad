"""Two texts in: `match`, and the other tasks on pairs, from records to files and server."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from serving.options import Limits
from serving.server import create_app
from tests.conftest import ROOT, command, opinions, pairs, write_csv
from tf_pipeline import Predictor
from tf_pipeline.config import ImportConfig, TrainConfig
from tf_pipeline.errors import UserError
from tf_pipeline.importing import import_folder
from tf_pipeline.run import Run
from tf_pipeline.task import question
from tf_pipeline.tasks import classify, match, regress
from tf_pipeline.training import fit

FITS, OTHER = ("our room ? 7", "lovely !"), ("our room . 7", "lovely !")


@pytest.fixture(scope="module")
def run(toy_run: Callable[[str], Path]) -> Path:
    return toy_run("match")


@pytest.fixture(scope="module")
def artifact(toy_artifact: Callable[[str], Path]) -> Path:
    return toy_artifact("match")


def test_a_pair_is_one_sequence_with_segments(run: Path) -> None:
    predictor = Predictor(run)
    encoded = predictor.encode([{"text": "a b", "text_b": "c"}])
    assert encoded.types.tolist() == [0, 0, 0, 0, 1, 1]
    assert [a["label"] for a in predictor([FITS, OTHER])] == ["fits", "does not fit"]
    assert predictor([" ||| ".join(FITS)]) == predictor([FITS])


@pytest.mark.parametrize("lengths", [(3, 200), (200, 3), (60, 60), (61, 60), (200, 200), (47, 90),
                                     (46, 46), (47, 46), (46, 47), (93, 0), (1, 1)])
def test_the_text_signature_cuts_pairs_as_the_tokenizer_does(lengths: tuple[int, int],
                                                            artifact: Path) -> None:
    from tf_pipeline.runtimes import saved_model

    loaded = saved_model.open_folder(artifact / "saved_model/1")
    text, text_b = (" ".join("ab"[i % 2] for i in range(n)) for n in lengths)
    ids, mask, types = (t.numpy()[0] for t in loaded.tokenize([text], [text_b]))
    encoded = Predictor(artifact).encode([{"text": text, "text_b": text_b}])
    assert ids[:mask.sum()].tolist() == encoded.ids.tolist()
    assert types[:mask.sum()].tolist() == encoded.types.tolist()


def test_the_text_signature_pads_pairs_of_a_batch(artifact: Path, run: Path) -> None:
    from tf_pipeline.runtimes import saved_model

    answer = saved_model.text_runner(saved_model.open_folder(artifact / "saved_model/1"))
    texts, others = zip(FITS, OTHER, ("a much longer first text, dear all ?", "!"), strict=True)
    got = answer(text=texts, text_b=others)
    expected = Predictor(run)(list(zip(texts, others, strict=True)))
    assert [label.decode() for label in got["label"]] == [a["label"] for a in expected]
    assert got["probabilities"].max(-1) == pytest.approx([a["score"] for a in expected], abs=1e-5)


def test_the_server_takes_pairs(artifact: Path) -> None:
    client = TestClient(create_app(Predictor(artifact, "onnx"), Limits()))
    one = client.post("/v1/models/match:answer", json={"text": FITS[0], "text_b": FITS[1]}).json()
    assert one["answers"][0]["label"] == "fits"
    both = client.post("/v1/models/match:answer", json={"texts": [FITS, OTHER]}).json()
    assert [a["label"] for a in both["answers"]] == ["fits", "does not fit"]
    rows = [{"text": t, "text_b": b} for t, b in (FITS, OTHER)]
    found = client.post("/v1/models/match:predict", json={"instances": rows}).json()["predictions"]
    assert [row["label"] for row in found] == ["fits", "does not fit"]
    assert client.get("/v1/models/match/files").json()["fields"] == ["text", "text_b"]


@pytest.mark.parametrize(("body", "words"), [
    ({"text": "a"}, "expected either 'texts' (an array of arrays of two strings) or 'text' and "
                    "'text_b'"),
    ({"texts": ["a", "b"]}, "texts[0] is \"a\""),
    ({"texts": [["a"], ["b"]]}, "texts[0] is an array of 1; expected 2 strings"),
    ({"texts": [["a", "b"], ["c"]]}, "texts[1] is an array of 1; expected 2 strings"),
    ({"texts": "a ||| b"}, "texts is \"a ||| b\"; expected an array"),
    ({"texts": [["a", "b", "c"]]}, "an array of 3; expected 2 strings"),
    ({"texts": []}, "an array of 0"),
    ({"text": "a", "text_b": 3}, "text_b is 3"),
])
def test_the_server_names_what_is_no_pair(body: object, words: str, artifact: Path) -> None:
    client = TestClient(create_app(Predictor(artifact, "onnx"), Limits()))
    answer = client.post("/v1/models/match:answer", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_the_commands_take_pairs(run: Path, artifact: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "test.csv", pairs(100, seed=9))
    scored = command("tf_pipeline", "evaluate", artifact, "--data", f"csv:{data}", "--json")
    assert json.loads(scored.stdout)["accuracy"] > 0.9
    done = command("tf_pipeline", "predict", artifact, " ||| ".join(FITS), " ||| ".join(OTHER))
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["fits", "does not fit"]
    alone = command("tf_pipeline", "predict", artifact, "only one")
    assert alone.returncode == 2
    assert "two texts with ||| between and was given 1: 'only one'" in alone.stderr
    verified = command("export", "verify", artifact)
    assert verified.returncode == 0, verified.stderr


def test_a_score_for_a_pair_is_a_regression(tmp_path: Path) -> None:
    rows = [{**row, "score": "4.5" if row.pop("label") == "fits" else "1"} for row in pairs(600)]
    data = write_csv(tmp_path / "scored.csv", rows)
    run = fit(TrainConfig(task="regress", train=f"csv:{data}", out=tmp_path / "run",
                          backbone="tiny", max_len=64, epochs=6, batch_size=16, patience=6,
                          learning_rate=5e-3), regress.Options())
    assert run.info["options"]["pairs"] is True
    assert run.metrics["test"]["pearson"] > 0.9
    high, low = (answer["score"] for answer in Predictor(tmp_path / "run")([FITS, OTHER]))
    assert high > 3 > low


def test_classify_reads_a_second_text_that_is_there() -> None:
    task = classify.Task.learn([{"text": "a", "text_b": "b", "label": "x"},
                                {"text": "a", "text_b": "b", "label": "y"}], classify.Options())
    assert task.options.pairs
    assert not classify.Task.learn([{"text": "a", "label": "x"}, {"text": "a", "label": "y"}],
                                   classify.Options()).options.pairs


def test_a_missing_second_text_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a record has text but no text_b"):
        Predictor(run).encode([{"text": "a"}])
    data = tmp_path / "half.csv"
    data.write_text("text,text_b,label\na,b,x\nc,,y\n")
    done = command("tf_pipeline", "train", "--task", "match", "--train", f"csv:{data}",
                   "--out", tmp_path / "run", "--backbone", "tiny")
    assert done.returncode == 2
    assert "no text_b (column 'text_b'): 1 (row 3)" in done.stderr
    single = write_csv(tmp_path / "single.csv", opinions(100))
    done = command("tf_pipeline", "train", "--task", "match", "--train", f"csv:{single}",
                   "--out", tmp_path / "run", "--backbone", "tiny")
    assert "Task match needs the fields text, text_b, label" in done.stderr
    assert "--task classify" in done.stderr


def test_questions_of_one_text_stay_whole() -> None:
    task = match.Task(("a", "b"), match.Options())  # before it has learned of pairs
    assert question(task, "left ||| right") == {"text": "left ||| right"}
    with pytest.raises(UserError, match="takes one text and was given 2"):
        question(task, ["left", "right"])


def test_an_imported_model_is_of_pairs_where_its_data_is(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "pairs.csv", [
        {k: v for k, v in row.items() if k != "label"} for row in pairs(40)])
    folder = ROOT / "tests/data/transformers_classify"
    run = import_folder(folder, ImportConfig(out=tmp_path / "run", max_len=32,
                                              data=f"csv:{data}"))
    assert run.info["task"] == "match"
    assert run.task.options.pairs
    assert set(run.evaluation()[0]) == {"text", "text_b", "label"}
    scored = ROOT / "tests/data/transformers_regress"
    run = import_folder(scored, ImportConfig(out=tmp_path / "scored", max_len=32,
                                              data=f"csv:{data}"))
    assert run.info["task"] == "regress"
    assert run.task.options.pairs


def test_golden_rows_of_no_real_text_are_pairs_too(run: Path, tmp_path: Path) -> None:
    from export import ConvertOptions, pipeline

    pipeline.build(Run.load(run), ConvertOptions(
        out=tmp_path / "artifact", formats=("onnx",), golden_text=False, golden=8))
    with np.load(tmp_path / "artifact/golden.npz") as golden:
        assert {frozenset(json.loads(r)) for r in golden["records"]} == {
            frozenset(("text", "text_b"))}
    assert "no real text" in (tmp_path / "artifact/README.md").read_text()
