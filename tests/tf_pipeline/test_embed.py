"""Texts as vectors with trained models: pairs, graded pairs, bad input, every way to ask."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from export import parity
from serving import create_app
from tests.conftest import command, routes, write_csv
from tf_pipeline import Predictor, Run, TrainConfig, UserError, checkpoints, fit
from tf_pipeline.data import Batching, InMemory
from tf_pipeline.runner import run_all
from tf_pipeline.tasks import embed
from tf_pipeline.text import Arrays

QUESTION, ANSWER = "Where is the stone mill?", "A bus leaves for the stone mill."
OTHER = "A bus leaves for the golden lake."


def graded(count: int = 200) -> list[dict[str, str]]:
    """Give pairs of a place with itself (5), with one of its kind (2) or with any other (0)."""
    rows, all_rows = [], routes()
    for i in range(count):
        row, other = all_rows[i], all_rows[(i * 7 + 1) % len(all_rows)]
        score = (5, 2, 0)[i % 3]
        kind = row["text_b"].split()[-2]
        answer = {5: row["text_b"], 2: f"A bus leaves for the {kind} moon.",
                  0: other["text_b"]}[score]
        rows.append({"text": row["text"], "text_b": answer, "score": str(score)})
    return rows


def config(data: Path, out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(**{"task": "embed", "train": f"csv:{data}", "out": out, "backbone": "tiny",
                          "max_len": 64, "epochs": 4, "batch_size": 16, "learning_rate": 5e-3,
                          **changes})


def task_of(records: list[dict], **options: Any) -> embed.Task:
    return embed.Task.learn(records, embed.Options(**options))


def embedding_of(vectors: list) -> Arrays:
    return {"sentence_embedding": np.array(vectors, np.float32)}


def test_a_trained_model_finds_the_answers(toy_run: Callable[[str], Path]) -> None:
    run = Run.load(toy_run("embed"))
    assert run.info["metric"] == "mrr"
    assert run.metrics["test"]["mrr"] > 0.9
    assert set(run.metrics["test"]) == {"examples", "queries", "documents", "recall@1", "hit@1",
                                        "recall@10", "hit@10", "mrr", "ndcg@10", "loss"}
    outputs = run.model.predict_on_batch(run.encoder.encode([QUESTION, OTHER]).padded([0, 1], 64))
    assert outputs["last_hidden_state"].shape == (2, 64, 32)
    assert np.linalg.norm(outputs["sentence_embedding"], axis=-1) == pytest.approx([1, 1])


@pytest.mark.parametrize("runtime", [None, "onnx", "tflite", "saved_model"])
def test_answers_are_vectors_and_pairs_have_a_similarity(
        runtime: str | None, toy_run: Callable[[str], Path],
        toy_artifact: Callable[[str], Path]) -> None:
    predictor = Predictor(toy_artifact("embed") if runtime else toy_run("embed"), runtime)
    question, empty = predictor([QUESTION, ""])
    assert set(question) == {"embedding"}
    for vector in (question["embedding"], empty["embedding"]):
        assert len(vector) == 32
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    near, far = predictor([{"text": QUESTION, "text_b": text} for text in (ANSWER, OTHER)])
    assert near["embedding"] == pytest.approx(question["embedding"], abs=1e-5)
    assert near["similarity"] > far["similarity"] + 0.3
    with pytest.raises(UserError, match="two forms: the first has text, and record 2 text, text_b"):
        predictor([QUESTION, {"text": QUESTION, "text_b": ANSWER}])


def test_graded_pairs_are_ranked_by_their_scores(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "graded.csv", graded())
    run = fit(config(data, tmp_path / "run"))
    assert run.info["metric"] == "spearman"
    assert run.info["options"]["score_range"] == [0.0, 5.0]
    assert run.metrics["validation"]["spearman"] > 0.6  # of 20 rows, as the test's 17
    assert set(run.metrics["test"]) == {"examples", "spearman", "pearson", "loss"}
    with pytest.raises(UserError, match="the score 7 of 'a'; allowed: 0 to 5"):
        run.task.targets([{"text": "a", "text_b": "b", "score": 7.0}])
    done = command("export", "convert", run.path, "--out", tmp_path / "a", "--formats", "onnx")
    assert done.returncode == 0, done.stderr


def test_hard_negatives_train(tmp_path: Path) -> None:
    rows = [{**row, "hard": other["text_b"]}
            for row, other in zip(routes(), routes()[1:], strict=False)]
    data = write_csv(tmp_path / "hard.csv", rows)
    run = fit(config(data, tmp_path / "run", train=f"csv:{data}?negative=hard"))
    assert run.metrics["test"]["mrr"] > 0.9
    assert "negative" in run.evaluation()[0]


def test_no_epochs_score_the_checkpoint_itself(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "routes.csv", routes())
    run = fit(config(data, tmp_path / "run", epochs=0, backbone="minilm"))
    assert run.metrics["best_epoch"] == 0
    assert run.metrics["history"] == []
    wanted, got = checkpoints.load("minilm").build().get_weights(), run.backbone.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(wanted, got, strict=True))
    labelled = write_csv(tmp_path / "c.csv", [{"text": row["text"], "label": str(i % 2)}
                                              for i, row in enumerate(routes())])
    with pytest.raises(UserError, match="--epochs is 0, and the weights that task classify adds"):
        fit(config(labelled, tmp_path / "c", task="classify", epochs=0))
    assert not (tmp_path / "c").exists()


def test_equal_texts_are_encoded_once_and_run_once() -> None:
    encoder = checkpoints.load("tiny").encoder
    records = [{"text": "a", "text_b": "b b"}, {"text": "c c c", "text_b": "b b"}]
    encoded = task_of(records).encode(records, encoder)
    assert len(encoded) == 3
    assert encoded.groups.tolist() == [[0, 1], [2, 1]]
    assert encoded.text_lengths.tolist() == [max(encoded.lengths[:2]), max(encoded.lengths[1:])]
    rows: list[int] = []

    def model(inputs: Arrays) -> Arrays:
        rows.append(len(inputs["input_ids"]))
        return {"sum": inputs["input_ids"].sum(1, keepdims=True),
                "tokens": inputs["input_ids"][..., None]}

    outputs = run_all(model, encoded)
    assert rows == [3]
    sums = [encoded.ids[a:b].sum() for a, b in zip(encoded.splits, encoded.splits[1:],
                                                   strict=False)]
    assert outputs["sum"][..., 0].tolist() == [[sums[0], sums[1]], [sums[2], sums[1]]]
    assert set(outputs) == {"sum"}  # vectors of all tokens of all texts would fill the memory


def test_training_batches_hold_whole_records() -> None:
    encoder = checkpoints.load("minilm").encoder
    records = [{"text": f"{'word ' * (i % 9)}{i}", "text_b": f"{'more ' * (i % 5)}{i}"}
               for i in range(50)]
    task = task_of(records)
    encoded, targets = task.encode(records, encoder), task.targets(records)
    batches = InMemory(encoded, targets, task.weights(targets)).batches(Batching(10, 0))
    for inputs, goals, weights in batches.take(12).as_numpy_iterator():
        assert inputs["input_ids"].shape[0] == 20
        assert weights.shape == (10,)
        for row, number in enumerate(goals["sentence_embedding"].ravel()):
            span = encoded.ids[encoded.splits[number]:encoded.splits[number + 1]]
            used = inputs["attention_mask"][row].sum()
            assert inputs["input_ids"][row, :used].tolist() == span.tolist()


def test_any_second_text_of_a_first_one_is_right() -> None:
    records = [{"text": "q", "text_b": "a"}, {"text": "q", "text_b": "b"},
               {"text": "r", "text_b": "c"}]
    outputs = embedding_of([[[1, 0], [0, 1]], [[1, 0], [1, 0]], [[0, 1], [0.6, 0.8]]])
    scores = task_of(records).score(outputs, records)
    # q ranks b c a, of which b and a are right; r ranks a c b, of which c is right.
    assert (scores["queries"], scores["documents"], scores["examples"]) == (2, 3, 3)
    assert scores["mrr"] == pytest.approx((1 + 1 / 2) / 2)
    assert scores["recall@1"] == pytest.approx((1 / 2 + 0) / 2)
    assert scores["hit@1"] == pytest.approx((1 + 0) / 2)
    assert scores["hit@10"] == 1.0


@pytest.mark.parametrize("rows", [routes()[:10], [{**r, "score": float(r["score"])}
                                                  for r in graded(10)]], ids=["pairs", "graded"])
def test_the_evaluation_loss_is_the_training_loss_of_a_batch(rows: list[dict]) -> None:
    task = task_of(rows)
    vectors = np.random.default_rng(0).normal(size=(10, 2, 8))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    values = vectors.astype(np.float32)
    loss = task.compile_args()["loss"]["sentence_embedding"](
        task.targets(rows)["sentence_embedding"], values.reshape(20, 8))
    scored = task.score({"sentence_embedding": values}, rows)["loss"]
    assert scored == pytest.approx(float(np.mean(np.asarray(loss))), rel=1e-4)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: embed.Options(temperature=0), "--temperature is 0; allowed: above 0"),
    (lambda: embed.Options(score_range=(5.0, 0.0)), "--score-range is 5.0,0.0; expected"),
    (lambda: task_of([{"text": "a", "text_b": "b"}], score_range=(0.0, 5.0)),
     "--score-range is 0.0,5.0, and the training data has no score"),
    (lambda: task_of([{"text": "a", "text_b": "b", "negative": "c", "score": 1.0}]),
     r"score and negative \(text, text_b, negative, score\)"),
    (lambda: task_of([{"text": "a", "text_b": "b", "score": 1.0}] * 3),
     "All 3 training records have the score 1.0"),
    (lambda: task_of([{"text": "a", "text_b": "b"}]).targets(
        [{"text": "a", "text_b": "b", "score": 1.0}]), "trained on pairs without a score"),
    (lambda: embed.Task((), embed.Options(score_range=(0.0, 1.0))).targets(
        [{"text": "a", "text_b": "b"}]), "records with text, text_b, and .* with a score"),
    (lambda: task_of([{"text": "a", "text_b": "b"}]).targets(
        [{"text": "a", "text_b": "b"}, {"text": "a", "text_b": None}]),
     "two forms: the first has text, text_b, and record 2 text"),
])
def test_bad_input_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(("rows", "message"), [
    ([{"text": "a", "text_b": "b"}] * 9 + [{"text": "a", "text_b": ""}],
     r"no text_b \(column 'text_b'\): 1 \(row 11\)"),
    ([{"text": "a", "text_b": "b", "negative": "c"}, {"text": "a", "text_b": "b", "negative": " "}],
     r"no negative \(column 'negative'\): 1 \(row 3\)"),
    ([{"text": f"a {i}", "text_b": "b", "score": str(i)} for i in range(60)],
     "The validation data .* has the score 49 of 'a 49'; allowed: 0 to 10"),
    ([{"text": str(i)} for i in range(60)], "needs the fields text, text_b; the train data"),
], ids=["text_b", "negative", "score", "single"])
def test_bad_data_is_named(rows: list[dict[str, str]], message: str, tmp_path: Path) -> None:
    train, other = (write_csv(tmp_path / f"{name}.csv", part) for name, part in (
        ("train", rows[:11]), ("validation", rows[-11:])))
    with pytest.raises(UserError, match=message):
        fit(config(train, tmp_path / "run", validation=f"csv:{other}", test=f"csv:{other}"))
    assert not (tmp_path / "run").exists()


def test_the_artifact_holds_what_sentence_transformers_reads(
        toy_artifact: Callable[[str], Path]) -> None:
    folder = toy_artifact("embed")

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text("utf-8"))

    assert [(m["path"], m["type"].rpartition(".")[2]) for m in read("modules.json")] == [
        ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    assert read("sentence_bert_config.json")["max_seq_length"] == 96
    pooling = read("1_Pooling/config.json")
    assert pooling["word_embedding_dimension"] == 32
    assert [k for k, v in pooling.items() if v is True] == ["pooling_mode_mean_tokens"]
    assert read("config_sentence_transformers.json")["similarity_fn_name"] == "cosine"
    assert read("config.json")["architectures"] == ["BertModel"]
    manifest = read("manifest.json")
    assert {"modules.json", "1_Pooling/config.json"} <= set(manifest["files"])
    outputs = {g["runtime"]: g["outputs"] for g in manifest["graphs"]}
    both = ["last_hidden_state", "sentence_embedding"]
    assert outputs == {"onnx": both, "saved_model": both, "tflite": ["sentence_embedding"]}
    for graph in manifest["graphs"]:
        assert graph["parity"]["cosines"]["sentence_embedding"] > 0.99
        assert list(graph["parity"]["differences"]) == sorted(graph["outputs"], reverse=True)


def test_what_sentence_transformers_computes_is_the_vector(
        toy_artifact: Callable[[str], Path]) -> None:
    """Its modules are the mean of the graph's first output, and the division by the length."""
    predictor = Predictor(toy_artifact("embed"))
    inputs = predictor.encode([{"text": t} for t in (QUESTION, "a")]).padded([0, 1], 64)
    outputs = predictor.run(inputs)
    mask = inputs["attention_mask"][..., None]
    mean = (outputs["last_hidden_state"] * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(mean / np.linalg.norm(mean, axis=-1, keepdims=True),
                               outputs["sentence_embedding"], atol=1e-6)


def test_parity_holds_vectors_by_their_cosine_and_neighbours_by_their_lead() -> None:
    task, records = task_of([{"text": "a", "text_b": "b"}]), [{"text": "a"}] * 4
    angles = np.deg2rad([0, 20, 40.5, 120])
    expected = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)[:, None]
    nudged = np.deg2rad([0, 20.5, 40, 120])  # the second is now nearer to the third
    actual = np.stack([np.cos(nudged), np.sin(nudged)], 1).astype(np.float32)[:, None]
    verdicts = {name: parity.compare(task, records, {"sentence_embedding": expected},
                                     {"sentence_embedding": actual}, tolerance, scored=False)
                for name, tolerance in parity.TOLERANCES.items()}
    assert verdicts["int8"].ok
    assert verdicts["int8"].ties == 1
    assert "1 of 4 decisions differ" in " ".join(verdicts["float32"].reasons)
    turned = parity.compare(task, records, {"sentence_embedding": expected},
                            {"sentence_embedding": -expected}, parity.TOLERANCES["int8"],
                            scored=False)
    assert turned.reasons == ("mean cosine of sentence_embedding -1.00000 is below 0.99",)


