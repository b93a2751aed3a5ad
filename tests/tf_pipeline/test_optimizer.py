"""LazyAdamW beside Keras's own AdamW, which rewrites every row in every step."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import opinions, write_csv
from tf_pipeline import checkpoints, heads
from tf_pipeline.config import TrainConfig
from tf_pipeline.optimizer import LazyAdamW, lookup_tables
from tf_pipeline.training import fit


def variables() -> tuple[keras.Variable, keras.Variable]:
    choose = np.random.default_rng(0)
    return (keras.Variable(choose.normal(size=(3, 4)), dtype="float32", name="kernel"),
            keras.Variable(choose.normal(size=(6, 4)), dtype="float32", name="table"))


def train(lazy: bool, read: list[list[int]], decay: float = 0.0) -> list[np.ndarray]:
    """Take steps on a table of which each step's rows are read.

    Gives what was read, row after row, then the weights, then their moments.
    """
    choose = np.random.default_rng(1)
    kernel, table = variables()
    settings = {"weight_decay": decay, "epsilon": 1e-8, "global_clipnorm": 1.0}
    rate = keras.optimizers.schedules.PolynomialDecay(1e-3, 400, 0.0)
    optimizer = (LazyAdamW(rate, tables=[table], **settings) if lazy
                 else keras.optimizers.AdamW(rate, **settings))
    optimizer.build([kernel, table])
    seen: list[np.ndarray] = []
    for rows in read:
        if lazy:
            optimizer.catch_up(tf.constant(sorted(set(rows))))
        seen.append(table.numpy()[rows])
        values = choose.normal(size=(len(rows), 4)).astype("float32")
        optimizer.apply([tf.constant(choose.normal(size=(3, 4)), tf.float32), tf.IndexedSlices(
            values, rows, (6, 4)) if lazy else tf.math.unsorted_segment_sum(values, rows, 6)],
            [kernel, table])
    if lazy:
        optimizer.settle()
    return [np.concatenate(seen), *(v.numpy() for v in (
        kernel, table, *optimizer._momentums, *optimizer._velocities))]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_weights_and_moments_are_those_of_adamw(decay: float) -> None:
    read = [[0, 1, 1], [2, 0, 2], [1], [1, 1, 1, 3], [0, 3]] * 8  # rows read twice count as one
    start = variables()[1].numpy()
    for found, expected in zip(train(True, read, decay), train(False, read, decay), strict=True):
        np.testing.assert_allclose(found, expected, atol=5e-5)  # an update is 1e-3
    assert np.abs(train(True, read)[2] - start)[:4].min() > 5e-4


@pytest.mark.parametrize("idle", [1, 5, pytest.param(99, marks=pytest.mark.slow)])
def test_a_rare_row_goes_as_far_as_under_adamw(idle: int) -> None:
    read = [[0]] * 200 + [[1]] + [[0]] * idle
    start = variables()[1].numpy()
    moved, expected = (train(lazy, read)[2][1] - start[1] for lazy in (True, False))
    np.testing.assert_allclose(moved, expected, rtol=2e-3)
    assert np.abs(moved).min() > 1e-3


def test_tables_that_products_reach_are_left_to_adamw() -> None:
    backbone = checkpoints.load("tiny").build()
    word = backbone.get_layer("embeddings").word.embeddings
    plain = heads.for_text(backbone, "mean", 2, "a")
    assert lookup_tables(keras.Model(plain.input, plain.output))[0] is word
    assert lookup_tables(heads.at_positions(heads.for_vocabulary(backbone, "b"))) == []


@pytest.mark.parametrize("precision", [
    "float32", "mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
def test_every_precision_learns(precision: str, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "a.csv", opinions(400))
    run = fit(TrainConfig("classify", f"csv:{data}", tmp_path / "run", backbone="tiny", max_len=64,
                          epochs=5, batch_size=16, learning_rate=5e-3, precision=precision))
    assert run.metrics["test"]["accuracy"] > 0.75
