"""Vocabularies from text, and new backbones on them."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import opinions, write_lines
from tf_pipeline import checkpoints, vocabulary
from tf_pipeline.config import VocabularyConfig
from tf_pipeline.errors import UserError
from tf_pipeline.text import SPECIAL_TOKENS

TEXTS = [row["text"] for row in opinions(300)]
MIXED = [*TEXTS, "大学在中国。", "我爱 the 大学", "Привет, мир", "naïve CAFÉ"] * 3


def test_the_size_is_met_and_special_pieces_come_first() -> None:
    pieces = vocabulary.train(TEXTS, 200, False)
    assert len(pieces) == len(set(pieces)) == 200
    assert tuple(pieces[:5]) == SPECIAL_TOKENS
    assert any(len(piece) > 3 for piece in pieces[5:])
    assert pieces == vocabulary.train(TEXTS, 200, False)


def test_mixed_scripts_and_chinese_characters() -> None:
    pieces = vocabulary.train(MIXED, 300, False)
    assert {"大", "学", "п", "cafe"} <= set(pieces)
    assert "大学" not in pieces
    encoder = checkpoints.wordpiece(pieces, True, None, 64)
    (encoding,) = encoder.whole(["我爱大学 café"])
    assert encoding.tokens == ["我", "爱", "大", "学", "cafe"]
    assert "É" in {c for piece in vocabulary.train(MIXED, 300, True) for c in piece}


@pytest.mark.parametrize(("size", "words"), [
    (40, ["--size is 40", "characters", "Give at least"]),
    (90_000, ["--size is 90000", "give only", "Give at most"])])
def test_sizes_that_the_text_does_not_give(size: int, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        vocabulary.train(TEXTS, size, False)
    assert all(word in str(error.value) for word in words)
    possible = int(str(error.value).partition("Give at ")[2].split()[1].rstrip(",."))
    assert len(vocabulary.train(TEXTS, possible, False)) == possible


@pytest.mark.parametrize(("changes", "words"), [
    ({"cased": None}, "Pass --cased to keep them or --uncased"),
    ({"size": 5}, "--size is 5; it must be above the 5"),
    ({"out": Path(__file__)}, "--out .* exists and is not overwritten"),
    ({"out": Path(__file__) / "v.txt"}, "could not be written: .*Choose a folder")])
def test_wrong_settings_are_named(changes: dict, words: str, tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "corpus.txt", TEXTS)
    usual = {"train": f"lines:{corpus}", "out": tmp_path / "v.txt", "size": 150, "cased": False}
    with pytest.raises(UserError, match=words):
        vocabulary.write(VocabularyConfig(**{**usual, **changes}))


def test_a_new_backbone_has_the_sizes_asked_for(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "vocab.txt", vocabulary.train(TEXTS, 150, False))
    found = checkpoints.load(f"new:vocab={path}&layers=3&hidden=48&heads=4&positions=100", False)
    config = found.config
    assert (config.vocab_size, config.num_hidden_layers, config.hidden_size,
            config.num_attention_heads, config.intermediate_size,
            config.max_position_embeddings) == (150, 3, 48, 4, 192, 100)
    assert found.weights is None
    assert found.encoder.lower_case
    saved = tmp_path / "tokenizer.json"
    saved.write_text(found.encoder.to_json(), "utf-8")
    assert checkpoints.load(f"new:vocab={saved}").encoder.vocabulary == found.encoder.vocabulary


def test_positions_start_as_waves(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "vocab.txt", [*SPECIAL_TOKENS, "a", "b"])
    found = checkpoints.load(f"new:vocab={path}&hidden=6&heads=2&positions=9&layers=1", False)
    table = found.build().get_layer("embeddings").position.embeddings.numpy()
    assert table.shape == (9, 6)
    np.testing.assert_allclose(table[0], [0, 0, 0, 0.05, 0.05, 0.05], atol=1e-7)
    # The product of two positions depends on their distance alone.
    products = table @ table.T
    for distance in (1, 4):
        np.testing.assert_allclose(np.diag(products, distance), products[0, distance], rtol=1e-5)
    marked = found.mark_case()
    np.testing.assert_array_equal(marked.positions, found.positions)


@pytest.mark.parametrize(("settings", "cased", "words"), [
    ("vocab={path}", None, "Pass --cased or --uncased"),
    ("vocab=nowhere.txt", False, "vocab=nowhere.txt is no file"),
    ("layers=3", False, "names no vocab"),
    ("vocab={path}&depth=3", False, "unknown setting 'depth'"),
    ("vocab={path}&layers=0", False, "layers=0; allowed are whole numbers"),
    ("vocab={path}&layers=many", False, "layers=many"),
    ("vocab={path}&hidden=30&heads=4", False, "hidden=30 and heads=4"),
    ("vocab", False, "'vocab' has no value")])
def test_settings_that_cannot_be_are_named(settings: str, cased: bool | None, words: str,
                                           tmp_path: Path) -> None:
    path = write_lines(tmp_path / "vocab.txt", [*SPECIAL_TOKENS, "a"])
    with pytest.raises(UserError, match=words):
        checkpoints.load(f"new:{settings.format(path=path)}", cased)
