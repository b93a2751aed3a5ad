"""Scores against counts done by hand."""

import numpy as np
import pytest

from tf_pipeline import metrics

LABELS = ("no", "yes", "never")
TARGETS = np.array([0, 0, 0, 1])
PROBABILITIES = np.array([[.8, .1, .1], [.2, .7, .1], [.6, .2, .2], [.1, .8, .1]])


def test_scores_of_four_rows_counted_by_hand() -> None:
    scores = metrics.classification(TARGETS, PROBABILITIES, LABELS)
    assert scores["accuracy"] == 0.75
    assert scores["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert scores["table"]["no"]["precision"] == 1.0
    assert scores["table"]["no"]["recall"] == pytest.approx(2 / 3)
    assert scores["macro_f1"] == pytest.approx((0.8 + 2 / 3 + 0) / 3)
    assert scores["loss"] == pytest.approx(-np.log([.8, .2, .6, .8]).mean())


def test_the_table_has_a_line_for_every_label() -> None:
    text = metrics.table_text(metrics.classification(TARGETS, PROBABILITIES, LABELS))
    assert [line.split()[0] for line in text.splitlines()[1:4]] == list(LABELS)


def test_calibration_error_of_five_answers_counted_by_hand() -> None:
    confidences = np.array([0.55, 0.57, 0.95, 0.97, 1.0])
    correct = np.array([True, False, True, True, False])
    bins = metrics.calibration_bins(confidences, correct)
    assert bins.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    assert bins.confidence[[5, 9]] == pytest.approx([0.56, 2.92 / 3])
    assert bins.accuracy[[5, 9]] == pytest.approx([1 / 2, 2 / 3])
    # (2 * |.56 - .5| + 3 * |.97333 - .66667|) / 5
    assert metrics.calibration_error(confidences, correct) == pytest.approx(0.208)


def test_a_confidence_on_an_edge_opens_its_bin() -> None:
    tenths = np.arange(10) / 10
    assert metrics.calibration_bins(tenths, np.ones(10, bool)).counts.tolist() == [1] * 10


def test_answers_as_often_right_as_sure_have_no_calibration_error() -> None:
    assert metrics.calibration_error(np.full(4, 0.75), np.array([1, 1, 1, 0], bool)) == 0


def test_wilson_interval_of_the_textbook() -> None:
    low, high = metrics.wilson(np.array([0, 5, 10]), np.array([10, 10, 10]))
    assert low == pytest.approx([0, 0.2366, 0.7225], abs=1e-4)
    assert high == pytest.approx([0.2775, 0.7634, 1], abs=1e-4)
