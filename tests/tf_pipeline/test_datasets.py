"""Readers of tables, lines and tagged tokens: what they give, and how they refuse broken files."""

import json
from pathlib import Path

import pytest

from tf_pipeline import sources
from tf_pipeline.errors import UserError


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(spec: str) -> str:
    """Read all of a spec that must be refused; give the message, which is one line."""
    with pytest.raises(UserError) as caught:
        list(sources.read(spec))
    message = str(caught.value)
    assert "\n" not in message
    return message


def has(message: str, *parts: str) -> None:
    for part in parts:
        assert part in message, f"{part!r} is not in: {message}"


# Tables


def test_csv_quotes_bom_breaks_and_spaces(tmp_path):
    path = write(tmp_path / "a.csv", b'\xef\xbb\xbftext,label\r\n"He said ""no"",\r\nthen left"'
                 b", pos \r\n  padded  ,neg\r\n\r\n")
    assert list(sources.read(f"csv:{path}")) == [
        {"text": 'He said "no",\r\nthen left', "label": "pos"},
        {"text": "  padded  ", "label": "neg"}]


def test_columns_are_named_by_options_or_have_the_fields_name(tmp_path):
    path = write(tmp_path / "a.csv", "id,text,text_b,score,kind,labels\n7,a,b,2.5,x,\"p, q\"\n")
    record = {"text": "a", "text_b": "b", "score": 2.5, "labels": ["p", "q"]}
    assert list(sources.read(f"csv:{path}")) == [record]
    assert list(sources.read(f"csv:{path}?label=kind&text=id&score=&labels=&text_b=")) == [
        {"text": "7", "label": "x"}]


def test_tsv_quote_is_a_character_and_labels_may_be_none(tmp_path):
    path = write(tmp_path / "a.tsv", 'text\tlabels\n"open\tp\n \'x" \t\n')
    assert list(sources.read(f"tsv:{path}")) == [
        {"text": '"open', "labels": ["p"]}, {"text": " 'x\" ", "labels": []}]


@pytest.mark.parametrize("cell", ["joy|fear", "joy; fear", "joy,fear", '["joy", "fear"]',
                                  "['joy', 'fear']", "joy|fear|joy"])
def test_spellings_of_several_labels(cell, tmp_path):
    path = write(tmp_path / "a.tsv", f"text\tlabels\na\t{cell}\n")
    assert list(sources.read(f"tsv:{path}")) == [{"text": "a", "labels": ["joy", "fear"]}]


def test_a_label_may_hold_the_weaker_separators(tmp_path):
    path = write(tmp_path / "a.tsv", "text\tlabels\na\tred, bright|blue\n")
    assert next(sources.read(f"tsv:{path}"))["labels"] == ["red, bright", "blue"]
    path = write(tmp_path / "b.tsv", "text\tlabels\na\t[joy, fear\n")
    has(refusal(f"tsv:{path}"), "row 2", "'[joy, fear'", "joy|fear")


def test_a_header_and_label_names_by_option(tmp_path):
    names = write(tmp_path / "names.txt", "joy\nfear\n")
    path = write(tmp_path / "a.tsv", "fine\t0,1\tx7\nhm\t\tx8\n")
    spec = f"tsv:{path}?header=text,labels,id&label_names={names}"
    assert list(sources.read(spec)) == [{"text": "fine", "labels": ["joy", "fear"]},
                                        {"text": "hm", "labels": []}]
    path = write(tmp_path / "b.csv", "fine,1\nbad,2\n")
    assert next(sources.read(f"csv:{path}?header=text,label"))["label"] == "1"
    has(refusal(f"csv:{path}?header=text,label&label_names={names}"), "row 2", "label is '2'",
        "labels 0 to 1")
    has(refusal(f"csv:{path}?header=text"), "row 1", "2 columns, but the header has 1")
    path = write(tmp_path / "c.jsonl", '{"text": "a"}\n')
    has(refusal(f"jsonl:{path}?header=text"), "header is 'text'", "Leave it out")


def test_jsonl_labels_become_text(tmp_path):
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": True}, {"text": "c", "label": " x "}]
    path = write(tmp_path / "a.jsonl", "\n\n".join(map(json.dumps, rows)))
    assert [r["label"] for r in sources.read(f"jsonl:{path}")] == ["1", "true", "x"]
    path = write(tmp_path / "b.jsonl", '{"text": "a\u2028b", "labels": [1, "x"], "score": 2}\n')
    assert list(sources.read(f"jsonl:{path}")) == [
        {"text": "a\u2028b", "labels": ["1", "x"], "score": 2.0}]


