"""Masked language models: what is learned, what it answers, and what is made of it."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from serving.options import Limits
from serving.server import create_app
from tests.conftest import command, opinions, rhymes, write_csv, write_lines
from tf_pipeline import checkpoints, heads
from tf_pipeline.config import TrainConfig
from tf_pipeline.data import Batching, InMemory
from tf_pipeline.decoding import log_softmax
from tf_pipeline.errors import UserError
from tf_pipeline.predictor import Predictor
from tf_pipeline.run import Run
from tf_pipeline.runner import run_all
from tf_pipeline.runtimes import keras as keras_runtime
from tf_pipeline.tasks.mlm import Options, Task
from tf_pipeline.training import fit

TEXT = "one bun, odd cat, one bun, odd cat, one [MASK]un, odd cat"


@pytest.fixture(scope="module")
def run(toy_run: Callable[[str], Path]) -> Path:
    return toy_run("mlm")


@pytest.fixture(scope="module")
def artifact(toy_artifact: Callable[[str], Path]) -> Path:
    return toy_artifact("mlm")


def test_a_small_corpus_is_learned(run: Path) -> None:
    scores = Run.load(run).metrics["test"]
    rows = Run.load(run).evaluation()
    pieces = Counter(piece for row in rows for piece in row["masked"])
    frequent = pieces.most_common(1)[0][1] / pieces.total()
    assert scores["masked_accuracy"] > max(0.5, 2 * frequent)
    assert scores["perplexity"] == pytest.approx(np.exp(scores["loss"]))
    assert scores["masks"] == pieces.total()


def test_a_second_way_of_hiding_words_is_refused(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "corpus.txt", rhymes(200))
    with pytest.raises(UserError, match="--word-dropout is 0.1, and task mlm hides words itself"):
        fit(TrainConfig("mlm", f"lines:{corpus}", tmp_path / "run", backbone="tiny",
                        word_dropout=0.1))
    assert not (tmp_path / "run").exists()


def test_the_trainers_loss_is_that_of_all_logits(run: Path) -> None:
    found = Run.load(run)
    task = found.task
    records = [{"text": line} for line in rhymes(64, seed=3)]
    encoded = task.encode(records, found.encoder)
    targets = task.targets(records)
    plain = InMemory(encoded, targets, task.weights(targets)).batches(Batching(16, 0))
    inputs, goals, _ = next(task.mask(plain, found.encoder, 0).as_numpy_iterator())
    trainer = task.trainer(found.model)
    trainer.compile(**task.compile_args())
    loss = trainer.evaluate(inputs, goals, verbose=0, batch_size=16)
    whole = found.model.predict_on_batch({k: v for k, v in inputs.items() if k != "positions"})
    rows, places = np.nonzero(goals["logits"] >= 0)
    chances = log_softmax(whole["logits"].astype(np.float64))
    expected = -chances[rows, inputs["positions"][rows, places], goals["logits"][rows, places]]
    assert loss == pytest.approx(expected.mean(), abs=1e-5)


def test_what_is_kept_of_the_logits_gives_the_scores_of_all(run: Path) -> None:
    found = Run.load(run)
    rows = found.evaluation()
    runner = keras_runtime.wrap(found.model)
    encoded = found.task.encode(rows, found.encoder)
    scores = found.task.score(run_all(runner, encoded), rows)
    inputs = encoded.padded(range(len(rows)), int(encoded.lengths.max()))
    chances = log_softmax(runner(inputs)["logits"].astype(np.float64))
    masked = np.nonzero(inputs["input_ids"] == found.encoder.number("[MASK]"))
    right = np.array([found.encoder.number(p) for row in rows for p in row["masked"]])
    assert scores["masks"] == len(right)
    assert scores["loss"] == pytest.approx(-chances[masked][np.arange(len(right)), right].mean(),
                                           abs=1e-5)
    assert scores["masked_accuracy"] == pytest.approx((chances[masked].argmax(-1) == right).mean())


def test_answers_are_pieces_with_probabilities(run: Path) -> None:
    nothing, (mask,), several = (answer["masks"] for answer in Predictor(run)(
        ["one bun", TEXT, "[MASK] and [MASK][MASK]"]))
    assert nothing == []
    assert mask["token"] == next(iter(mask["scores"])) == "b"
    assert TEXT[mask["start"]:mask["end"]] == "[MASK]"
    assert mask["score"] == max(mask["scores"].values()) > 0.3
    assert len(mask["scores"]) == 5
    assert sum(mask["scores"].values()) <= 1
    assert [m["start"] for m in several] == [0, 11, 17]


@pytest.mark.parametrize("runtime", ["onnx", "tflite", "saved_model"])
def test_files_answer_as_the_run_does(run: Path, artifact: Path, runtime: str) -> None:
    texts = [TEXT, "", "[MASK]", "no mask", "x [MASK] " * 200]
    expected, answers = Predictor(run)(texts), Predictor(artifact, runtime, "float32")(texts)
    for one, other in zip(expected, answers, strict=True):
        assert len(one["masks"]) == len(other["masks"])
        for a, b in zip(one["masks"], other["masks"], strict=True):
            assert a["score"] == pytest.approx(b["score"], abs=1e-4)
    assert answers[1] == {"masks": []}


def test_the_word_table_is_stored_once_in_float32(run: Path, artifact: Path) -> None:
    import onnx

    config = Run.load(run).config
    shape = sorted((config.vocab_size, config.hidden_size))
    graph = onnx.load(artifact / "onnx/model.onnx").graph
    assert [sorted(t.dims) for t in graph.initializer].count(shape) == 1


def test_the_server_answers_masks_and_takes_ids(artifact: Path) -> None:
    client = TestClient(create_app(Predictor(artifact), Limits()))
    (answer,) = client.post("/v1/models/mlm:answer", json={"text": TEXT}).json()["answers"]
    assert answer["masks"][0]["token"] == "b"
    row = {name: [1, 1, 1] for name in ("input_ids", "attention_mask", "token_type_ids")}
    (logits,) = client.post("/v1/models/mlm:predict", json={"instances": [row]}).json()[
        "predictions"]
    assert np.shape(logits) == (3, len(Predictor(artifact).encoder.vocabulary))


@pytest.mark.slow
def test_the_command_goes_from_lines_to_a_classifier(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "corpus.txt", [row["text"] for row in opinions(400)] + ["", ""])
    out = tmp_path / "vocab.txt"
    done = command("tf_pipeline", "vocabulary", "--train", f"lines:{corpus}", "--size", "120",
                   "--uncased", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"Wrote {out}"
    assert "2 blank lines skipped" in done.stderr
    new = f"new:vocab={out}&layers=1&hidden=16&heads=2"
    done = command("tf_pipeline", "train", "--task", "mlm", "--train", f"lines:{corpus}",
                   "--backbone", new, "--uncased", "--max-len", "48", "--epochs", "1",
                   "--whole-words", "--out", tmp_path / "domain")
    assert done.returncode == 0, done.stderr
    assert "perplexity" in done.stdout
    assert "test log_likelihood -" in done.stdout
    done = command("tf_pipeline", "predict", tmp_path / "domain", "the [MASK] was lovely", "none")
    assert [line.partition("\t")[2] for line in done.stdout.splitlines()] == [
        "the [MASK] was lovely", "none"]
    done = command("tf_pipeline", "evaluate", tmp_path / "domain", "--data", f"lines:{corpus}",
                   "--json", "--report", tmp_path / "report.html")
    assert json.loads(done.stdout)["masks"] > 100, done.stderr
    labelled = write_csv(tmp_path / "labelled.csv", opinions(300))
    run = fit(TrainConfig(task="classify", train=f"csv:{labelled}", out=tmp_path / "run", epochs=1,
                          backbone=str(tmp_path / "domain"), max_len=48))
    assert run.config.hidden_size == 16
    assert run.encoder.vocabulary == (tmp_path / "vocab.txt").read_text("utf-8").splitlines()


def test_a_run_goes_on_with_its_own_head(run: Path) -> None:
    found = Run.load(run)
    checkpoint = checkpoints.load(str(run))
    model = found.task.build(checkpoint.build())
    found.task.restore(model, checkpoint.weights)
    for one, other in zip(found.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_head_that_lacks_or_does_not_fit(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Run.load(run).model
    weights = heads.get_vocabulary_weights(model)
    task = Task((), Options())
    task.restore(model, {"embeddings.LayerNorm.weight": np.ones(3)})
    assert "hold no head for masked language modelling" in caplog.text
    wrong = {**weights, "cls.predictions.transform.dense.bias": np.zeros(7)}
    with pytest.raises(UserError, match=r"dense.bias' has shape \(7,\)"):
        task.restore(model, wrong)


def test_a_corpus_of_less_than_a_batch(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "corpus.txt", rhymes(60))
    with pytest.raises(UserError, match="training examples do not fill one batch of --batch-size"):
        fit(TrainConfig(task="mlm", train=f"lines:{corpus}", backbone="tiny", out=tmp_path / "run"))


def test_tables_need_a_text(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [{"words": "a b", "label": "x"}] * 20)
    with pytest.raises(UserError, match="text"):
        fit(TrainConfig(task="mlm", train=f"csv:{path}", backbone="tiny", out=tmp_path / "run"))
