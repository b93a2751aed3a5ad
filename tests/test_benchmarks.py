"""The quality table on a folder of our own texts: measured once, resumed, written."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import quality
from tests.conftest import opinions, write_csv
from tf_pipeline import cli


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the results into a folder of the test's own."""
    monkeypatch.setattr(quality, "HERE", tmp_path)
    monkeypatch.setattr(quality, "RESULTS", tmp_path / "quality.json")
    monkeypatch.setattr(quality, "ROWS", (quality.Row(
        "places", "Places, test", "--task classify --train csv:{data}/train.csv --test "
        "csv:{data}/test.csv --backbone tiny --max-len 32 --epochs 1", {"accuracy": "accuracy"},
        ".5", repeats=("0", "1"), outside={"near": "csv:{data}/other.csv"}),))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["quality.py", *words])
    quality.main()


def test_a_row_is_measured_once_and_written(table: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    data = table / "data"
    data.mkdir()
    write_csv(data / "train.csv", opinions(300))
    write_csv(data / "test.csv", opinions(60, seed=1))
    write_csv(data / "other.csv", [{"text": f"{n} + {n}"} for n in range(30)])
    words = ("--data", str(data), "--work", str(table / "work"), "--repeats", "1", "--commit", "x")
    run(monkeypatch, *words)
    assert "places 0 ours" in capsys.readouterr().out
    (found,) = json.loads((table / "quality.json").read_text())
    assert found["command"].startswith("--task classify --train csv:DIR/train.csv")
    assert {"accuracy", "near_auroc", "calibration_error_after"} <= set(found["scores"])
    page = (table / "quality.md").read_text()
    assert f"| Places, test | accuracy | {found['scores']['accuracy']:.4f} | - | - | .5 |" in page
    assert str(data) not in page
    shutil.rmtree(data)  # what stands in quality.json is not measured again
    run(monkeypatch, *words)
    assert "places 0 ours" not in capsys.readouterr().out


@pytest.mark.parametrize("row", quality.ROWS, ids=lambda row: row.name)
def test_every_rows_flags_are_known(row: quality.Row, capsys: pytest.CaptureFixture[str]) -> None:
    words = row.train.format(data="nowhere", work="nowhere", models="nowhere", repeat="0").split()
    assert cli.main(["train", *words, "--out", "nowhere/run"]) == 2
    assert "nowhere" in capsys.readouterr().err  # no flag is refused, only the folder
    for name in row.metrics:
        assert name.replace("_", "").isalnum()


@pytest.mark.parametrize(("words", "message"), [
    (("--only", "typo"), "--only names 'typo'; allowed: sst2, "),
    (("--peer", "/nowhere/python"), "--peer /nowhere/python is no program"),
    (("--only", "phrasebank"), "--data lacks .*sentences_50agree.csv"),
])
def test_wrong_flags_are_named(words: tuple[str, ...], message: str, tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(quality, "RESULTS", tmp_path / "quality.json")
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--data", str(tmp_path), "--work", str(tmp_path), "--commit", "x", *words)
    assert re.search(message, f"{stopped.value} {capsys.readouterr().err}")
    assert not list(tmp_path.iterdir())
