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


def test_tags_of_five_words_counted_by_hand() -> None:
    labels = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    scores = metrics.tagging([["O", "B-PER", "I-PER"], ["O", "B-LOC"]],
                             [["O", "B-PER", "O"], ["O", "B-LOC"]], labels)
    assert scores["span_f1"] == 0.5
    assert scores["token_accuracy"] == 0.8
    assert scores["token_macro_f1"] == pytest.approx((0.8 + 1 + 0 + 1 + 0) / 5)
    assert scores["token_table"]["weighted avg"]["f1-score"] == pytest.approx((0.8 * 2 + 2) / 5)
    spans, words = metrics.table_text(scores).split("\n\nby word:\n")
    assert [line.split()[0] for line in spans.splitlines()[1:3]] == ["LOC", "PER"]
    assert "micro avg         0.800   0.800     0.800        5" in words


def test_several_labels_of_two_texts_counted_by_hand() -> None:
    targets = np.array([[1.0, 0.0], [1.0, 1.0]])
    values = np.array([[0.9, 0.4], [0.3, 0.8]])
    scores = metrics.multilabel(targets, values, np.array([0.5, 0.3]), ("a", "b"))
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert scores["exact"] == 0.0
    assert scores["average_precision"] == 1.0
    assert scores["loss"] == pytest.approx(-np.log([.9, .6, .3, .8]).mean())


def test_numbers_and_constants_correlate_as_they_should() -> None:
    known = np.array([1.0, 2.0, 3.0])
    scores = metrics.regression(known, np.array([3.0, 5.0, 7.0]), spread=2.0)
    assert scores["pearson"] == pytest.approx(1)
    assert scores["spearman"] == pytest.approx(1)
    assert scores["mean_absolute_error"] == 3.0
    assert scores["loss"] == pytest.approx((4 + 9 + 16) / 3 / 4)
    assert metrics.regression(known, np.ones(3), 1.0)["pearson"] == 0.0
