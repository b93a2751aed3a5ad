"""Pictures: dark where the counts are, and drawn for few and many labels of any script."""

import io
import logging
import warnings

import numpy as np
import pytest

from tf_pipeline import metrics, plots
from tf_pipeline.task import Judgement

ODD = ["<script>alert(1)</script>", "积极的", "😀 🫠 ngủ", "$\\frac{", "two\nlines\x07", "",
       "x" * 90]
HISTORY = [{"epoch": n, "train_loss": 1 / n, "loss": 1.1 / n, "accuracy": 1 - 1 / (n + 1)}
           for n in (1, 2, 3)]


def findings(labels: list[str], examples: int, right: float = 0.8) -> plots.Findings:
    random = np.random.default_rng(len(labels))
    targets = random.integers(0, len(labels), examples)
    values = random.random((examples, len(labels)))
    rows = random.random(examples) < right
    values[rows, targets[rows]] += 2
    values /= values.sum(-1, keepdims=True)
    chosen = values.argmax(-1)
    judged = [Judgement("text", labels[t], labels[p], float(row[p]), bool(t == p))
              for t, p, row in zip(targets, chosen, values, strict=True)]
    return plots.Findings(metrics.classification(targets, values, labels), labels, "accuracy",
                          judged, random.integers(3, 90, examples), 64, HISTORY, 3)


@pytest.mark.parametrize(("labels", "examples", "right"), [
    (["no", "yes"], 300, 0.9), (["no", "yes"], 1, 1.0), (["no", "yes"], 40, 1.0),
    ([f"intent_{n}" for n in range(77)], 500, 0.7), (ODD, 100, 0.5)])
@pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK])
def test_every_picture_is_drawn_without_a_word(labels: list[str], examples: int, right: float,
                                               theme: plots.Theme,
                                               caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("error")
        figures = plots.draw(findings(labels, examples, right), theme)
        for figure in figures.values():
            assert plots.encode(figure, "png", theme)[:4] == b"\x89PNG"
            assert b"<svg" in plots.encode(figure, "svg", theme)
    assert set(figures) == {"learning_curves", "confusion", "calibration", "length_errors"}
    assert not caplog.records


def test_only_what_has_numbers_is_drawn() -> None:
    assert plots.draw(plots.Findings({"examples": 3, "spearman": 0.5}, (), "spearman")) == {}


def test_confusion_is_dark_where_the_counts_are() -> None:
    def picture(counts: list[list[int]]) -> np.ndarray:
        from matplotlib.image import imread

        figure = plots.confusion({"confusion": counts}, ["a", "b"])
        return imread(io.BytesIO(plots.encode(figure, "png")))

    right, wrong = picture([[10, 0], [0, 10]]), picture([[0, 10], [10, 0]])
    height, width = right.shape[0] // 4, right.shape[1] // 3
    assert right[height, width, :3].mean() < wrong[height, width, :3].mean() - 0.3


def test_calibration_and_lengths_show_their_numbers() -> None:
    figure = plots.calibration(np.array([0.55, 0.57, 0.95, 0.97, 1.0]),
                               np.array([True, False, True, True, False]))
    svg = plots.encode(figure, "svg").decode()
    assert "expected calibration error 0.2080" in svg
    svg = plots.encode(plots.length_errors(np.arange(40) + 3, np.arange(40) < 30, 40),
                       "svg").decode()
    for text in ("10 of 40 wrong", "3–21", "22–42", "n = 19", "n = 21", "(2 longer than 40: cut)"):
        assert text in svg
    assert plots.encode(figure, "svg") == plots.encode(figure, "svg")
