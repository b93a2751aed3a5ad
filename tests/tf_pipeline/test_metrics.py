"""Scores against counts done by hand, and a picture that shows them."""

from pathlib import Path

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


def test_the_confusion_plot_is_dark_where_the_counts_are(tmp_path: Path) -> None:
    from matplotlib.image import imread

    path = tmp_path / "confusion.png"
    scores = {"examples": 20, "accuracy": 1.0, "confusion": [[10, 0], [0, 10]]}
    metrics.plot_confusion(scores, ["a", "b"], path)
    right = imread(path)
    metrics.plot_confusion({**scores, "accuracy": 0.0, "confusion": [[0, 10], [10, 0]]},
                           ["a", "b"], path)
    wrong = imread(path)
    assert right.shape == wrong.shape
    height, width = (int(n * 0.3) for n in right.shape[:2])
    assert right[height, width, :3].mean() < wrong[height, width, :3].mean() - 0.3
