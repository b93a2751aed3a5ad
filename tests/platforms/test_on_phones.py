"""The text files of samples/android and samples/ios give the ids and spans of Python.

Kotlin's compiler comes through npm and runs on Java. Swift's has no package for every system: where
`swiftc` is on the PATH, the same tests run on the files of samples/ios.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export import mediapipe
from tests.conftest import ROOT, opinions, travels
from tests.platforms.conftest import HERE
from tests.platforms.test_on_a_site import ODD, in_python, random_texts
from tf_pipeline import Predictor, checkpoints
from tf_pipeline.task import create
from tf_pipeline.text import TextEncoder

pytestmark = pytest.mark.platforms
JAVA = "openjdk-17-jre-headless"
LANGUAGES = ["kotlin", *(["swift"] if shutil.which("swiftc") else [])]
ACCENTED = dict(zip("aceinouy", "áçêïñöūÿ", strict=True)) | {"s": "s\u0323", "A": "Å", "E": "É"}

RARE_HAN = "".join(f"x{char}" for char in "\U0002b73f\U0002b740\U0002b81f\U0002b820\U0002b91f"
                   "\U0002b920\U0002ceaf\U0002ceb0")

Ask = Callable[..., list[str]]


def accented(text: str, choose: random.Random) -> str:
    """Put accents on some letters, and capitals on some words."""
    letters = "".join(ACCENTED.get(char, char) if choose.random() < 0.15 else char
                      for char in text)
    return " ".join(choose.choice((word, word, word, word.upper(), word.capitalize()))
                    for word in letters.split(" "))


def sentences(count: int) -> list[str]:
    """Make sentences with accents and capitals: opinions, and journeys with names in them."""
    choose = random.Random(9)
    rows = [row["text"] for row in opinions(count // 2, seed=9)]
    rows += [" ".join(words) for words, _ in travels(count - count // 2, seed=9)]
    return [accented(row, choose) for row in rows]


def java() -> str:
    """Find Java; a fresh Debian gets it where this user may install packages."""
    if shutil.which("java") is None and shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(f"apt-get update -qq && apt-get install -y -qq {JAVA}", shell=True,
                       check=False, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    found = shutil.which("java")
    if found is None:
        pytest.fail(f"Kotlin's tests need Java. On Debian run as root: apt-get install {JAVA}")
    return found


@pytest.fixture(scope="session", params=LANGUAGES)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
            ) -> tuple[str, list[Path | str]]:
    """Compile the text files with the program that asks them; give language and command."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "swift":
        sources = sorted((ROOT / "samples/ios/KitText/Sources").rglob("*.swift"))
        compile_, run = (["swiftc", "-O", "-warnings-as-errors", *sources,
                          HERE / "swift/main.swift", "-o", folder / "check"], [folder / "check"])
    else:
        home = request.getfixturevalue("npm_folder")("kotlin") / "node_modules/kotlin-compiler"
        sources = sorted((ROOT / "samples/android/app/src/main/kotlin/kit/text").glob("*.kt"))
        path = f"{folder / 'check.jar'}:{home / 'lib/kotlin-stdlib.jar'}"
        run = [java(), "-cp", path, "CheckKt"]
        compile_ = ["bash", home / "bin/kotlinc-jvm", "-Werror", *sources,
                    HERE / "kotlin/Check.kt", "-d", folder / "check.jar"]
    done = subprocess.run(compile_, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, run


@pytest.fixture
def ask(program: tuple[str, list[Path | str]], tmp_path: Path) -> Ask:
    """Give a function that asks one question of each text with an encoder's vocabulary."""
    def run(question: str, texts: list[str], encoder: TextEncoder, limit: int = 128,
            labels: tuple[str, ...] = (), logits: list[np.ndarray] | None = None) -> list[str]:
        for name, lines in (("vocab.txt", encoder.vocabulary), ("labels.txt", labels)):
            (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
        settings = (encoder.lower_case, encoder.strip_accents, encoder.marks_case)
        numbers = [",".join(map(repr, values.ravel().tolist())) for values in logits or ()]
        lines = [f"{question} {text.encode().hex()} {limit} {values}\n" for text, values in
                 zip(texts, numbers or [""] * len(texts), strict=True)]
        done = subprocess.run([*program[1], tmp_path / "vocab.txt", tmp_path / "labels.txt",
                               *(str(setting).lower() for setting in settings)],
                              input="".join(lines), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        answers = done.stdout.split("\n")[:-1]
        assert len(answers) == len(texts)
        return answers

    return run


@pytest.fixture(scope="module")
def minilm() -> TextEncoder:
    return checkpoints.load("minilm").encoder


def rows(encoder: TextEncoder, texts: list[str], limit: int) -> list[str]:
    """Give the ids of each text as the programs write them."""
    return [",".join(map(str, encoder.encode([text], None, limit).ids)) for text in texts]


def place_in(language: str, text: str, place: int) -> int:
    """Count as the language's file does: Kotlin's in units of UTF-16, Swift's as Python."""
    return len(text[:place].encode("utf-16-le")) // 2 if language == "kotlin" else place


@pytest.mark.parametrize("kind", ["folded", "cased", "marked"])
def test_ids_are_those_of_python(kind: str, minilm: TextEncoder, ask: Ask) -> None:
    """On a real vocabulary: in a tiny one most of these pieces are unknown."""
    encoder = {"folded": minilm, "cased": minilm.recase(cased=True),
               "marked": minilm.mark_case((1, 2))}[kind]
    assert (encoder.lower_case, encoder.marks_case) == (kind != "cased", kind == "marked")
    texts = [*sentences(200), *ODD, *random_texts(500), RARE_HAN]
    for limit in (128, 16):
        found = ask("encode", texts, encoder, limit)
        expected = rows(encoder, texts, limit)
        differing = [(text, one, other) for text, one, other in
                     zip(texts, found, expected, strict=True) if one != other]
        assert not differing, f"{len(differing)} of {len(texts)} texts: {differing[:3]}"


@pytest.mark.parametrize("limit", [12, 40])
def test_words_are_read_where_python_reads_them(
        limit: int, program: tuple[str, list[Path | str]], minilm: TextEncoder, ask: Ask) -> None:
    encoder = minilm.mark_case((1, 2))
    texts = [*sentences(100), *ODD, *random_texts(200), "unbelievablenesses " * 40]
    for text, line in zip(texts, ask("words", texts, encoder, limit), strict=True):
        words = in_python(encoder, text, limit)[-1]
        assert [[int(n) for n in word.split(",")] for word in line.split(" ") if word] == [
            [word["window"], word["token"], place_in(program[0], text, word["begin"]),
             place_in(program[0], text, word["end"])] for word in words], text


def test_folding_for_mediapipe(minilm: TextEncoder, ask: Ask) -> None:
    # MediaPipe reads special pieces in a text as text.
    texts = [*sentences(200), *(text for text in ODD if "[SEP]" not in text)]
    folded = [bytes.fromhex(found).decode() for found in ask("fold", texts, minilm)]
    expected = minilm.encode(texts, None, 128)
    found = mediapipe._encode(minilm, folded, 128)
    assert mediapipe._differing(found, expected) == 0
    assert mediapipe._differing(mediapipe._encode(minilm, texts, 128), expected) > 150


@pytest.mark.parametrize("task", ["classify", "multilabel"])
def test_labels_are_those_of_predictor(task: str, ask: Ask,
                                       toy_artifact: Callable[[str], Path]) -> None:
    predictor = Predictor(toy_artifact(task), "tflite", "float32")
    labels, options = predictor.task.labels, predictor.task.options
    if task == "classify":
        options = replace(options, abstain_below=0.99)
        predictor.task = create(task, labels, vars(options))
    texts = sentences(200)
    answers = predictor(texts)
    thresholds = getattr(options, "thresholds", ()) or (0.5,) * len(labels)
    limits = [*thresholds, getattr(options, "abstain_below", 0)]
    scores = [np.array([*(answer["scores"][label] for label in labels), *limits])
              for answer in answers]
    found = [line.split(" ") for line in ask("labels", texts, predictor.encoder, labels=labels,
                                             logits=scores)]
    if task == "classify":
        expected = [str(answer["label"] or "null") for answer in answers]
        assert [best for best, _ in found] == expected
    else:
        expected = [",".join(answer["labels"]) for answer in answers]
        assert [several for _, several in found] == expected
    assert len(set(expected)) > 2


def test_spans_are_those_of_predictor(program: tuple[str, list[Path | str]], ask: Ask,
                                      toy_artifact: Callable[[str], Path]) -> None:
    predictor = Predictor(toy_artifact("tag"), "tflite", "float32")
    assert predictor.graph is not None
    encoder, length = predictor.encoder, predictor.graph.length
    assert length is not None
    assert encoder.marks_case
    texts = [*sentences(200), *ODD, "Zoe left Xanten . " * 60]
    logits, windows = [], []
    for text in texts:
        encoded = encoder.encode_words([text], length)
        found = [predictor.run(encoded.padded([i], length))["logits"][0][:encoded.lengths[i]]
                 for i in range(len(encoded))]
        logits.append(np.concatenate(found))
        windows.append(" ".join(",".join(map(str, encoded.ids[a:b])) for a, b in
                                zip(encoded.splits, encoded.splits[1:], strict=False)))
    assert ask("windows", texts, encoder, length) == windows
    answers = ask("spans", texts, encoder, length, predictor.task.labels, logits)
    count = 0
    for text, line, wanted in zip(texts, answers, predictor(texts), strict=True):
        spans = [span.split(",") for span in line.split(" ") if span]
        assert [(label, bytes.fromhex(part).decode()) for label, _, _, part, _ in spans] == [
            (span["label"], span["text"]) for span in wanted["spans"]], text
        for (_, begin, end, _, score), span in zip(spans, wanted["spans"], strict=True):
            assert [int(begin), int(end)] == [
                place_in(program[0], text, span[end]) for end in ("start", "end")], text
            assert float(score) == pytest.approx(span["score"], abs=1e-5)
        count += len(spans)
    assert count > 200
