"""Windows that lose nothing, questions that stay, and masks that are new in every batch."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from tests.conftest import opinions
from tf_pipeline import checkpoints
from tf_pipeline.data import Batching, InMemory
from tf_pipeline.errors import UserError
from tf_pipeline.masking import cloze, drop_words, windows
from tf_pipeline.tasks.mlm import Options, Task
from tf_pipeline.text import SPECIAL_TOKENS, TextEncoder

PIECES = [*SPECIAL_TOKENS, *"abcdefghijklmnopqrstuvwxyz0123456789.,!()—№😀",
          *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"), *"中国大学",
          "the", "was", "kitchen", "##chen", "kit", "love", "##ly"]
TEXTS = [row["text"] for row in opinions(400)]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return checkpoints.wordpiece(PIECES, True, None, 64)


def batches(encoder: TextEncoder, count: int, seed: int = 0, **options: object) -> list[tuple]:
    task = Task((), Options(**options))
    records = task.examples([{"text": text} for text in TEXTS], encoder)
    targets = task.targets(records)
    found = InMemory(task.encode(records, encoder), targets,
                     task.weights(targets)).batches(Batching(16, seed))
    return [(inputs, goals["logits"]) for inputs, goals, _ in islice(
        task.mask(found, encoder, seed).as_numpy_iterator(), count)]


def unmasked(inputs: dict, goals: np.ndarray) -> np.ndarray:
    """Put the pieces back that stood there."""
    ids = inputs["input_ids"].copy()
    rows, places = np.nonzero(goals >= 0)
    ids[rows, inputs["positions"][rows, places]] = goals[rows, places]
    return ids


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("share", [0.15, 0.4])
def test_the_share_is_masked_by_80_10_10_and_specials_never(encoder: TextEncoder, share: float,
                                                            whole_words: bool) -> None:
    kinds: Counter[str] = Counter()
    pieces = 0
    for inputs, goals in batches(encoder, 60, mask_share=share, whole_words=whole_words):
        before, after = unmasked(inputs, goals), inputs["input_ids"]
        assert goals.shape == inputs["positions"].shape
        used = goals >= 0
        assert not np.isin(goals[used], range(len(SPECIAL_TOKENS))).any()
        for row, places in enumerate(inputs["positions"]):
            assert len(set(places[used[row]])) == used[row].sum() > 0
        changed = before != after
        kinds["mask"] += (changed & (after == 4)).sum()
        kinds["other"] += (changed & (after != 4)).sum()
        kinds["all"] += used.sum()
        assert not np.isin(after[changed & (after != 4)], range(len(SPECIAL_TOKENS))).any()
        pieces += (before > 4).sum()
    assert kinds["all"] / pieces == pytest.approx(share, abs=0.02)
    assert kinds["mask"] / kinds["all"] == pytest.approx(0.8, abs=0.02)
    # A random piece is now and then the one that was there.
    assert kinds["other"] / kinds["all"] == pytest.approx(0.1, abs=0.02)


def test_whole_words_are_hidden_whole(encoder: TextEncoder) -> None:
    goes_on = np.array([piece.startswith("##") for piece in encoder.vocabulary])
    for inputs, goals in batches(encoder, 20, whole_words=True):
        ids = unmasked(inputs, goals)
        hidden = np.zeros(ids.shape, bool)
        rows, places = np.nonzero(goals >= 0)
        hidden[rows, inputs["positions"][rows, places]] = True
        # A piece that goes on is hidden exactly if the piece before it is.
        assert (hidden[:, 1:] == hidden[:, :-1])[goes_on[ids[:, 1:]]].all()


def test_seeds_and_epochs(encoder: TextEncoder) -> None:
    first, same, other = (batches(encoder, 30, seed) for seed in (1, 1, 2))
    for one, two in zip(first, same, strict=True):
        np.testing.assert_array_equal(one[0]["input_ids"], two[0]["input_ids"])
        np.testing.assert_array_equal(one[1], two[1])
    assert any(one[1].shape != two[1].shape or (one[1] != two[1]).any()
               for one, two in zip(first, other, strict=True))
    seen: dict[bytes, list[bytes]] = {}
    for inputs, goals in first:
        for row, whole in enumerate(unmasked(inputs, goals)):
            seen.setdefault(whole.tobytes(), []).append(inputs["input_ids"][row].tobytes())
    often = [masked for masked in seen.values() if len(masked) > 1]
    assert len(often) > 100
    assert all(len(set(masked)) > 1 for masked in often)


def test_positions_follow_from_the_length_alone(encoder: TextEncoder) -> None:
    shapes: dict[int, set[int]] = {}
    for inputs, goals in batches(encoder, 60, pack=False):
        shapes.setdefault(inputs["input_ids"].shape[1], set()).add(goals.shape[1])
    assert len(shapes) > 2
    assert all(len(found) == 1 for found in shapes.values())


@pytest.mark.parametrize("pack", [True, False])
def test_windows_lose_nothing(encoder: TextEncoder, pack: bool) -> None:
    texts = [*TEXTS, "word " * 500, "x" * 90, "", "  ", "a [MASK] b", "中国大学" * 100]
    found = windows(texts, encoder, 64, pack)
    ids = [e.ids for e in encoder.whole(found)]
    assert max(map(len, ids)) <= 62
    wanted = [i for e in encoder.whole([t.replace("[MASK]", " ") for t in texts]) for i in e.ids]
    separator = encoder.number("[SEP]")
    kept = [i for row in ids for i in row if i != separator]
    # Only the word of 90 letters is cut inside; its second part then opens as a word does.
    assert len(kept) == len(wanted)
    assert sum(a != b for a, b in zip(kept, wanted, strict=True)) <= 1
    used = sum(map(len, ids)) / (62 * len(ids))
    assert used > 0.75 if pack else used < 0.7


def test_questions_are_always_the_same_and_can_be_read_back(encoder: TextEncoder) -> None:
    asked = 0
    for text in TEXTS:
        question, pieces = cloze(text, encoder, 0.15)
        assert (question, pieces) == cloze(text, encoder, 0.15)
        (now,), (before,) = encoder.whole([question]), encoder.whole([text])
        places = [i for i, piece in enumerate(now.tokens) if piece == "[MASK]"]
        assert len(places) == len(pieces) > 0
        ids = list(now.ids)
        for place, piece in zip(places, pieces, strict=True):
            ids[place] = encoder.number(piece)
        assert ids == before.ids
        asked += len(pieces)
    assert asked / sum(len(e) for e in encoder.whole(TEXTS)) == pytest.approx(0.15, abs=0.03)


def test_rows_that_are_questions_already_stay(encoder: TextEncoder) -> None:
    task = Task((), Options())
    rows = task.questions([{"text": text} for text in TEXTS], encoder)
    assert task.questions(rows, encoder) == rows
    assert set(rows[0]) == {"text", "masked"}


def test_chinese_characters_are_words(encoder: TextEncoder) -> None:
    question, pieces = cloze("中国大学中国大学中国大学中国大学中国大学", encoder, 0.15)
    assert len(pieces) == 3
    assert question.count("[MASK]") == 3


def test_a_mask_of_another_name_is_found() -> None:
    tokenizer = checkpoints.wordpiece(PIECES, True, None, 64).to_json()
    assert TextEncoder(tokenizer.replace("[MASK]", "<mask>")).mask_token == "<mask>"
    with pytest.raises(UserError, match=r"no \[MASK\] or <mask> among its special.*\[PAD\]"):
        _ = checkpoints.wordpiece([p for p in PIECES if p != "[MASK]"], True, None, 64).mask_token


def test_text_without_known_pieces_is_named(encoder: TextEncoder) -> None:
    with pytest.raises(UserError, match="2 texts hold no known piece"):
        Task((), Options()).questions([{"text": "كان"}, {"text": " "}], encoder)


@pytest.mark.parametrize("share", [0.0, -1.0, 0.6])
def test_wrong_shares_are_named(share: float) -> None:
    with pytest.raises(UserError, match=f"--mask-share is {share}"):
        Options(mask_share=share)


def test_dropped_words_are_new_in_each_step_and_nothing_else_changes(
        encoder: TextEncoder) -> None:
    encoded = encoder.encode(TEXTS)
    examples = InMemory(encoded, {"logits": np.arange(len(encoded))}, np.ones(len(encoded)))

    def take(start: int) -> list[tuple]:
        kept = examples.batches(Batching(16, 0), start)
        dropped = drop_words(kept, encoder, 0.2, 0, start)
        pairs = zip(kept.as_numpy_iterator(), dropped.as_numpy_iterator(), strict=True)
        return list(islice(pairs, 30 - start))

    found = take(0)
    hidden = text = 0
    for (inputs, targets, _), (dropped, same, _) in found:
        changed = inputs["input_ids"] != dropped["input_ids"]
        assert (dropped["input_ids"][changed] == 4).all()
        assert not (changed & (inputs["input_ids"] < len(SPECIAL_TOKENS))).any()
        np.testing.assert_array_equal(targets["logits"], same["logits"])
        np.testing.assert_array_equal(inputs["attention_mask"], dropped["attention_mask"])
        hidden += changed.sum()
        text += (inputs["input_ids"] >= len(SPECIAL_TOKENS)).sum()
    assert hidden / text == pytest.approx(0.2, abs=0.01)
    for (_, one), (_, other) in zip(found[10:], take(10), strict=True):  # a training that goes on
        np.testing.assert_array_equal(one[0]["input_ids"], other[0]["input_ids"])