def test_the_server_answers_and_predicts(toy_artifact: Callable[[str], Path]) -> None:
    client = TestClient(create_app(Predictor(toy_artifact("embed"))))
    answered = client.post("/v1/models/embed:answer", json={"text": QUESTION}).json()
    vector = answered["answers"][0]["embedding"]
    predicted = client.post("/v1/models/embed:predict", json={"instances": [QUESTION, ANSWER]})
    assert predicted.json()["predictions"][0] == pytest.approx(vector, abs=1e-6)
    tokens = {"signature_name": "tokens", "inputs": {
        name: [[2, 5, 3]] for name in ("input_ids", "attention_mask", "token_type_ids")}}
    tokens["inputs"]["attention_mask"] = tokens["inputs"]["token_type_ids"] = [[1, 1, 1]]
    outputs = client.post("/v1/models/embed:predict", json=tokens).json()["outputs"]
    assert np.shape(outputs["last_hidden_state"]) == (1, 3, 32)
    assert np.shape(outputs["sentence_embedding"]) == (1, 32)
    assert client.get("/v1/models/embed/files").json()["labels"] == []


@pytest.mark.slow
def test_the_whole_road_by_command(tmp_path: Path) -> None:
    data, run, artifact = tmp_path / "routes.csv", tmp_path / "run", tmp_path / "artifact"
    write_csv(data, [{"question": r["text"], "answer": r["text_b"]} for r in routes()])
    spec = f"csv:{data}?text=question&text_b=answer"
    done = command("tf_pipeline", "train", "--task", "embed", "--train", spec, "--backbone",
                   "tiny", "--max-len", "48", "--epochs", "3", "--batch-size", "16",
                   "--learning-rate", "5e-3", "--temperature", "0.1", "--out", run)
    assert done.returncode == 0, done.stderr
    assert "test mrr" in done.stdout
    done = command("tf_pipeline", "evaluate", run, "--data", spec, "--json", "--report",
                   tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hit@10"] > 0.9
    done = command("tf_pipeline", "predict", run, QUESTION, "--json")
    assert len(json.loads(done.stdout)["embedding"]) == 32
    done = command("export", "convert", run, "--out", artifact, "--formats", "onnx,tflite")
    assert done.returncode == 0, done.stderr
    done = command("export", "verify", artifact)
    assert done.returncode == 0, done.stderr
    done = command("tf_pipeline", "predict", artifact, QUESTION, "--runtime", "tflite",
                   "--variant", "int8")
    assert "...] 32 numbers\tWhere is the stone mill?" in done.stdout