def test_missing_file_suggests_close_names(tmp_path):
    write(tmp_path / "reviews.csv", "text\nx\n")
    has(refusal(f"csv:{tmp_path}/review.csv"), f"{tmp_path}/review.csv", "reviews.csv?")
    has(refusal(f"csv:{tmp_path}/nowhere/review.csv"), f"{tmp_path}/nowhere does not exist")


@pytest.mark.parametrize("scheme", ["csv", "tsv", "jsonl", "lines", "conll"])
def test_what_no_text_file_may_be(scheme, tmp_path):
    path = tmp_path / "a.x"
    for content, parts in {
        b"": ("is empty", "0 bytes"),
        b" \n\n": ("is empty", "3 bytes"),
        b"text\n\ncaf\xe9\n": ("row 3", "byte offset 9", r"b'\xe9'", "UTF-8"),
        b"text\nx\0y\n": ("row 2", "byte offset 6", "NUL"),
        "text\nx\n".encode("utf-16"): ("UTF-16", "Save it as UTF-8"),
    }.items():
        if scheme in ("jsonl", "conll"):  # where the first line would be refused before
            content = content.replace(b"text", b'{"text": "x"}' if scheme == "jsonl" else b"x\tO")
            parts = [p for p in parts if "offset" not in p]
        write(path, content)
        has(refusal(f"{scheme}:{path}"), str(path), *parts)


@pytest.mark.parametrize("scheme", ["csv", "tsv"])
def test_header_faults(scheme, tmp_path):
    tab = {"csv": ",", "tsv": "\t"}[scheme]
    path = tmp_path / "a"
    for content, parts in {
        "text,label\n": ("text, label", "no rows"),
        "text,label,text\na,b,c\n": ("two columns 'text'", "text, label, text"),
        ",text,label\n0,a,b\n": ("column 1", "has no name", "'text', 'label'", "index=False"),
        "sentence,label\na,b\n": ("no column 'text'", "sentence, label", f"{scheme}:{path}?text="),
    }.items():
        write(path, content.replace(",", tab))
        has(refusal(f"{scheme}:{path}"), str(path), *parts)


