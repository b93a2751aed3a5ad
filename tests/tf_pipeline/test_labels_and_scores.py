"""Several labels and numbers with trained models: answers, thresholds, units, bad input."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from serving import Limits, create_app
from tests.conftest import command, opinions, shades, write_csv
from tf_pipeline import Predictor, Run, TrainConfig, UserError, fit
from tf_pipeline.tasks import classify, multilabel, regress

LOUD = "We came back because the garden was lovely, and we told all our friends about it!"
PLAIN = "the garden was lovely"


@pytest.mark.parametrize("runtime", ["onnx", "tflite", "saved_model"])
def test_labels_over_their_thresholds_are_given(runtime: str,
                                                toy_artifact: Callable[[str], Path]) -> None:
    answers = Predictor(toy_artifact("multilabel"), runtime)([LOUD, PLAIN])
    assert sorted(answers[0]["labels"]) == ["loud", "pause"]
    assert answers[1]["labels"] == []
    assert set(answers[1]["scores"]) == {"loud", "pause", "smile"}


def test_thresholds_stand_where_clients_look(toy_artifact: Callable[[str], Path],
                                             toy_run: Callable[[str], Path]) -> None:
    config = json.loads((toy_artifact("multilabel") / "config.json").read_text())
    chosen = Run.load(toy_run("multilabel")).info["options"]["thresholds"]
    assert len(chosen) == 3
    assert config["decoding"]["thresholds"] == chosen
    assert config["problem_type"] == "multi_label_classification"


@pytest.mark.parametrize("runtime", ["onnx", "tflite", "saved_model"])
def test_scores_come_in_their_own_unit(runtime: str, toy_artifact: Callable[[str], Path],
                                       toy_run: Callable[[str], Path]) -> None:
    loud, plain = (a["score"] for a in Predictor(toy_artifact("regress"), runtime)([LOUD, PLAIN]))
    assert loud == pytest.approx(4.5, abs=0.3)
    assert plain == pytest.approx(1.5, abs=0.3)
    again = [a["score"] for a in Predictor(toy_run("regress"))([LOUD, PLAIN])]
    assert again == pytest.approx([loud, plain], abs=1e-3)


@pytest.mark.slow
def test_scores_of_thousands_are_exported_too(tmp_path: Path) -> None:
    rows = [{"text": r["text"], "score": str(1e5 * float(r["score"]))} for r in shades(600)]
    data = write_csv(tmp_path / "prices.csv", rows)
    fit(TrainConfig(task="regress", train=f"csv:{data}", out=tmp_path / "run", backbone="tiny",
                    max_len=96, epochs=4, batch_size=16, learning_rate=5e-3))
    done = command("export", "convert", tmp_path / "run", "--out", tmp_path / "a",
                   "--formats", "onnx")
    assert done.returncode == 0, done.stderr
    (answer,) = Predictor(tmp_path / "a")([PLAIN])
    assert 0.5e5 < answer["score"] < 3e5


@pytest.mark.parametrize("task", ["multilabel", "regress"])
def test_the_server_answers_and_predicts(task: str, toy_artifact: Callable[[str], Path]) -> None:
    client = TestClient(create_app(Predictor(toy_artifact(task)), Limits()))
    (answer,) = client.post(f"/v1/models/{task}:answer", json={"text": LOUD}).json()["answers"]
    (row,) = client.post(f"/v1/models/{task}:predict",
                         json={"instances": [LOUD]}).json()["predictions"]
    if task == "regress":
        assert row == pytest.approx([answer["score"]])
    else:
        assert row == pytest.approx([answer["scores"][k] for k in ("loud", "pause", "smile")])


def test_evaluate_and_predict_by_command(toy_artifact: Callable[[str], Path],
                                         tmp_path: Path) -> None:
    data = write_csv(tmp_path / "more.csv", shades(60, seed=1))
    done = command("tf_pipeline", "evaluate", toy_artifact("multilabel"), "--data",
                   f"csv:{data}?score=")
    assert done.returncode == 0, done.stderr
    assert "macro_f1" in done.stdout
    done = command("tf_pipeline", "evaluate", toy_artifact("regress"), "--data",
                   f"csv:{data}?labels=", "--report", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    assert "mean_absolute_error" in done.stdout
    assert "pearson" in (tmp_path / "report.html").read_text()
    done = command("tf_pipeline", "predict", toy_artifact("multilabel"), LOUD, PLAIN)
    first, second = done.stdout.splitlines()
    assert "loud" in first
    assert "pause" in first
    assert second.startswith("-")


def test_texts_out_of_scope_are_told_apart_by_command(artifact: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "in.csv", opinions(60, seed=1))
    out = write_csv(tmp_path / "out.csv", [{"text": f"{n} × {n} = {n * n}"} for n in range(40)])
    done = command("tf_pipeline", "evaluate", artifact, "--data", f"csv:{data}",
                   "--out-of-scope", f"csv:{out}", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["out_of_scope"]
    assert found["examples"] == 40
    assert 0 <= found["auroc"] <= 1


def test_a_number_has_no_confidence_to_tell_scopes_by(toy_run: Callable[[str], Path]) -> None:
    predictor = Predictor(toy_run("regress"))
    with pytest.raises(UserError, match="--out-of-scope is 0 texts.*have no confidence"):
        predictor.out_of_scope([], {}, [])


def test_texts_out_of_scope_need_a_text(run_folder: Path) -> None:
    with pytest.raises(UserError, match="records with tokens, tags and without text"):
        Predictor(run_folder).out_of_scope([], {}, [{"tokens": ["a"], "tags": ["O"]}])


def test_abstaining_gives_no_label_and_is_scored() -> None:
    task = classify.Task(("no", "yes"), classify.Options(abstain_below=0.7))
    outputs = {"probabilities": np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])}
    records = [{"text": t, "label": "yes"} for t in "abc"]
    answers = task.decode(outputs, records, None)  # type: ignore[arg-type]
    assert [a["label"] for a in answers] == ["no", None, "yes"]
    assert task.decisions(outputs)[0] == [{0}, set(), {1}]
    scores = task.score(outputs, records)
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert (scores["answered"], scores["answered_accuracy"]) == (pytest.approx(2 / 3), 0.5)


@pytest.mark.slow
def test_losses_that_the_options_choose_train(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "data.csv", opinions(300))
    both = write_csv(tmp_path / "both.csv", shades(300))
    for task, spec, options in (
            ("classify", f"csv:{data}", classify.Options(label_smoothing=0.1, focal_gamma=1.0)),
            ("classify", f"csv:{data}", classify.Options(label_smoothing=0.1)),
            ("multilabel", f"csv:{both}?score=",
             multilabel.Options(label_smoothing=0.1, focal_gamma=2.0))):
        run = fit(TrainConfig(task=task, train=spec, out=tmp_path / f"{task}-{options.focal_gamma}",
                              backbone="tiny", max_len=32, epochs=1), options)
        assert run.info["options"]["label_smoothing"] == 0.1
        assert run.metrics["calibration"]["temperature"] > 0


@pytest.mark.parametrize(("make", "message"), [
    (lambda: classify.Options(label_smoothing=1.0), "--label-smoothing is 1.0"),
    (lambda: classify.Options(focal_gamma=-1), "--focal-gamma is -1"),
    (lambda: classify.Options(abstain_below=2), "--abstain-below is 2"),
    (lambda: multilabel.Options(focal_gamma=-1), "--focal-gamma is -1"),
    (lambda: multilabel.Task.learn([{"labels": ["a"]}], multilabel.Options()), "1 label"),
    (lambda: multilabel.Task(("a", "b"), multilabel.Options()).targets([{"labels": ["c"]}]),
     "'c' .1x.*Known: 'a', 'b'"),
    (lambda: regress.Task.learn([{"score": 2.0}] * 9, regress.Options()), "the score 2.0"),
])
def test_bad_input_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_a_task_that_fits_the_data_is_suggested(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "both.csv", shades(50))
    with pytest.raises(UserError, match="They fit --task multilabel."):
        fit(TrainConfig(task="classify", train=f"csv:{data}?score=", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
