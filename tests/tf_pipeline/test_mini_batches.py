"""A step in parts against the step of the whole batch."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import opinions, routes, write_csv
from tf_pipeline import TrainConfig, UserError, checkpoints, contrastive, fit
from tf_pipeline.backbone import BertConfig, build
from tf_pipeline.data import Batching, InMemory
from tf_pipeline.mini_batches import AccumulatedGradients, CachedGradients
from tf_pipeline.task import Corrupting, Record, Trained, options_of
from tf_pipeline.tasks import classify, embed, mlm, tag

TAGGED = [{"tokens": [word, "and", "Bob", "met"][:2 + n % 3],
           "tags": ["B-PER", "O", "B-PER", "O"][:2 + n % 3]}
          for n, word in enumerate(["Ann", "Eve", "Tom", "Kim", "Lee"] * 2)]
RECORDS: dict[Any, list[Record]] = {embed: routes()[:10], classify: opinions(10),
                                    mlm: opinions(10), tag: TAGGED}


def prepared(dropout: float, records: int = 0, module: Any = embed) -> tuple[keras.Model, tuple]:
    """Give a tiny model to fit, of always the same weights, and a batch of ten."""
    keras.utils.set_random_seed(0)
    encoder = checkpoints.load("tiny").encoder
    config = BertConfig(vocab_size=len(encoder.vocabulary), hidden_size=32, num_hidden_layers=2,
                        num_attention_heads=2, intermediate_size=64,
                        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    options = options_of(module.__name__.rpartition(".")[2])()
    task = module.Task.learn(RECORDS[module], options)
    encoded, targets = task.encode(RECORDS[module], encoder, 48), task.targets(RECORDS[module])
    model = task.build(build(config))
    trainer = (task.trainer(model) if isinstance(task, Trained)
               else keras.Model(model.input, model.output))
    if records:
        kind = CachedGradients if task.COMPARES else AccumulatedGradients
        trainer = kind(trainer.input, trainer.output, records)
    trainer.compile(keras.optimizers.SGD(1.0), **task.compile_args())
    batches = InMemory(encoded, targets, task.weights(targets)).batches(Batching(10, 0))
    if isinstance(task, Corrupting):
        batches = task.mask(batches, encoder, 0)
    return trainer, next(iter(batches))


def stepped(trainer: keras.Model, batch: tuple) -> tuple[float, list[np.ndarray]]:
    """Give the loss and the weights of one step, taken inside a graph as `fit` takes it."""
    loss = float(tf.function(trainer.train_step)(batch)["loss"])
    return loss, [np.asarray(weight) for weight in trainer.trainable_weights]


@pytest.mark.parametrize("module", [embed, classify])
@pytest.mark.parametrize("records", [
    pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(10, marks=pytest.mark.slow), 64])
def test_a_step_in_parts_is_the_step_of_the_whole_batch(module: Any, records: int) -> None:
    whole, plain = stepped(*prepared(0.0, 0, module))
    loss, parted = stepped(*prepared(0.0, records, module))
    before = [np.asarray(w) for w in prepared(0.0, 0, module)[0].trainable_weights]
    assert max(np.abs(a - b).max() for a, b in zip(plain, before, strict=True)) > 1e-2
    assert loss == pytest.approx(whole, rel=1e-5)
    for one, other in zip(plain, parted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("module", [mlm, tag])
def test_parts_of_a_mean_over_words_count_by_their_records(module: Any) -> None:
    whole, plain = stepped(*prepared(0.0, 0, module))
    for records, tolerance in ((64, 1e-5), (5, 0.2)):
        loss, parted = stepped(*prepared(0.0, records, module))
        assert loss == pytest.approx(whole, rel=tolerance)
        for one, other in zip(plain, parted, strict=True):
            np.testing.assert_allclose(one, other, atol=tolerance)


def test_both_passes_drop_the_same() -> None:
    """The true step under the masks of one pass in parts is what two passes must give."""
    trainer, (inputs, targets, shares) = prepared(0.3, 4)
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
    for one, other in zip(expected, stepped(trainer, (inputs, targets, shares))[1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(("task", "rows", "metric"), [
    pytest.param("embed", routes(), "mrr", marks=pytest.mark.slow),
    ("classify", opinions(400), "accuracy")])
def test_parts_learn(task: str, rows: list[Record], metric: str, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rows.csv", rows)
    run = fit(TrainConfig(task=task, train=f"csv:{data}", out=tmp_path / "run", backbone="tiny",
                          max_len=48, epochs=8, batch_size=32, mini_batch_size=8,
                          learning_rate=5e-3, precision="mixed_float16"))
    assert run.metrics["history"][-1]["train_loss"] < run.metrics["history"][0]["train_loss"]
    assert run.metrics["test"][metric] > 0.6


def test_other_backends_are_refused_by_name(monkeypatch: pytest.MonkeyPatch,
                                            tmp_path: Path) -> None:
    data = write_csv(tmp_path / "rows.csv", opinions(60))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="--mini-batch-size is 4.*TensorFlow backend only.*jax"):
        fit(TrainConfig("classify", f"csv:{data}", tmp_path / "run", backbone="tiny",
                        batch_size=8, mini_batch_size=4))
