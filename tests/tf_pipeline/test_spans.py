"""Tag schemes into one, spans out of tags, and the search against trying everything."""

import itertools

import numpy as np
import pytest

from tf_pipeline import spans


@pytest.mark.parametrize(("scheme", "tags", "repaired"), [
    ("BIO", "O B-PER I-PER O B-LOC B-LOC", 0),
    ("IOB1", "O I-PER I-PER O I-LOC B-LOC", 2),
    ("BIOES", "O B-PER E-PER O S-LOC S-LOC", 0),
    ("BMES", "O B-PER E-PER O S-LOC S-LOC", 0),
    ("BILOU", "O B-PER L-PER O U-LOC U-LOC", 0),
])
def test_every_scheme_says_the_same(scheme: str, tags: str, repaired: int) -> None:
    found, count = spans.to_bio(tags.split())
    assert found == ["O", "B-PER", "I-PER", "O", "B-LOC", "B-LOC"]
    assert count == repaired


@pytest.mark.parametrize(("tags", "bio"), [
    ("B-A M-A E-A I-A", "B-A I-A I-A B-A"),  # after an end nothing goes on
    ("B-A I-B", "B-A B-B"),
    ("I-A I-A", "B-A I-A"),
    ("B-X-Y I-X-Y", "B-X-Y I-X-Y"),  # a type may hold a dash
    ("", ""),
])
def test_breaks_are_repaired(tags: str, bio: str) -> None:
    assert spans.to_bio(tags.split())[0] == bio.split()


def test_spans_of_tags() -> None:
    tags = ["B-PER", "I-PER", "O", "I-LOC", "B-LOC", "O"]
    assert spans.read(tags) == [(0, 2, "PER"), (3, 4, "LOC"), (4, 5, "LOC")]
    assert spans.read([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_the_search_finds_the_best_valid_sequence(seed: int) -> None:
    labels = ("O", "B-A", "I-A", "B-B", "I-B")
    scores = np.random.default_rng(seed).normal(size=(5, len(labels)))

    def valid(path: tuple[int, ...]) -> bool:
        before = "O"
        for place in path:
            if labels[place][0] == "I" and labels[place][2:] != before[2:]:
                return False
            before = labels[place]
        return True

    every = filter(valid, itertools.product(range(len(labels)), repeat=len(scores)))
    expected = max(every, key=lambda path: scores[np.arange(len(scores)), path].sum())
    assert spans.best_tags(scores, labels).tolist() == list(expected)


def test_labels_without_starts_may_continue_freely() -> None:
    labels = ("O", "I-A")
    assert spans.best_tags(np.array([[0.0, 1.0], [0.0, 1.0]]), labels).tolist() == [1, 1]
