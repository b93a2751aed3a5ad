"""What cutting by the text's hash promises, and where each split comes from."""

import json
import random
from pathlib import Path

import pytest

from tf_pipeline import datasets
from tf_pipeline.errors import UserError
from tf_pipeline.splits import Splits, assemble, content_hash, text_key

WORDS = ["slow", "fast", "warm", "good", "poor", "film", "book", "meal", "room", "phone", "coat"]


def texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [f"{i} " + " ".join(draw.choices(WORDS, k=8)) for i in range(count)]


def table(path: Path, rows: list[str], header: str = "text,label") -> str:
    label = ",x" if "label" in header else ""
    path.write_text(header + "\n" + "".join(f"{row}{label}\n" for row in rows))
    return f"csv:{path}"


def where(splits: Splits) -> dict[str, str]:
    return {text_key(record): split
            for split, records in splits.records().items() for record in records}


def test_cut_is_about_80_10_10_and_disjoint(tmp_path):
    splits = assemble(table(tmp_path / "a.csv", texts(2_000)))
    sizes = {split: len(records) for split, records in splits.records().items()}
    assert sum(sizes.values()) == 2_000 == len(where(splits))
    # Four standard deviations: 0.9 points at 80 %, 0.67 at 10 %.
    assert sizes["train"] == pytest.approx(1_600, abs=72)
    assert sizes["validation"] == pytest.approx(200, abs=54)
    assert sizes["test"] == pytest.approx(200, abs=54)
    assert splits.cut == ("validation", "test")
    assert set(splits.specs.values()) == {f"csv:{tmp_path}/a.csv"}
    assert f"train {sizes['train']}, validation {sizes['validation']}" in splits.notes[0]


def test_equal_texts_fall_together(tmp_path):
    rows = texts(300)
    changed = [f"  {row.upper().replace(' ', '   ')}" for row in rows]
    wide = [row.translate({ord(c): ord(c) + 0xFEE0 for c in "abcdefghi"}) for row in rows]
    splits = assemble(table(tmp_path / "a.csv", [*rows, *changed, *wide]))
    assert {len(records) % 3 for records in splits.records().values()} == {0}
    assert len(where(splits)) == 300
    keys = [{text_key(r) for r in records} for records in splits.records().values()]
    assert sum(map(len, keys)) == 300


def test_added_or_moved_rows_never_move_old_ones(tmp_path):
    rows = texts(600)
    before = where(assemble(table(tmp_path / "a.csv", rows[:400])))
    random.Random(1).shuffle(rows)
    after = where(assemble(table(tmp_path / "b.csv", rows)))
    assert before.items() <= after.items()


def test_only_what_is_missing_is_cut(tmp_path):
    rows = texts(400)
    train = table(tmp_path / "a.csv", rows)
    other = table(tmp_path / "b.csv", texts(7, seed=2))
    both = where(assemble(train))
    no_test = assemble(train, validation=other)
    assert no_test.cut == ("test",)
    assert len(no_test.validation) == 7
    assert no_test.specs == {"train": train, "validation": other, "test": train}
    no_validation = assemble(train, test=other)
    assert no_validation.cut == ("validation",)
    # The same texts as when both are cut: one that was tested on never becomes validation data.
    for splits, part in ((no_test, "test"), (no_validation, "validation")):
        assert {text_key(r) for r in splits.records()[part]} == {
            key for key, split in both.items() if split == part}
    everything = assemble(train, validation=other, test=table(tmp_path / "c.csv", texts(5, 3)))
    assert (everything.cut, len(everything.train), everything.notes) == ((), 400, ())


