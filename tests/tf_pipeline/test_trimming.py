"""A trimmed run answers as before where its pieces were kept, and exports as any other."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export import ConvertOptions, pipeline
from tf_pipeline import Predictor, checkpoints, cli, trimming
from tf_pipeline.config import TrimConfig
from tf_pipeline.errors import UserError
from tf_pipeline.run import Run
from tf_pipeline.text import SPECIAL_TOKENS

SENTENCES = ("the garden was lovely", "the kitchen was a mess", "a lovely mess")


@pytest.fixture
def texts(tmp_path: Path) -> str:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(SENTENCES), "utf-8")
    return f"lines:{path}"


@pytest.mark.parametrize("task", ["classify", "tag", "match", "embed"])
def test_texts_of_kept_pieces_are_answered_as_before(task: str, toy_run: Callable[[str], Path],
                                                     texts: str, tmp_path: Path) -> None:
    old = Run.load(toy_run(task))
    new = trimming.trim(old.path, TrimConfig(texts, out=tmp_path / "small"))
    assert len(new.encoder.vocabulary) == new.config.vocab_size < old.config.vocab_size
    assert new.info["trimmed"]["pieces"] == new.config.vocab_size
    questions = [[text, SENTENCES[0]] for text in SENTENCES] if task == "match" else SENTENCES
    before, after = Predictor(old.path), Predictor(new.path)
    records = [{"text": q} if isinstance(q, str) else dict(zip(("text", "text_b"), q, strict=True))
               for q in questions]
    for side in (before, after):
        assert set(SPECIAL_TOKENS) <= set(side.encoder.special_ids)
    outputs = [side.outputs(side.encode(records)) for side in (before, after)]
    for name, values in outputs[0].items():
        np.testing.assert_allclose(outputs[1][name], values, atol=1e-5)
    assert after.encode(records).ids.max() < new.config.vocab_size


@pytest.mark.slow
def test_the_loss_is_measured_on_the_rows_that_the_run_keeps(run_folder: Path, texts: str,
                                                             tmp_path: Path) -> None:
    old = Run.load(run_folder)
    new = trimming.trim(old.path, TrimConfig(texts, out=tmp_path / "small"))
    report, rows = new.info["trimmed"], old.evaluation("test")
    assert report["rows"] == len(rows)
    kept = set(new.encoder.vocabulary)
    assert report["otherwise"] == sum(
        bool(set(encoding.tokens) - kept)
        for encoding in old.encoder.whole([row["text"] for row in rows])) > 0
    before, after = report["accuracy"]
    assert before == old.metrics["kept"]["accuracy"]
    assert after == Predictor(new.path).evaluate(rows)["accuracy"] < before


def test_letters_stay_and_then_the_most_frequent_pieces() -> None:
    words = {word for text in SENTENCES for word in text.split()}
    letters = sorted(set("".join(words)))
    pieces = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters),
              *sorted(words - set(letters)), "sun", "x", "##x"]
    encoder = checkpoints.wordpiece(pieces, True, None, 0)
    everything = trimming.choose(encoder, SENTENCES, None)
    assert [encoder.piece(n) for n in everything] == [
        piece for piece in pieces if piece not in ("sun", "x", "##x")]
    fewer = trimming.choose(encoder, SENTENCES, len(everything) - 2)
    assert {encoder.piece(n) for n in set(everything) - set(fewer)} == {"garden", "kitchen"}
    small = encoder.trim(fewer)
    assert [e.tokens for e in small.whole(["the garden was lovely"])] == [
        ["the", "g", "##a", "##r", "##d", "##e", "##n", "was", "lovely"]]


def test_a_trimmed_run_exports(run_folder: Path, texts: str, tmp_path: Path) -> None:
    new = trimming.trim(run_folder, TrimConfig(texts, out=tmp_path / "small"))
    manifest = pipeline.build(new, ConvertOptions(out=tmp_path / "a", formats=("onnx",)))
    assert all(graph.parity["ok"] for graph in manifest.graphs)
    lines = (tmp_path / "a/vocab.txt").read_text("utf-8").splitlines()
    assert len(lines) == new.config.vocab_size


def test_the_command_says_what_was_lost(run_folder: Path, texts: str, tmp_path: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "small"
    words = ["trim", str(run_folder), "--texts", texts, "--out", str(out)]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "of 109 pieces" in said
    assert re.search(r"accuracy [01]\.\d{4} -> 0\.\d{4}", said)
    assert f"Wrote {out}" in said
    assert cli.main(words) == 2
    assert "already holds a finished run" in capsys.readouterr().err


def test_what_cannot_be_trimmed_is_said(toy_run: Callable[[str], Path], texts: str,
                                        tmp_path: Path) -> None:
    out = tmp_path / "small"
    with pytest.raises(UserError, match="run of task 'mlm'"):
        trimming.trim(toy_run("mlm"), TrimConfig(texts, out=out))
    with pytest.raises(UserError, match=r"--pieces is 9; .* are \d+. Give at least"):
        trimming.trim(toy_run("classify"), TrimConfig(texts, 9, out))
    with pytest.raises(UserError, match="--out is missing"):
        trimming.trim(toy_run("classify"), TrimConfig(texts))
    assert not out.exists()
