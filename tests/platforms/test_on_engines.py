"""Rows of other engines get the answers of `python -m serving batch`, each row once."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, command, opinions, pairs, travels
from tests.platforms.conftest import HERE

pytestmark = pytest.mark.platforms


def lines(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def close(mine, theirs) -> bool:
    """Whether answers agree but for what float32 rounds with other rows beside."""
    if isinstance(mine, float):
        return mine == pytest.approx(theirs, abs=1e-5)
    if isinstance(mine, dict):
        return mine.keys() == theirs.keys() and all(close(mine[k], theirs[k]) for k in mine)
    if isinstance(mine, list):
        return len(mine) == len(theirs) and all(map(close, mine, theirs))
    return mine == theirs


@pytest.mark.parametrize("engine", ["beam", "ray"])
@pytest.mark.parametrize("task", ["classify", "match", "tag"])
def test_each_row_has_the_answer_of_our_own_processes(
        task: str, engine: str, toy_artifact: Callable[[str], Path],
        environment: Callable[[str], Path], tmp_path: Path) -> None:
    good = {"classify": opinions(100), "match": pairs(100),
            "tag": [{"text": " ".join(words)} for words, _ in travels(100)]}[task]
    rows = [{**row, "id": i} for i, row in enumerate([*good, {"text": " ", "text_b": "x"}, {}])]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = command("serving", "batch", toy_artifact(task), "--data", f"jsonl:{file}", "--keep",
                   "id", "--out", tmp_path / "ours.jsonl")
    assert done.returncode == 0, done.stderr
    subprocess.run([environment(engine), HERE / f"batch_{engine}.py", toy_artifact(task), file,
                    tmp_path], check=True, timeout=600, env={**os.environ, "PYTHONPATH": str(ROOT)})
    for ours, theirs, kind in (("ours", "answers", "answer"), ("ours.errors", "errors", "error")):
        expected = {row["columns"]["id"]: row[kind] for row in lines(tmp_path / f"{ours}.jsonl")}
        found = lines(tmp_path / theirs)
        assert sorted(row["row"]["id"] for row in found) == sorted(expected)
        assert all(row["row"] == rows[row["row"]["id"]] for row in found)
        assert all(close(row[kind], expected[row["row"]["id"]]) for row in found)
