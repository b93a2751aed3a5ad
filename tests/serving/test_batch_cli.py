"""The flags and the Python of `python -m serving batch`: what is refused, and what is imported."""

import json
import os
import pickle
import re
import subprocess
import sys

import pytest
from filelock import FileLock

from serving import BatchAnswerer
from serving.cli import main
from tests.conftest import ROOT, command, opinions, write_csv, write_lines


@pytest.fixture
def rows(tmp_path) -> str:
    return f"csv:{write_csv(tmp_path / 'rows.csv', opinions(5))}"


@pytest.mark.parametrize(("flags", "said"), [
    (["--data", "csv:no.csv"], "No file no.csv"),
    (["--data", "ROWS?text=review"], "no column 'review' for text"),
    (["--data", "ROWS", "--keep", "key"], "no column 'key'. Its columns: text, label. Choose"),
    (["--data", "vader:tweets"], "choose one of: csv, jsonl, lines, tsv"),
    (["--data", "jsonl:FOLDER/empty"], "has no rows (0 bytes). Give a file with at least one."),
    (["--data", "ROWS", "--chunk", "0"], "--chunk is 0; it must be 1 or more"),
    (["--data", "ROWS", "--processes", "0"], "--processes is 0"),
    (["--data", "ROWS", "--out", "FOLDER"], ", a folder. Name a file, e.g. FOLDER/answers"),
    (["--data", "ROWS", "--out", "FOLDER/there.jsonl"], "there.jsonl exists and is not over"),
    (["--data", "ROWS", "--out", "FOLDER/bad.jsonl"], "bad.errors.jsonl exists and is not"),
    (["--data", "ROWS", "--runtime", "x"], "no graph with runtime x"),
    (["--data", "ROWS", "--out", "FOLDER/old.jsonl"], "holds no job.json, so no job can go on"),
    ([], "The following arguments are required: --data"),
], ids=lambda value: " ".join(value)[-30:] if isinstance(value, list) else "")
def test_user_errors_are_one_line(flags, said, artifact, rows, tmp_path, capsys):
    (tmp_path / "empty").touch()
    (tmp_path / "there.jsonl").touch()
    (tmp_path / "bad.errors.jsonl").touch()
    (tmp_path / "old.jsonl.parts").mkdir()
    (tmp_path / "old.jsonl.parts" / "00000000.jsonl").touch()
    words = [word.replace("ROWS", rows).replace("FOLDER", str(tmp_path)) for word in flags]
    out = [] if "--out" in words else ["--out", str(tmp_path / "out.jsonl")]
    try:
        code = main(["batch", str(artifact), *words, *out])
    except SystemExit as error:  # of argparse
        code = error.code
    assert code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert said.replace("FOLDER", str(tmp_path)) in printed.err


def test_one_job_at_a_time(artifact, rows, tmp_path, capsys):
    folder = tmp_path / "out.jsonl.parts"
    folder.mkdir()
    with FileLock(folder / "lock"):
        assert main(["batch", str(artifact), "--data", rows, "--out",
                     str(tmp_path / "out.jsonl")]) == 2
    assert "is being written to by another job" in capsys.readouterr().err


def test_a_file_that_changes_meanwhile_is_refused(artifact, tmp_path):
    file = write_lines(tmp_path / "rows.txt", [row["text"] for row in opinions(3000)])
    words = [sys.executable, "-m", "serving", "batch", artifact, "--data", f"lines:{file}",
             "--out", tmp_path / "out.jsonl", "--chunk", "8"]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out.jsonl.parts" / "00000001.jsonl").exists():
        assert process.poll() is None
    with file.open("a", encoding="utf-8") as stream:
        stream.write("one more\n")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "was changed while its rows were answered" in said
    assert "--resume" not in said
    assert not (tmp_path / "out.jsonl").exists()


def test_no_heavy_import(artifact, rows, tmp_path):
    for runtime in ("onnx", "tflite"):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "serving", "batch", artifact, "--data", rows,
             "--out", tmp_path / f"{runtime}.jsonl", "--runtime", runtime], cwd=ROOT, text=True,
            capture_output=True, check=True)
        imported = {line.rpartition("|")[2].strip().partition(".")[0]
                    for line in done.stderr.splitlines() if line.startswith("import time:")}
        # The processes write there too.
        assert {"onnx": "onnxruntime", "tflite": "ai_edge_litert"}[runtime] in imported
        assert not imported & {"tensorflow", "keras", "jax", "torch", "sklearn", "matplotlib",
                               "export", "starlette", "uvicorn", "tqdm"}


def test_help_is_quick():
    done = subprocess.run([sys.executable, "-m", "serving", "batch", "--help"], cwd=ROOT, text=True,
                          env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}, capture_output=True,
                          check=True)
    assert "--resume" in done.stdout
    assert not re.search(r"\| +(numpy|tokenizers|multiprocessing|tensorflow)$", done.stderr, re.M)


def test_rows_answered_from_python(artifact, tmp_path):
    answer = BatchAnswerer(artifact, "onnx", "float32", max_characters=30)
    rows = [{"text": "our room was lovely"}, {"text": " "}, {}, {"text": "long " * 20},
            {"text": 3}, {"text": "the manual was a mess", "id": 5}]
    first = answer(rows)
    assert [list(row) for row in first] == [["answer"], *[["error"]] * 4, ["answer"]]
    assert [first[0]["answer"]["label"], first[-1]["answer"]["label"]] == ["good", "bad"]
    packed = pickle.dumps(answer)
    assert len(packed) < 1000  # settings alone, no model
    assert pickle.loads(packed)(rows) == first
    assert answer([]) == []
    assert "surrogate" in answer([{"text": "\ud83d"}])[0]["error"]


def test_texts_a_line_and_few_of_them(artifact, tmp_path):
    file = write_lines(tmp_path / "rows.txt", ["our room was lovely", "", "a\u2028b"])
    done = command("serving", "batch", artifact, "--data", f"lines:{file}", "--out",
                   tmp_path / "new" / "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "new" / "out.jsonl").read_text("utf-8").split("\n")) == 3
    assert '"row": 2' in (tmp_path / "new" / "out.errors.jsonl").read_text("utf-8")


def test_columns_that_json_cannot_hold(artifact, tmp_path):
    file = write_lines(tmp_path / "rows.jsonl", [
        '{"text": "our room was lovely", "id": NaN}', '{"text": "a mess", "id": "\\ud83d\\u2028"}',
        '{"text": "a mess"}'])
    done = command("serving", "batch", artifact, "--data", f"jsonl:{file}", "--keep", "id",
                   "--out", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").open(encoding="utf-8")]
    assert [row["columns"] for row in rows] == [{"id": "\ud83d\u2028"}, {"id": None}]
    (error,) = (tmp_path / "out.errors.jsonl").read_text("utf-8").splitlines()
    assert json.loads(error)["row"] == 1
    assert "id cannot be kept: Out of range float values" in error
