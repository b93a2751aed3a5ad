"""Losses against plain numpy, and cached gradients against the step of the whole batch."""

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import routes, write_csv
from tf_pipeline import TrainConfig, UserError, checkpoints, contrastive, fit
from tf_pipeline.backbone import BertConfig, build
from tf_pipeline.data import Batching, training_batches
from tf_pipeline.tasks import embed


def unit(rows: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, 8))
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def in_batch(numbers: list[list[int]], vectors: np.ndarray, temperature: float) -> np.ndarray:
    """Do row by row what the loss does at once."""
    texts = len(numbers[0])
    losses = []
    for i, own in enumerate(numbers):
        scores = {}
        for column in range(1, texts):
            for j, other in enumerate(numbers):
                right = column == 1 and j == i
                known = other[column] in own[:2] or (column == 1 and other[0] == own[0])
                if right or not known:
                    scores[column, j] = float(vectors[i * texts] @ vectors[j * texts + column])
        terms = {key: np.exp(value / temperature) for key, value in scores.items()}
        losses.append(-np.log(terms[1, i] / sum(terms.values())))
    return np.array(losses)


@pytest.mark.parametrize("numbers", [
    [[0, 1], [2, 3], [4, 5], [6, 7]],
    [[0, 1], [2, 1], [4, 5], [6, 7]],  # two records have the same second text
    [[0, 1], [0, 3], [4, 0], [6, 7]],  # the same first text; a first text that is a second one
    [[0, 1, 8], [2, 3, 9], [4, 5, 1], [6, 7, 10]],  # a hard negative that is the answer of another
], ids=["pairs", "equal-second", "equal-first", "negatives"])
def test_in_batch_negatives_are_those_of_numpy(numbers: list[list[int]]) -> None:
    vectors = unit(len(numbers) * len(numbers[0]))
    loss = contrastive.in_batch_negatives(0.05)(np.array(numbers, np.int32), vectors)
    np.testing.assert_allclose(np.asarray(loss), in_batch(numbers, vectors, 0.05), rtol=1e-4,
                               atol=1e-5)


def test_a_text_that_is_right_for_another_record_is_no_negative() -> None:
    vectors = unit(8)
    vectors[3] = vectors[1]  # the second texts of the first two records are one text
    known, unknown = (np.asarray(contrastive.in_batch_negatives(1.0)(
        np.array(numbers, np.int32), vectors)) for numbers in (
            [[0, 1], [2, 1], [4, 5], [6, 7]], [[0, 1], [2, 3], [4, 5], [6, 7]]))
    assert (unknown[:2] > known[:2]).all()
    np.testing.assert_allclose(known[2:], unknown[2:], rtol=1e-6)


def test_cosent_is_that_of_numpy() -> None:
    scores, vectors = np.array([[0.0], [3.0], [3.0], [5.0], [1.0]], np.float32), unit(10)
    cosines = (vectors[::2] * vectors[1::2]).sum(-1)
    total = sum(np.exp(20 * (cosines[low] - cosines[high]))
                for low, high in itertools.product(range(5), range(5))
                if scores[high, 0] > scores[low, 0])
    loss = np.asarray(contrastive.cosent(0.05)(scores, vectors))
    np.testing.assert_allclose(loss, np.full(5, np.log(1 + total)), rtol=1e-4)
    equal = np.asarray(contrastive.cosent(0.05)(np.full((5, 1), 2.0, np.float32), vectors))
    np.testing.assert_allclose(equal, 0.0, atol=1e-6)


def prepared(dropout: float, **options: Any) -> tuple[keras.Model, tuple]:
    """Give a tiny model to fit, of always the same weights, and a batch of ten pairs."""
    keras.utils.set_random_seed(0)
    encoder = checkpoints.load("tiny").encoder
    config = BertConfig(vocab_size=len(encoder.vocabulary), hidden_size=32, num_hidden_layers=2,
                        num_attention_heads=2, intermediate_size=64,
                        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    task = embed.Task((), embed.Options(**options))
    records = routes()[:10]
    encoded, targets = task.encode(records, encoder, 48), task.targets(records)
    trainer = task.trainer(task.build(build(config)))
    trainer.compile(keras.optimizers.SGD(1.0), **task.compile_args())
    batches = training_batches(encoded, targets, task.weights(targets), Batching(10, 0))
    return trainer, next(iter(batches))


def stepped(trainer: keras.Model, batch: tuple) -> list[np.ndarray]:
    """Give the weights after one step, taken inside a graph as `fit` takes it."""
    assert np.isfinite(float(tf.function(trainer.train_step)(batch)["loss"]))
    return [np.asarray(weight) for weight in trainer.trainable_weights]


@pytest.mark.parametrize("records", [1, 3, 10, 64])
def test_a_cached_step_is_the_step_of_the_whole_batch(records: int) -> None:
    plain, cached = (stepped(*prepared(0.0, mini_batch_size=n)) for n in (0, records))
    before = [np.asarray(w) for w in prepared(0.0)[0].trainable_weights]
    assert max(np.abs(a - b).max() for a, b in zip(plain, before, strict=True)) > 1e-2
    for one, other in zip(plain, cached, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_both_passes_drop_the_same() -> None:
    """The true step under the masks of one pass in parts is what two passes must give."""
    trainer, (inputs, targets, shares) = prepared(0.3, mini_batch_size=4)
    reference, _ = prepared(0.3)
    weights = list(reference.trainable_weights)
    with tf.GradientTape() as tape:
        parts = [reference({k: v[start:start + 8] for k, v in inputs.items()}, training=True)
                 for start in range(0, 20, 8)]
        embeddings = tf.concat([part["sentence_embedding"] for part in parts], 0)
        loss = tf.reduce_mean(contrastive.in_batch_negatives(0.05)(
            targets["sentence_embedding"], embeddings))
    steps = tape.gradient(loss, [weight.value for weight in weights])
    expected = [np.asarray(weight) - np.asarray(tf.convert_to_tensor(step))
                for weight, step in zip(weights, steps, strict=True)]
    for one, other in zip(expected, stepped(trainer, (inputs, targets, shares)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_cached_gradients_fit(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "routes.csv", routes())
    run = fit(TrainConfig(task="embed", train=f"csv:{data}", out=tmp_path / "run", backbone="tiny",
                          max_len=48, epochs=2, batch_size=64, learning_rate=5e-3),
              embed.Options(mini_batch_size=16))
    assert run.metrics["history"][-1]["train_loss"] < run.metrics["history"][0]["train_loss"]
    assert run.metrics["test"]["mrr"] > 0.5


def test_other_backends_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="--mini-batch-size is 4.*TensorFlow backend only.*jax"):
        prepared(0.0, mini_batch_size=4)