def test_a_folders_own_files_are_used_for_what_was_not_given(tmp_path):
    for name, count in (("train", 50), ("dev", 6), ("test", 4)):
        table(tmp_path / f"{name}.csv", texts(count, seed=count))
    splits = assemble(f"csv:{tmp_path}")
    assert [len(r) for r in splits.records().values()] == [50, 6, 4]
    assert splits.specs["validation"] == f"csv:{tmp_path}/dev.csv"
    assert (splits.cut, splits.notes) == ((), ())
    given = assemble(f"csv:{tmp_path}", validation=f"csv:{tmp_path}/test.csv")
    assert len(given.validation) == 4
    # A folder given for a split means its file for that split, not its training data.
    assert len(assemble(f"csv:{tmp_path}/train.csv", test=f"csv:{tmp_path}").test) == 4


def test_a_file_used_twice_is_noted_also_under_another_name(tmp_path):
    train = table(tmp_path / "a.csv", texts(100))
    dev = table(tmp_path / "b.csv", texts(9, seed=2))
    copy = table(tmp_path / "c.csv", texts(9, seed=2))
    splits = assemble(train, validation=dev, test=dev)
    assert splits.notes == (f"validation and test are the same data ({dev}): "
                            "test scores will look too good.",)
    assert splits.hashes["validation"] == splits.hashes["test"] != splits.hashes["train"]
    assert f"({dev} and {copy})" in assemble(train, validation=dev, test=copy).notes[0]
    # The file is cut afterwards, and is still the same file.
    assert "train and test are the same data" in assemble(train, test=train).notes[0]


def test_a_test_file_without_labels_is_not_used(tmp_path):
    table(tmp_path / "train.csv", texts(200))
    table(tmp_path / "dev.csv", texts(5, seed=2))
    table(tmp_path / "test.csv", texts(5, seed=3), header="text")
    splits = assemble(f"csv:{tmp_path}")
    assert splits.cut == ("test",)
    assert splits.notes[0] == (f"csv:{tmp_path}/test.csv has no labels and is not used as test "
                               "data.")
    # Asked for, it stays: a task can do without labels.
    assert len(assemble(f"csv:{tmp_path}", test=f"csv:{tmp_path}/test.csv").test) == 5


def test_records_with_a_hidden_label_are_left_out_and_counted(tmp_path, monkeypatch):
    (tmp_path / "partly.py").write_text(
        'SCHEMES = {"partly": {}}\nOPTIONS = {}\n'
        "def read(location, options):\n"
        '    yield from ({"text": f"t {i}", **({"label": "x"} if i % 4 else {})}'
        " for i in range(400))\n")
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path)])
    splits = assemble("partly:x")
    assert sum(map(len, splits.records().values())) == 300
    assert "100 of 400 records have no label" in splits.notes[0]


def test_too_few_examples(tmp_path):
    train = table(tmp_path / "a.csv", ["one text"] * 6)
    with pytest.raises(UserError) as caught:
        assemble(train)
    message = str(caught.value)
    for part in (train, "6 examples (1 different texts)", "empty", "at least 1",
                 "--validation SPEC and --test SPEC"):
        assert part in message
    dev = table(tmp_path / "b.csv", ["another"])
    assert len(assemble(train, validation=dev, test=dev).train) == 6


def test_text_key_joins_pairs_and_tokens():
    assert text_key({"text": " A\u00a0\uff22 ", "label": "x"}) == "a b"
    assert text_key({"tokens": ["Eva", "Stra\u00dfe"]}) == "eva strasse"
    assert text_key({"text": "a", "text_b": "b c"}) != text_key({"text": "a b", "text_b": "c"})


def test_content_hash_sees_order_labels_and_types():
    one, two = {"text": "a", "label": "x"}, {"text": "b", "score": 1.0}
    hashes = [content_hash(records) for records in (
        [one, two], [two, one], [one], [{**one, "label": "y"}], [{**two, "score": "1.0"}], [two])]
    assert len(set(hashes)) == 6
    assert content_hash([dict(reversed(one.items()))]) == content_hash([one])
    assert content_hash(json.loads(json.dumps([one, two]))) == hashes[0]
