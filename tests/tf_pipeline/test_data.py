"""Training batches: every example once an epoch, like lengths together, equal for equal seeds."""

import itertools

import numpy as np
import pytest

from tf_pipeline import checkpoints
from tf_pipeline.data import BUCKETS, training_batches
from tf_pipeline.runner import run_all
from tf_pipeline.text import Arrays, Encoded


@pytest.fixture(scope="module")
def encoded() -> Encoded:
    texts = [f"{'word ' * (i % 30)}{i}" for i in range(100)]
    return checkpoints.load("minilm").encoder.encode(texts)


def take(encoded: Encoded, count: int, seed: int = 0, batch: int = 10) -> list[tuple]:
    targets = {"logits": np.arange(len(encoded), dtype=np.int32)}
    weights = np.linspace(1, 2, len(encoded), dtype=np.float32)
    data = training_batches(encoded, targets, weights, batch, seed)
    return list(itertools.islice(data.as_numpy_iterator(), count))


def test_each_row_keeps_its_target_and_weight(encoded: Encoded) -> None:
    for inputs, targets, weights in take(encoded, 20):
        assert inputs["input_ids"].shape[0] == 10
        for place, row in enumerate(targets["logits"]):
            span = encoded.ids[encoded.splits[row]:encoded.splits[row + 1]]
            assert inputs["input_ids"][place, :len(span)].tolist() == span.tolist()
            assert inputs["attention_mask"][place].sum() == len(span)
            assert weights[place] == np.linspace(1, 2, len(encoded), dtype=np.float32)[row]


def test_lengths_are_buckets_and_padding_is_small(encoded: Encoded) -> None:
    used = positions = 0
    for inputs, *_ in take(encoded, 40):
        length = inputs["input_ids"].shape[1]
        assert length in BUCKETS or length == encoded.lengths.max()
        used += int(inputs["attention_mask"].sum())
        positions += inputs["input_ids"].size
    assert used / positions > 0.8


def test_no_example_is_lost_over_epochs(encoded: Encoded) -> None:
    counts = np.zeros(len(encoded), int)
    for _, targets, _ in take(encoded, 100):
        counts[targets["logits"]] += 1
    assert counts.min() >= 6  # ten epochs less what waits in buckets
    assert counts.max() <= 12


def test_equal_seeds_give_equal_batches_and_others_do_not(encoded: Encoded) -> None:
    first, same, other = (take(encoded, 5, seed) for seed in (1, 1, 2))
    order = [[t["logits"].tolist() for _, t, _ in batches] for batches in (first, same, other)]
    assert order[0] == order[1]
    assert order[0] != order[2]


def test_run_all_gives_outputs_in_the_order_of_the_texts(encoded: Encoded) -> None:
    def model(inputs: Arrays) -> Arrays:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        return {"sum": (ids * mask).sum(1), "tokens": ids[..., None] * mask[..., None]}

    outputs = run_all(model, encoded, size=7)
    for row in range(len(encoded)):
        span = encoded.ids[encoded.splits[row]:encoded.splits[row + 1]]
        assert outputs["sum"][row] == span.sum()
        assert outputs["tokens"][row, :len(span), 0].tolist() == span.tolist()
        assert not outputs["tokens"][row, len(span):].any()
