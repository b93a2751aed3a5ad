"""Temperatures and thresholds against what made the data, and against counts by hand."""

import numpy as np
import pytest

from tf_pipeline import calibration, metrics
from tf_pipeline.decoding import label_probabilities, log_sigmoid, log_softmax, softmax


def test_the_temperature_that_made_the_labels_is_found() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, (20000, 4))
    targets = np.array([rng.choice(4, p=row) for row in softmax(honest)])
    assert calibration.temperature(honest * 3, targets) == pytest.approx(3, rel=0.05)
    several = (rng.random(honest.shape) < label_probabilities({"logits": honest})).astype(float)
    assert calibration.temperature(honest / 2, several) == pytest.approx(0.5, rel=0.05)


def test_a_few_faultless_rows_do_not_make_a_model_certain() -> None:
    logits = np.array([[3.0, 0.0], [0.0, 3.0]] * 5)
    targets = np.array([0, 1] * 5)
    assert calibration.temperature(logits, targets) > 0.5
    assert calibration.temperature(np.tile(logits, (100, 1)), np.tile(targets, 100)) < 0.5


def test_thresholds_have_the_best_f1_of_all_cuts() -> None:
    rng = np.random.default_rng(1)
    targets = (rng.random((300, 3)) < [0.5, 0.2, 0.1]).astype(float)
    values = np.clip(targets * 0.3 + rng.random((300, 3)) * 0.6, 0, 1)
    chosen = calibration.thresholds(values, targets)
    for label in range(3):
        def f1(limit: float, label: int = label) -> float:
            given, right = values[:, label] >= limit, targets[:, label] > 0
            return 2 * (given & right).sum() / (given.sum() + right.sum())

        assert f1(chosen[label]) == pytest.approx(max(f1(v) for v in values[:, label]))


def test_a_rare_label_shares_the_threshold_of_all() -> None:
    targets, values = np.zeros((100, 2)), np.full((100, 2), 0.2)
    targets[:40, 0], values[:40, 0] = 1, 0.6
    targets[0, 1], values[0, 1] = 1, 0.25  # one example would call for a threshold below that,
    values[1:6, 1] = 0.3  # and so for five wrong answers
    assert calibration.thresholds(values, targets).tolist() == pytest.approx([0.4, 0.45])
    assert calibration.thresholds(values, np.zeros((100, 2))).tolist() == [0.5, 0.5]


def test_abstaining_counted_by_hand() -> None:
    confidences = np.array([0.9, 0.8, 0.7, 0.6, 0.6])
    correct = np.array([True, True, True, False, True])
    assert metrics.selective(confidences, correct) == [
        {"accuracy": a, "confidence": 0.7, "answered": 0.6} for a in (0.9, 0.95, 0.98, 0.99)]
    assert metrics.abstention(confidences, correct, 0.65) == {"answered": 0.6,
                                                              "answered_accuracy": 1.0}


def test_texts_out_of_scope_counted_by_hand() -> None:
    inside, correct = np.array([0.9, 0.8, 0.6, 0.3]), np.array([True, True, True, False])
    scores = metrics.out_of_scope(inside, correct, np.array([0.7, 0.5, 0.2]), cost=0.25)
    assert scores["auroc"] == pytest.approx(9 / 12)
    # One right answer of four may be lost: all below 0.8 are refused.
    assert scores["threshold"] == 0.8
    assert scores["accuracy"] == 0.5
    assert scores["recall"] == 1.0
    strict = metrics.out_of_scope(inside, correct, np.array([0.7, 0.5, 0.2]), cost=0.0)
    assert (strict["threshold"], strict["accuracy"]) == (0.6, 0.75)
    assert strict["recall"] == pytest.approx(2 / 3)


def test_logarithms_stay_finite() -> None:
    wide = np.array([[-2000.0, 0.0, 2000.0]])
    assert np.isfinite(log_softmax(wide)).all()
    assert log_sigmoid(wide)[0, 2] == 0
    assert log_sigmoid(wide)[0, 0] == -2000