def test_wrong_column_lists_those_there(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\na,b\n")
    has(refusal(f"csv:{path}?label=polarity"), "'polarity' for label", "text, label",
        "label=COLUMN")


def test_rows_without_text_or_label_are_counted(tmp_path):
    rows = ["a,x", ",x", "  ,x", '"b\nc",x', "d", *["e,  "] * 6]
    path = write(tmp_path / "a.csv", "text,label\n" + "\n".join(rows) + "\n")
    has(refusal(f"csv:{path}"), "no text (column 'text'): 2 (row 3, 4);",
        "no label (column 'label'): 7 (row 7, 8, 9, 10, 11, ...)")
    # An empty name reads no label, so a row may lack one.
    path = write(tmp_path / "b.csv", "text,label\na,\n")
    assert list(sources.read(f"csv:{path}?label=")) == [{"text": "a"}]


def test_json_null_or_absent_counts_as_missing(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": "x"}\n{"text": null, "label": "x"}\n'
                 '{"text": "b"}\n')
    has(refusal(f"jsonl:{path}"), "no text (column 'text'): 1 (row 2)",
        "no label (column 'label'): 1 (row 3)")


def test_column_counts(tmp_path):
    path = write(tmp_path / "a.tsv", "text\tlabel\na\tx\nb\tc\tx\n")
    has(refusal(f"tsv:{path}"), "row 3", "3 columns", "header has 2", "text, label")
    path = write(tmp_path / "a.csv", 'text,label\n"a\nb",x\nb, and c,x\n')
    has(refusal(f"csv:{path}"), "row 4", "3 columns", "header has 2", "quotes")


def test_a_quote_left_open_is_refused(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\na,x\n"b,x\nc,y\n')
    has(refusal(f"csv:{path}"), "row 3", "not CSV", "doubled")


@pytest.mark.parametrize(("line", "parts"), [
    ("{'text': 'a'}", ("row 2", "character 2", "not JSON", "'text'")),
    ('["a"]', ("row 2", "no JSON object", '["a"]')),
    ('{"text": 5}', ("row 2", "column 'text'", "is 5", "must be a string")),
    ('{"text": "a", "label": ["x"]}', ("row 2", "column 'label'", "['x']", "true or false")),
    ('{"text": "\\ud83d", "label": "x"}', ("row 2", "ud83d", "surrogate")),
    ('{"text": "a", "label": "x", "score": "high"}', ("row 2", "'high'", "finite number")),
    ('{"text": "a", "label": "x", "score": NaN}', ("row 2", "nan", "finite number")),
    ('{"text": "a", "label": "x", "labels": ["p", ""]}', ("row 2", "['p', '']", "empty label")),
    ('{"text": "a", "label": "x", "labels": 5}', ("row 2", "labels is 5", "a list")),
])
def test_json_rows_that_are_refused(line, parts, tmp_path):
    first = {"text": "a", "label": "x", "score": 1, "labels": []}
    path = write(tmp_path / "a.jsonl", json.dumps(first) + "\n" + line + "\n")
    has(refusal(f"jsonl:{path}"), str(path), *parts)


# Lines and CoNLL


def test_lines(tmp_path):
    path = write(tmp_path / "a.txt", " one \r\n\n   \ntwo\u2028still two\nthree")
    assert [r["text"] for r in sources.read(f"lines:{path}")] == [
        " one ", "two\u2028still two", "three"]
    has(refusal(f"lines:{tmp_path}"), str(tmp_path), "is a folder")


def test_conll_sentences(tmp_path):
    path = write(tmp_path / "a.txt", "-DOCSTART- -X- O O\n\nEU NNP  I-ORG\nrejects\tVBZ \tO\n"
                 " \t\n\n\u3000 NN O\r\n\r\n-DOCSTART- -X- O\nPeter NNP I-PER\n")
    assert list(sources.read(f"conll:{path}")) == [
        {"tokens": ["EU", "rejects"], "tags": ["I-ORG", "O"]},
        {"tokens": ["\u3000"], "tags": ["O"]}, {"tokens": ["Peter"], "tags": ["I-PER"]}]
    assert next(sources.read(f"conll:{path}?columns=0,1"))["tags"] == ["NNP", "VBZ"]


def test_conll_documents(tmp_path):
    path = write(tmp_path / "a.txt", "-DOCSTART- O\n\nEU I-ORG\n\nBonn I-ORG\nis O\n\n"
                 "-DOCSTART- O\n\n-DOCSTART- O\n\nPeter I-PER\n")
    assert list(sources.read(f"conll:{path}?unit=document")) == [
        {"tokens": ["EU", "Bonn", "is"], "tags": ["B-ORG", "B-ORG", "O"]},
        {"tokens": ["Peter"], "tags": ["B-PER"]}]
    with pytest.raises(UserError, match="Option unit is 'page'; allowed: sentence, document"):
        list(sources.read(f"conll:{path}?unit=page"))
    empty = write(tmp_path / "b.txt", "-DOCSTART- O\n\n")
    with pytest.raises(UserError, match="no sentence in it"):
        list(sources.read(f"conll:{empty}?unit=document"))


@pytest.mark.parametrize("names", [("eng.train", "eng.testa", "eng.testb"),
                                   ("train.txt", "dev.txt", "test.txt"),
                                   ("weibo.train", "weibo.dev", "weibo.test"),
                                   ("train.bio", "valid.conll", "test")])
def test_conll_folders(names, tmp_path):
    for name in names:
        write(tmp_path / name, f"{name} O\n")
    write(tmp_path / "eng.train.gz", b"\x1f\x8b")
    specs = sources.split_specs(f"conll:{tmp_path}?columns=0,1")
    assert specs == {split: f"conll:{tmp_path}/{name}?columns=0,1"
                     for split, name in zip(sources.SPLITS, names, strict=True)}


@pytest.mark.parametrize(("content", "query", "parts"), [
    ("a b O\nc O\n", "", ("row 2", "2 columns in 'c O'", "allowed: 3")),
    ("a\n", "", ("row 1", "1 columns in 'a'", "2 or more")),
    ("a O\n O\n", "", ("row 2", "' O'")),
    ("a O\n", "?columns=0,3", ("row 1", "2 columns", "4 or more")),
    ("a O\n", "?columns=token", ("'token'", "columns=0,3")),
    ("-DOCSTART- O\n\n", "", ("no sentence",)),
])
def test_conll_faults(content, query, parts, tmp_path):
    path = write(tmp_path / "a.conll", content)
    has(refusal(f"conll:{path}{query}"), *parts)
