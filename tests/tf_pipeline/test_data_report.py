"""The report on hand-made data, every number known."""

import json

from tf_pipeline.data_report import as_text, report
from tf_pipeline.sources import Record
from tf_pipeline.splits import Splits


def splits(train: list[Record], validation: list[Record], test: list[Record]) -> Splits:
    specs = {"train": "csv:a.csv", "validation": "csv:a.csv", "test": "csv:b.csv"}
    return Splits(train, validation, test, specs, ("validation",), {}, ("A note.",))


def labelled(*pairs: tuple[str, str]) -> list[Record]:
    return [{"text": text, "label": label} for text, label in pairs]


REVIEWS = splits(
    labelled(("Good film", "pos"), ("good  FILM", "pos"), ("Poor film", "neg"),
             ("so so", "pos"), ("So so", "neg"), ("a b c d e f g h i j", "pos")),
    labelled(("fine", "pos"), ("poor film", "neg")),
    labelled(("GOOD film", "neg"), ("new", "odd")))


def words(records: list[Record]) -> list[int]:
    return [len(str(record["text"]).split()) + 2 for record in records]


def test_counts():
    found = report(REVIEWS, words, max_len=8)
    assert found["sizes"] == {"train": 6, "validation": 2, "test": 2}
    assert found["labels"] == {"train": {"pos": 4, "neg": 2}, "validation": {"neg": 1, "pos": 1},
                               "test": {"neg": 1, "odd": 1}}
    assert found["duplicates"] == {"train": 2, "validation": 0, "test": 0}
    assert found["overlap"] == {
        "train and validation": {"texts": 1, "examples": ["poor film"]},
        "train and test": {"texts": 1, "examples": ["GOOD film"]},
        "validation and test": {"texts": 0, "examples": []}}
    assert found["conflicts"] == {"texts": 2, "examples": [
        {"text": "Good film", "labels": ["pos", "neg"]},
        {"text": "so so", "labels": ["pos", "neg"]}]}
    assert found["lengths"]["train"] == {"p50": 4, "p90": 12, "p99": 12, "max": 12, "cut": 1}
    assert found["lengths"]["test"] == {"p50": 3, "p90": 4, "p99": 4, "max": 4, "cut": 0}
    assert json.loads(json.dumps(found)) == found


def test_length_equal_to_the_limit_is_not_cut():
    assert report(REVIEWS, words, max_len=12)["lengths"]["train"]["cut"] == 0


def test_at_most_three_examples():
    same = labelled(*((f"text {i}", label) for i in range(9) for label in "ab"))
    found = report(splits(same, same[:10], []), None, 128)
    assert found["overlap"]["train and validation"]["texts"] == 5
    assert len(found["overlap"]["train and validation"]["examples"]) == 3
    assert (found["conflicts"]["texts"], len(found["conflicts"]["examples"])) == (9, 3)


def test_tags_and_several_labels():
    one = {"tokens": ["Eva", "ran"], "tags": ["PER", "O"]}
    found = report(splits([one, one], [{**one, "tags": ["O", "O"]}], []), None, 128)
    assert found["labels"]["train"] == {"O": 2, "PER": 2}
    assert found["duplicates"]["train"] == 1
    assert found["conflicts"]["examples"] == [{"text": "Eva ran", "labels": ["PER O", "O O"]}]
    several = [{"text": "x", "labels": ["a", "b"]}, {"text": "x", "labels": ["b", "a"]}]
    found = report(splits(several, [], []), None, 128)
    assert found["labels"]["train"] == {"a": 2, "b": 2}
    assert found["conflicts"]["texts"] == 0


def test_pairs_and_records_without_labels():
    pair = {"text": "a", "text_b": "b", "score": 1.0}
    found = report(splits([pair, {**pair, "score": 2.0}], [pair], []), None, 128)
    assert found["labels"] == {"train": {}, "validation": {}, "test": {}}
    assert found["overlap"]["train and validation"]["examples"] == ["a | b"]
    assert found["conflicts"]["texts"] == 0
    assert "label" not in as_text(found)


def test_text_is_aligned_and_says_all():
    text = as_text(report(REVIEWS, words, max_len=8))
    assert text == """\
            train  validation  test
examples        6           2     2
duplicates      2           0     0

label       train  validation        test
pos    4 (66.7 %)  1 (50.0 %)  0 ( 0.0 %)
neg    2 (33.3 %)  1 (50.0 %)  1 (50.0 %)
odd    0 ( 0.0 %)  0 ( 0.0 %)  1 (50.0 %)

tokens         train  validation        test
p50                4           3           3
p90               12           4           4
p99               12           4           4
max               12           4           4
cut at 8  1 (16.7 %)  0 ( 0.0 %)  0 ( 0.0 %)

Texts in both train and validation: 1, e.g.
  poor film

Texts in both train and test: 1, e.g.
  GOOD film

Texts with more than one label: 2, e.g.
  pos | neg: Good film
  pos | neg: so so

Note: A note."""


def test_many_labels_are_summed_up_and_long_texts_shortened():
    rows = labelled(*((f"{i} " + "word " * 40, f"label {i:02}") for i in range(30)))
    text = as_text(report(splits(rows, rows[:1], []), None, 128))
    assert "10 more" in text
    assert "label 19" in text
    assert "label 20" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert "tokens" not in text
