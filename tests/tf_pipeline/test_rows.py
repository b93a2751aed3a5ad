"""`sources.rows`: each row of a file by itself, bad ones with the reason."""

import json
import tracemalloc
from pathlib import Path

import pytest

from tf_pipeline import sources
from tf_pipeline.datasets import _files
from tf_pipeline.errors import UserError


def found(spec: str, fields=("text",), kept=()) -> list[tuple[int, object]]:
    """Give each row's line with what it says or what is wrong with it."""
    return [(row.number, row.fault or row.record) for row in sources.rows(spec, fields, kept)]


def test_csv_goes_on_behind_every_fault(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b'\xef\xbb\xbfid,review\r\n1,good\r\n2,"open quote\r\n3,"fine, quoted"\n'
                     b'4,bad \xff byte\n5,"two\nlines, \xe2\x80\xa8"\n\n6\n7,a,b\n8,nul\x00\n'
                     b'9,"a"b"\n10,end\n11,"last open')
    rows = found(f"csv:{file}?text=review")
    assert [number for number, _ in rows] == [2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14]
    good = {number: said["text"] for number, said in rows if isinstance(said, dict)}
    assert good == {2: "good", 4: "fine, quoted", 6: "two\nlines, \u2028", 13: "end"}
    faults = {number: said for number, said in rows if isinstance(said, str)}
    assert faults[3].startswith("not CSV (',' expected after '\"'). A text with a comma")
    offset = file.read_bytes().index(b"\xff")
    assert faults[5] == f"byte offset {offset}: b'\\xff' is not UTF-8. Save the file as UTF-8."
    assert faults[9] == "1 columns, but the header has 2 (id, review)."
    assert faults[10] == "3 columns, but the header has 2 (id, review)."
    assert "a NUL byte" in faults[11]
    assert "unexpected end of data" in faults[14]


def test_a_quote_left_open_takes_no_good_row_along(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("text\n" + '"open\n' + "fine\n" * 50_000, "utf-8")
    rows = found(f"csv:{file}")
    assert len(rows) == 50_001
    assert rows[0][1].startswith("not CSV (field larger than field limit")
    assert rows[1:] == [(number, {"text": "fine"}) for number in range(3, 50_003)]


def test_tsv_jsonl_and_lines(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"id\ttext\n1\tx\n2\n\n3\t\"y\t\n4\t\xe9\n5\tz")
    assert found(f"tsv:{tmp_path / 'a.tsv'}") == [
        (2, {"text": "x"}), (3, "1 columns, but the header has 2 (id, text)."),
        (5, "3 columns, but the header has 2 (id, text)."),
        (6, "byte offset 23: b'\\xe9' is not UTF-8. Save the file as UTF-8."),
        (7, {"text": "z"})]
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "x"}\n[1]\n{"te\n\n{"text": 5}\n{"id": 1}\n\xff\n' + b"[" * 100_000
        + b'\n{"id": 1' + b"0" * 5000 + b"}\n")
    rows = dict(found(f"jsonl:{tmp_path / 'a.jsonl'}"))
    assert [rows[n] for n in (1, 5, 6)] == [{"text": "x"}, {"text": 5}, {"text": None}]
    assert [rows[n][:12] for n in (2, 3, 7, 8, 9)] == [
        "'[1]' is no ", "character 5:", "byte offset ", "'[[[[[[[[[[[", "'{\"id\": 1000"]
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\n\xff\nlast, \xc2\x85")
    rows = found(f"lines:{tmp_path / 'a.txt'}")
    assert rows == [(1, {"text": "one"}), (2, {"text": ""}), rows[2], (4, {"text": "last, \x85"})]
    assert rows[2][1].startswith("byte offset 9:")


def test_kept_columns_stay_as_they_are_and_pairs_are_read(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"q": "one", "a": "two", "id": {"n": [1.5, None]}}) + "\n", "utf-8")
    (row,) = sources.rows(f"jsonl:{tmp_path / 'a.jsonl'}?text=q&text_b=a", ("text", "text_b"),
                          ("id", "q"))
    assert row.record == {"text": "one", "text_b": "two"}
    assert row.kept == {"id": {"n": [1.5, None]}, "q": "one"}
    assert row.end == (tmp_path / "a.jsonl").stat().st_size


@pytest.mark.parametrize(("name", "content", "query", "said"), [
    ("a.csv", "id,text\n1,x\n", "?text=review", "no column 'review' for text"),
    ("a.csv", "id,text\n1,x\n", "", "no column 'text_b'. Its columns: id, text. Choose one of "
     "them with text_b=COLUMN"),
    ("a.csv", "id,text,text_b\n1,x,y\n", "", "no column 'key'. Its columns: id, text, text_b. "
     "Choose one of them with --keep"),
    ("a.csv", "id,\udcff\n1,x\n", "", "row 1, the header: byte offset 3: b'\\xff' is not UTF-8"),
    ("a.tsv", "id\tid\n1\tx\n", "", "two columns 'id'"),
    ("a.jsonl", "{}\n", "?header=a,b", "name their own columns"),
    ("a.txt", "x\n", "", "is plain text, without a column 'text_b'"),
    ("a.csv", "\udcff\udcfet\0", "", "is UTF-16"),
])
def test_what_is_wrong_with_a_whole_file(name, content, query, said, tmp_path):
    (tmp_path / name).write_text(content, "utf-8", errors="surrogateescape")
    scheme = {"a.txt": "lines"}.get(name, name[2:])
    with pytest.raises(UserError) as error:
        found(f"{scheme}:{tmp_path / name}{query}", ("text", "text_b"), ("key",))
    assert said in str(error.value)


@pytest.mark.parametrize(("spec", "said"), [
    ("vader:tweets", "is not read row by row; choose one of: csv, jsonl, lines, tsv"),
    ("csv:no.csv", "No file no.csv"), ("csv:{0}", "is no file"),
])
def test_what_has_no_rows(spec, said, tmp_path):
    with pytest.raises(UserError, match=said):
        found(spec.format(tmp_path))


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    def peak(count: int, line: str) -> int:
        file = Path(tmp_path / "a.csv")
        with file.open("w", encoding="utf-8") as stream:
            stream.write("text\n")
            stream.writelines(line for _ in range(count))
        tracemalloc.start()
        assert sum(1 for _ in sources.rows(f"csv:{file}", ("text",))) == count
        (_, highest), _ = tracemalloc.get_traced_memory(), tracemalloc.stop()
        return highest

    peak(10, "warm\n")
    assert peak(20_000, "some text\n") < peak(1000, "some text\n") + 50_000
    monkeypatch.setattr(_files, "LONGEST_LINE", 1000)
    assert peak(2, "x" * 3_000_000 + "\n") < 300_000
    (row, _) = sources.rows(f"csv:{tmp_path / 'a.csv'}", ("text",))
    assert row.fault == "a line of 3,000,001 bytes; allowed are 1,000."
