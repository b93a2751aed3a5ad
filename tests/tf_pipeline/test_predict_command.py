"""`predict` takes its texts wherever they stand."""

import io
import json
import sys
from pathlib import Path

import pytest

from tf_pipeline import cli

TEXTS = ["the garden was lovely", "-5 degrees, a mess"]


@pytest.mark.parametrize("words", [
    ["--json", *TEXTS[:1], "--", TEXTS[1]],
    ["--json", "--", *TEXTS],
    [TEXTS[0], "--runtime", "onnx", "--json", "--", TEXTS[1]],
])
def test_texts_behind_options(words: list[str], artifact: Path,
                              capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", str(artifact), *words]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == TEXTS


def test_texts_from_stdin(artifact: Path, capsys: pytest.CaptureFixture[str],
                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(TEXTS) + "\n"))
    assert cli.main(["predict", str(artifact), "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("words", [["predict", "ARTIFACT", "--jsn", "a text"],
                                   ["evaluate", "ARTIFACT", "a text"]])
def test_unknown_words_are_named(words: list[str], artifact: Path,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(artifact) if word == "ARTIFACT" else word for word in words])
    assert ended.value.code == 2
    assert f"Unrecognized arguments: {' '.join(words[2:])}" in capsys.readouterr().err


def test_a_runtime_that_is_not_installed(artifact: Path, capsys: pytest.CaptureFixture[str],
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as Python marks what cannot be had
    assert cli.main(["predict", str(artifact), TEXTS[0]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: The module 'onnxruntime' is not installed. Run: ")
    assert error.rstrip().endswith("requirements.txt")
