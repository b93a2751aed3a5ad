"""Encoding and batching with a real tokenizer: the MiniLM checkpoint's."""

import numpy as np
import pytest

from tf_pipeline import checkpoints
from tf_pipeline.errors import UserError
from tf_pipeline.text import Shapes, TextEncoder, batches

CLS, SEP = 101, 102


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return checkpoints.load("minilm").encoder


def test_texts_carry_the_special_tokens_and_no_padding(encoder: TextEncoder) -> None:
    encoded = encoder.encode(["Hello, world!", "", "a " * 40])
    assert encoded.lengths.tolist() == [6, 2, 42]
    assert encoded.ids[:6].tolist() == [CLS, 7592, 1010, 2088, 999, SEP]
    assert encoded.ids[6:8].tolist() == [CLS, SEP]
    assert encoded.cut == 0


def test_a_long_text_is_cut_before_its_last_sep_and_counted(encoder: TextEncoder) -> None:
    encoded = encoder.encode(["one two three four five six seven", "one"], max_len=5)
    assert encoded.lengths.tolist() == [5, 3]
    assert encoded.ids[4] == SEP
    assert encoded.cut == 1


def test_a_pair_shortens_its_longer_side_and_marks_both(encoder: TextEncoder) -> None:
    encoded = encoder.encode(["yes"], ["one two three four five six seven eight nine"], max_len=8)
    assert encoded.ids[:3].tolist() == [CLS, 2748, SEP]
    assert encoded.types.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert encoded.ids[-1] == SEP


def test_recase_changes_ids_and_back(encoder: TextEncoder) -> None:
    cased = encoder.recase(cased=True)
    text = ["Paris é"]
    assert encoder.lower_case
    assert encoder.strip_accents
    assert not cased.lower_case
    assert cased.encode(text).ids.tolist() != encoder.encode(text).ids.tolist()
    again = cased.recase(cased=False)
    assert again.encode(text).ids.tolist() == encoder.encode(text).ids.tolist()


def test_capitals_become_marks_in_the_texts_own_places(encoder: TextEncoder) -> None:
    marked = checkpoints.load("minilm").mark_case().encoder
    assert marked.marks_case
    assert marked.lower_case
    assert not encoder.marks_case
    text = "John met NASA, O'Neill's Éva and McCoy at 3D iPhone"
    pieces = [marked.vocabulary[i] for i in marked.encode([text]).ids]
    assert " ".join(pieces[1:-1]) == (
        "⁕ john met ⁑ nasa , ⁕ o ' ⁕ neill ' s ⁕ eva and ⁕ mccoy at 3d iphone")
    encoded = marked.encode_words([text])
    assert encoded.words is not None
    shown = [text[a:b] for a, b in encoded.words.offsets]
    assert shown[:8] == ["John", "met", "NASA", ",", "O", "'", "Neill", "'"]
    assert "Éva" in shown
    split = marked.encode_words([["John", "met", "NASA"]])
    assert split.words is not None
    assert split.words.first.tolist() == [2, 3, 5]  # behind the marks
    plain = "no capital in here — nowhere"
    assert marked.encode([plain]).ids.tolist() == encoder.encode([plain]).ids.tolist()


def test_marks_take_new_rows_where_none_is_unused() -> None:
    before = checkpoints.load("tiny")
    after = before.mark_case()
    assert after.config.vocab_size == before.config.vocab_size + 2
    assert after.encoder.vocabulary[-2:] == ["⁕", "⁑"]
    assert after.mark_case() is after
    with pytest.raises(UserError, match="--mark-case is for a WordPiece tokenizer that folds"):
        checkpoints.load("tiny", cased=True).mark_case()


def test_recase_refuses_another_normalizer() -> None:
    from tokenizers import Tokenizer, models, normalizers

    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    with pytest.raises(UserError, match="'NFC'"):
        TextEncoder(tokenizer.to_str()).recase(cased=True)


def test_json_round_trip_gives_equal_ids(encoder: TextEncoder) -> None:
    texts = ["naïve café", "北京", "a\u200bb", "[MASK] me"]
    again = TextEncoder(encoder.to_json())
    assert again.encode(texts).ids.tolist() == encoder.encode(texts).ids.tolist()


def test_take_keeps_order_and_repeats(encoder: TextEncoder) -> None:
    encoded = encoder.encode(["one", "two three", "four"])
    taken = encoded.take([2, 0, 0])
    assert taken.lengths.tolist() == [3, 3, 3]
    assert taken.ids.tolist() == [*encoder.encode(["four"]).ids,
                                  *encoder.encode(["one", "one"]).ids]
    assert len(encoded.take([])) == 0


