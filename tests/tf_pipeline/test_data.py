"""Training batches: every example once an epoch, like lengths together, equal for equal seeds."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tf_pipeline import checkpoints
from tf_pipeline.data import Batching, InMemory, buckets, draw
from tf_pipeline.runner import run_all
from tf_pipeline.text import Arrays, Encoded, Shapes


@pytest.fixture(scope="module")
def encoded() -> Encoded:
    texts = [f"{'word ' * (i % 30)}{i}" for i in range(100)]
    return checkpoints.load("minilm").encoder.encode(texts)


def take(encoded: Encoded, count: int, seed: int = 0, start: int = 0,
         lengths: tuple[int, ...] = ()) -> list[tuple]:
    targets = {"logits": np.arange(len(encoded), dtype=np.int32)}
    weights = np.linspace(1, 2, len(encoded), dtype=np.float32)
    data = InMemory(encoded, targets, weights).batches(Batching(10, seed, lengths), start)
    return list(itertools.islice(data.as_numpy_iterator(), count))


def test_each_row_keeps_its_target_and_weight(encoded: Encoded) -> None:
    for inputs, targets, weights in take(encoded, 20):
        assert inputs["input_ids"].shape[0] == 10
        for place, row in enumerate(targets["logits"]):
            span = encoded.ids[encoded.splits[row]:encoded.splits[row + 1]]
            assert inputs["input_ids"][place, :len(span)].tolist() == span.tolist()
            assert inputs["attention_mask"][place].sum() == len(span)
            assert weights[place] == np.linspace(1, 2, len(encoded), dtype=np.float32)[row]


@pytest.mark.parametrize(("few_lengths", "least"), [(True, 0.75), (False, 0.88)])
def test_padding_is_small(encoded: Encoded, few_lengths: bool, least: float) -> None:
    used = positions = 0
    lengths = buckets(int(encoded.lengths.max())) if few_lengths else ()
    for inputs, *_ in take(encoded, 40, lengths=lengths):
        length = inputs["input_ids"].shape[1]
        longest = inputs["attention_mask"].sum(1).max()
        assert length in (lengths or [longest])
        used += int(inputs["attention_mask"].sum())
        positions += inputs["input_ids"].size
    assert used / positions > least


def test_an_epoch_has_every_example_once(encoded: Encoded) -> None:
    for epoch in np.array_split([t["logits"] for _, t, _ in take(encoded, 30)], 3):
        assert sorted(epoch.ravel()) == list(range(len(encoded)))


@pytest.mark.parametrize(("count", "size"), [(95, 10), (31, 30), (1000, 32), (7, 7)])
def test_what_fills_no_batch_changes_from_epoch_to_epoch(count: int, size: int) -> None:
    lengths = np.random.default_rng(0).integers(3, 90, count)
    drawn = [[part.numpy() for part in draw(tf.constant(lengths, tf.int32), Batching(size, 0),
                                            epoch)] for epoch in range(20)]
    for rows, padded in drawn:
        assert rows.shape == (count // size, size)
        assert len(np.unique(rows)) == rows.size
        assert (lengths[rows].max(1) <= padded).all()
    left = [set(range(count)) - set(rows.ravel().tolist()) for rows, _ in drawn]
    assert len(set.union(*left)) > count % size or count % size == 0


def test_batches_from_a_step_on_are_those_of_the_whole(encoded: Encoded) -> None:
    whole = take(encoded, 35)
    for start in (0, 7, 10, 23):
        for (inputs, targets, _), (others, goals, _) in zip(
                take(encoded, 5, start=start), whole[start:], strict=False):
            np.testing.assert_array_equal(inputs["input_ids"], others["input_ids"])
            np.testing.assert_array_equal(targets["logits"], goals["logits"])


def test_equal_seeds_give_equal_batches_and_others_do_not(encoded: Encoded) -> None:
    first, same, other = (take(encoded, 5, seed) for seed in (1, 1, 2))
    order = [[t["logits"].tolist() for _, t, _ in batches] for batches in (first, same, other)]
    assert order[0] == order[1]
    assert order[0] != order[2]


@pytest.mark.parametrize("few", [True, False])
def test_run_all_gives_outputs_in_the_order_of_the_texts(encoded: Encoded, few: bool) -> None:
    def model(inputs: Arrays) -> Arrays:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        return {"sum": (ids * mask).sum(1), "tokens": ids[..., None] * mask[..., None]}

    outputs = run_all(model, encoded, Shapes(7, few=few))
    for row in range(len(encoded)):
        span = encoded.ids[encoded.splits[row]:encoded.splits[row + 1]]
        assert outputs["sum"][row] == span.sum()
        assert outputs["tokens"][row, :len(span), 0].tolist() == span.tolist()
        assert not outputs["tokens"][row, len(span):].any()
