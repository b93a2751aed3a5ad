"""Losses against plain numpy."""

import itertools

import numpy as np
import pytest

from tf_pipeline import contrastive


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