def test_padded_rows_hold_ids_then_padding(encoder: TextEncoder) -> None:
    inputs = encoder.encode(["one", "two three"]).padded([0, 1], 6)
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    assert inputs["input_ids"][0, 3:].tolist() == [0, 0, 0]
    assert all(v.dtype == np.int32 for v in inputs.values())


@pytest.mark.parametrize(("texts", "size"), [(1, 32), (5, 2), (33, 8), (32, 32)])
def test_batches_give_each_text_once_in_full_batches(encoder: TextEncoder, texts: int,
                                                     size: int) -> None:
    encoded = encoder.encode(["word " * (i % 7) for i in range(texts)])
    seen: list[int] = []
    for rows, inputs in batches(encoded, Shapes(size)):
        assert inputs["input_ids"].shape[0] == min(size, texts)
        assert inputs["input_ids"].shape[1] % 8 == 0
        for place, row in enumerate(rows):
            span = encoded.ids[encoded.splits[row]:encoded.splits[row + 1]]
            assert inputs["input_ids"][place, :len(span)].tolist() == span.tolist()
        seen += rows.tolist()
    assert sorted(seen) == list(range(texts))


@pytest.mark.parametrize("size", [1, 8])
def test_any_shape_is_hardly_padded(encoder: TextEncoder, size: int) -> None:
    encoded = encoder.encode(["word " * (i % 40) for i in range(100)])
    seen: list[int] = []
    for rows, inputs in batches(encoded, Shapes(size, few=False)):
        lengths = encoded.lengths[rows]
        assert inputs["input_ids"].shape == (len(rows), lengths.max())
        assert len(rows) <= size
        assert lengths.max() <= max(1.25 * lengths.min(), lengths.min() + 2)
        assert inputs["attention_mask"].sum(1).tolist() == lengths.tolist()
        seen += rows.tolist()
    assert sorted(seen) == list(range(100))


@pytest.mark.parametrize("few", [True, False])
def test_no_texts_give_no_batches(encoder: TextEncoder, few: bool) -> None:
    assert list(batches(encoder.encode([]), Shapes(8, few=few))) == []


LONG = [f"word{i}" if i % 3 else "supercalifragilistic" for i in range(100)]


def test_words_are_found_by_their_first_piece(encoder: TextEncoder) -> None:
    words = ["Angela", "Merkel", "visited", "\u200b", "Ouagadougou", "."]
    encoded = encoder.encode_words([words, ["one"]])
    found = encoded.words
    assert found is not None
    assert found.counts.tolist() == [6, 1]
    assert found.first[3] == -1  # a zero-width space has no piece
    vocabulary = encoder.vocabulary
    first = [vocabulary[encoded.ids[i]] for i in found.first if i >= 0]
    assert first == ["angela", "mer", "visited", "ou", ".", "one"]
    text = " ".join(words)
    assert [text[a:b] for a, b in found.offsets[:6]] == words


def test_words_of_a_raw_text_carry_its_own_characters(encoder: TextEncoder) -> None:
    text = "Müller's café in 北京, ok?"
    found = encoder.encode_words([text]).words
    assert found is not None
    assert [text[a:b] for a, b in found.offsets] == [
        "Müller", "'", "s", "café", "in", "北", "京", ",", "ok", "?"]


@pytest.mark.parametrize("max_len", [12, 16, 33])
def test_long_texts_are_windowed_and_no_word_is_lost(encoder: TextEncoder, max_len: int) -> None:
    whole = encoder.encode_words([LONG], max_len=4096)
    windows = encoder.encode_words([LONG, ["short"]], max_len=max_len)
    assert windows.lengths.max() <= max_len
    assert len(windows) > 5
    assert whole.words is not None
    assert windows.words is not None
    assert windows.words.counts.tolist() == [100, 1]
    expected = whole.ids[whole.words.first]
    assert windows.ids[windows.words.first[:100]].tolist() == expected.tolist()
    for one in (LONG, [" ".join(LONG)]):
        text = encoder.encode_words([one if one is LONG else one[0]], max_len=max_len)
        assert text.words is not None
        assert (text.words.first >= 0).all()


def test_padded_words_are_laid_out_by_text(encoder: TextEncoder) -> None:
    encoded = encoder.encode_words([["Ouagadougou", "is"], ["hot"], []])
    assert encoded.words is not None
    values = encoded.words.padded(encoded.words.first.astype(np.float32)[:, None])
    assert values.shape == (3, 2, 1)
    assert values[0, 0, 0] == 1
    assert encoded.ids[int(values[0, 1, 0])] == encoder.encode(["is"]).ids[1]
    assert values[1, :, 0].tolist() == [encoded.words.first[2], 0]
    assert not values[2].any()
