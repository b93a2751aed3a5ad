"""Metadata for MediaPipe, and ids as its tokenizer makes them; tests/platforms runs it."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from export import mediapipe
from export.twin import Twin
from tf_pipeline import checkpoints
from tf_pipeline.artifact import Manifest
from tf_pipeline.run import Run

# Marks, capitals and signs beyond ASCII, and some that cannot be seen.
TEXTS = ["Café naïve RÉSUMÉ", "Ünïcödé ÇÉ", "the ÉLAN of déjà vu", "İstanbul Αθήνα Привет",
         "½ — “quote” …", "x\u200by\u00adz\ttab", "中国 カタカナ", "don't SHOUT", "🙂 ﬁne ẞ ǅ", "",
         "ΟΔΥΣΣΕΥΣ ΑΣ", "un\u00a0break\u3000able\u2028line", "v\x0bt\x85\ufeff \ufffd \x00 \ue000",
         "not in every Unicode: \u0378 \U0001fae9"]


def test_classifiers_carry_vocabulary_and_labels(artifact: Path) -> None:
    for name in ("model_L96.tflite", "model_L96_int8.tflite"):
        content = (artifact / name).read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.read("vocab.txt") == (artifact / "vocab.txt").read_bytes()
            assert archive.read("labels.txt").decode() == "bad\ngood\n"
        assert content.count(b"M001") == 1


def test_the_same_model_gives_the_same_bytes(artifact: Path) -> None:
    content = (artifact / "model_L96_int8.tflite").read_bytes()
    first, second = (mediapipe.describe(content, ["a"], ["b"]) for _ in range(2))
    assert first == second


def test_the_manifest_says_what_its_tokenizer_costs(artifact: Path) -> None:
    graphs = [g for g in Manifest.load(artifact).graphs if g.runtime == "tflite"]
    found = graphs[0].parity["mediapipe"]
    assert 0 < found["mismatches"] < found["texts"]  # `café`
    assert found["mismatches_folded"] == 0
    assert 0.5 < found["metric"] <= 1
    assert graphs[1].parity["mediapipe"] == found


@pytest.mark.parametrize("text", TEXTS)
def test_folded_texts_get_the_models_own_ids(text: str) -> None:
    encoder = checkpoints.load("minilm").encoder
    expected = encoder.encode([text], None, 64)
    assert mediapipe._encode(encoder, [mediapipe.fold(text)], 64).ids.tolist() == \
        expected.ids.tolist()


def test_accents_are_lost_on_its_tokenizer() -> None:
    encoder = checkpoints.load("minilm").encoder
    ids = mediapipe._encode(encoder, ["Plain TEXT", "Café"], 64)
    rows = [[encoder.piece(i) for i in ids.ids[a:b]]
            for a, b in zip(ids.splits, ids.splits[1:], strict=False)]
    assert rows == [["[CLS]", "plain", "text", "[SEP]"], ["[CLS]", "[UNK]", "[SEP]"]]


@pytest.mark.parametrize(("task", "reason"), [
    ("match", "takes one text, and this model takes two"),
    ("tag", "expects a score of each label for a whole text"),
    ("classify", None), ("multilabel", None)])
def test_what_it_cannot_open_is_said(task: str, reason: str | None,
                                     toy_run: Callable[[str], Path]) -> None:
    found = mediapipe.refusal(Twin(Run.load(toy_run(task))))
    assert (found or "").endswith(reason or "")
    assert (found is None) is (reason is None)


def test_cased_models_are_refused(toy_run: Callable[[str], Path]) -> None:
    twin = Twin(Run.load(toy_run("classify")))
    twin.encoder = twin.encoder.recase(cased=True)
    assert "folds the capitals" in (mediapipe.refusal(twin) or "")


def test_pairs_are_published_without_metadata(toy_artifact: Callable[[str], Path]) -> None:
    folder = toy_artifact("match")
    (path, *_) = sorted(folder.glob("*.tflite"))
    assert not zipfile.is_zipfile(path)
    assert "mediapipe" not in json.dumps(Manifest.load(folder).to_dict())
