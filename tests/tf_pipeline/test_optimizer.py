"""LazyAdamW beside Keras's own AdamW: equal but for rows of tables that nobody reads."""

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


def train(lazy: bool, read: list[list[int]],
          decay: float = 0.01) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Take steps on a table of which each step's rows are read: weights, second moments."""
    choose = np.random.default_rng(1)
    kernel, table = variables()
    settings = {"weight_decay": decay, "epsilon": 1e-8, "global_clipnorm": 1.0}
    optimizer = (LazyAdamW(1e-3, tables=[table], **settings) if lazy
                 else keras.optimizers.AdamW(1e-3, **settings))
    for rows in read:
        values = choose.normal(size=(len(rows), 4)).astype("float32")
        optimizer.apply([tf.constant(choose.normal(size=(3, 4)), tf.float32), tf.IndexedSlices(
            values, rows, (6, 4)) if lazy else tf.math.unsorted_segment_sum(values, rows, 6)],
            [kernel, table])
    return [kernel.numpy(), table.numpy()], [v.numpy() for v in optimizer._velocities]


def test_dense_weights_and_second_moments_are_those_of_adamw() -> None:
    read = [[0, 1, 1], [2, 0, 2], [1], [1, 1, 1, 3], [0, 3]]  # a row read twice counts as one
    (kernel, table), (_, moments) = train(True, read)
    (expected, _), (_, known) = train(False, read)
    np.testing.assert_allclose(kernel, expected, atol=1e-6)
    last = [5, 4, 2, 5]  # the step in which each row was read last
    for row, step in enumerate(last):
        np.testing.assert_allclose(moments[row] * 0.999 ** (5 - step), known[row], rtol=1e-4)
    np.testing.assert_array_equal(table[4:], variables()[1].numpy()[4:])


def test_a_rare_row_goes_as_far_as_under_adamw() -> None:
    read = [[0]] * 300 + [[1]] + [[0]] * 99
    start = variables()[1].numpy()
    moved, expected = (train(lazy, read, decay=0.0)[0][1][1] - start[1] for lazy in (True, False))
    np.testing.assert_allclose(moved, expected, rtol=0.1)


def test_tables_that_products_reach_are_left_to_adamw() -> None:
    backbone = checkpoints.load("tiny").build()
    word = backbone.get_layer("embeddings").word.embeddings
    plain = heads.for_text(backbone, "mean", 2, "a")
    assert lookup_tables(keras.Model(plain.input, plain.output))[0] is word
    assert lookup_tables(heads.at_positions(heads.for_vocabulary(backbone, "b"))) == []


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_every_precision_learns(precision: str, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "a.csv", opinions(400))
    run = fit(TrainConfig("classify", f"csv:{data}", tmp_path / "run", backbone="tiny", max_len=64,
                          epochs=5, batch_size=16, learning_rate=5e-3, precision=precision))
    assert run.metrics["test"]["accuracy"] > 0.75
