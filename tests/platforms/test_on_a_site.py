"""The page of `python -m serving web` answers as Predictor does, in a real Chromium.

Its tokenizer and its decoding are held to Python's on texts and outputs made here.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export import ConvertOptions
from export.pipeline import build
from serving.options import WebOptions
from serving.static_site import RUNTIMES, TASKS, write
from tests.conftest import opinions, pairs, routes, travels, write_csv
from tests.platforms.sites import Page, hosted
from tests.tf_pipeline.test_sentencepiece import checkpoint  # noqa: F401
from tf_pipeline import Predictor, TrainConfig, fit, plugins, spans, tasks
from tf_pipeline.artifact import Manifest
from tf_pipeline.text import Encoded, TextEncoder
from tf_pipeline.words import Words

pytestmark = pytest.mark.platforms

ODD = ["", " ", "a", "Café, honestly — 😀", "e\u0301te\u0301 É ﬁ ß İstanbul",
       "我喜欢这个 房间 lovely",
       "👨‍👩‍👧 Quentin Quist went to Jena 😀😀 .", "ΟΔΥΣΣΕΥΣ 𠀀𠀁 x", "\u200bzero\u200bwidth\ufeff",
       "don't stop [MASK] [SEP] it's", "1,000.50 № 12 #tag http://x.y/z", "n" * 150 + " fine",
       "한국어 텍스트", "\tun\u00a0break\u3000able\u2028line", "Zoe left Xanten . " * 60,
       "lovely " * 200]
MARKS = {"match": pairs(24, seed=7), "tag": [{"text": " ".join(words)}
                                             for words, _ in travels(24, seed=7)]}


def questions(task: str) -> list[list[str]]:
    """Make some dozens of questions, odd ones among them."""
    rows = MARKS.get(task, opinions(24, seed=7))
    if task == "match":
        return [[row["text"], row["text_b"]] for row in rows] + [
            [one, other] for one, other in zip(ODD, ODD[::-1], strict=True)]
    return [[row["text"]] for row in rows] + [[text] for text in ODD]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Serve a folder of sites: each lies below the server's root."""
    folder = tmp_path_factory.mktemp("sites")
    with hosted(folder) as (_, url):
        yield folder, url


@pytest.fixture(scope="module")
def open_site(address: tuple[Path, str], browser: Any) -> Callable[[Path], Page]:
    folder, url = address

    def make(artifact: Path) -> Page:
        if not (folder / artifact.name).exists():
            write(artifact, WebOptions(out=folder / artifact.name))
        return Page(browser, f"{url}/{artifact.name}/")

    return make


def assert_equal(found: dict[str, Any], wanted: dict[str, Any], tolerance: float) -> None:
    """Compare answers: labels and spans equal, numbers within the tolerance."""
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        if key == "spans":
            places = [[{k: v for k, v in s.items() if k != "score"} for s in some["spans"]]
                      for some in (found, wanted)]
            assert places[0] == places[1]
            assert [s["score"] for s in found["spans"]] == pytest.approx(
                [s["score"] for s in value], abs=tolerance)
        elif key in ("label", "labels"):
            assert found[key] == value
        else:
            assert found[key] == pytest.approx(value, abs=tolerance), key


def numbers(answer: dict[str, Any]) -> list[float]:
    """Give an answer's scores, of labels in their order."""
    if "spans" in answer:
        return [span["score"] for span in answer["spans"]]
    return answer.get("embedding") or list(
        dict(sorted(answer.get("scores", answer).items())).values())


@pytest.mark.parametrize("task", TASKS)
def test_every_file_answers_as_predictor(task: str, toy_artifact: Callable[[str], Path],
                                         open_site: Callable[[Path], Page]) -> None:
    artifact = toy_artifact(task)
    page, asked = open_site(artifact), questions(task)
    graphs = [g for g in Manifest.load(artifact).graphs if g.runtime in RUNTIMES]
    assert {(g.runtime, g.variant) for g in graphs} == {
        (runtime, variant) for runtime in RUNTIMES for variant in ("float32", "int8")}
    for graph in graphs:
        predictor = Predictor(artifact, graph.runtime, graph.variant, graph.length)
        found, wanted = page.ask(asked, graph.path), predictor(asked)
        for texts, one, other in zip(asked, found, wanted, strict=True):
            try:
                assert_equal(one, other, 1e-4 if graph.variant == "float32" else 0.02)
            except AssertionError as error:
                raise AssertionError(f"{graph.path}, {texts}: {one}, not {other}") from error
        # int8 arithmetic is exact but for roundings that processors do otherwise: of few texts.
        flat = [np.array([x for answer in answers for x in numbers(answer)])
                for answers in (found, wanted)]
        assert np.median(np.abs(flat[0] - flat[1])) < 1e-5, graph.path
        if task == "tag":  # equal lists of spans may both be empty
            assert sum(len(one["spans"]) for one in found) > 100


def test_a_real_model_answers_as_predictor(open_site: Callable[[Path], Page],
                                           tmp_path: Path) -> None:
    data = f"csv:{write_csv(tmp_path / 'routes.csv', routes())}"
    run = fit(TrainConfig(task="embed", train=data, epochs=0, max_len=64, out=tmp_path / "run"))
    artifact = tmp_path / "minilm"
    build(run, ConvertOptions(out=artifact, formats=("onnx", "tflite"), lengths=(32, 64),
                              quantize="int8,float16"))
    page, asked = open_site(artifact), questions("embed")

    def vectors(answers: list[dict[str, Any]]) -> np.ndarray:
        return np.array([answer["embedding"] for answer in answers])

    exact = {length: vectors(Predictor(artifact, "tflite", "float32", length)(asked))
             for length in (32, 64)}
    for graph in Manifest.load(artifact).graphs:
        predictor = Predictor(artifact, graph.runtime, graph.variant, graph.length)
        found, wanted = vectors(page.ask(asked, graph.path)), vectors(predictor(asked))
        if graph.variant == "float32":
            np.testing.assert_allclose(found, wanted, atol=1e-4, err_msg=graph.path)
            continue
        cosines = (found * wanted).sum(1)
        assert cosines.min() > 0.995, graph.path
        assert cosines.mean() > 0.999, graph.path
        # As near to the exact vectors as Python's.
        reference = exact[graph.length or 64]
        near, other = [(some * reference).sum(1).mean() for some in (found, wanted)]
        assert near == pytest.approx(other, abs=5e-4), graph.path


# ---- the tokenizer

CHARACTERS = [*map(chr, range(0x20, 0x7f))] * 6 + [
    *map(chr, range(0xa0, 0x250)), *map(chr, range(0x370, 0x530)),
    *map(chr, range(0x4e00, 0x4e80)), *map(chr, range(0xac00, 0xac80)),
    *map(chr, range(0x20000, 0x20040)), *map(chr, range(0x2ceb0, 0x2cec0)),
    *"\t\n\r\u200b\u00a0\u3000\u2028\u0085\ufeff\u00ad\u0301\u0308\u0327" * 20,
    *"😀👨‍👩‍👧🇩🇪𝒳ﬁ½²™①ªİıſẞßΣσς｡。、「」－～_" * 4]
WORDS = ("Hello", "NASA", "a_Big", "McDonald", "[MASK]", "[SEP]", "isn't", "x" * 101, "É", "iPhone",
         "__init__", "<mask>", "⁕", "▁", "Σ")


def random_texts(count: int) -> list[str]:
    choose = random.Random(5)
    return ["".join(choose.choice(CHARACTERS) if choose.random() < 0.8
                    else f" {choose.choice(WORDS)}{choose.choice(' ,')}"
                    for _ in range(choose.choice((1, 3, 10, 40, 200)))) for _ in range(count)]


def in_python(encoder: TextEncoder, text: str, limit: int) -> list[Any]:
    """Give ids of the text, ids and types of a pair, and windows with their words."""
    one, two = encoder.encode([text], max_len=limit), encoder.encode([text], [text[::-1]], limit)
    many = encoder.encode_words([text], limit)
    assert many.words is not None
    words = []
    for first, (begin, end) in zip(many.words.first.tolist(), many.words.offsets.tolist(),
                                   strict=True):
        window = int((many.splits[1:] <= first).sum()) if first >= 0 else -1
        token = first - int(many.splits[window]) if first >= 0 else -1
        words.append({"window": window, "token": token, "begin": begin, "end": end})
    windows = [many.ids[a:b].tolist() for a, b in zip(many.splits, many.splits[1:], strict=False)]
    return [one.ids.tolist(), two.ids.tolist(), two.types.tolist(), windows, words]


ENCODE = """
const { Encoder } = await load("site/tokenizer.js");
const [json, texts, limits] = values, encoder = new Encoder(JSON.parse(json), {});
return texts.map((text, i) => {
  const one = encoder.encode([text], limits[i]);
  const two = encoder.encode([text, Array.from(text).reverse().join("")], limits[i]);
  const { windows, words } = encoder.encodeWords(text, limits[i]);
  return [one.ids, two.ids, two.types, windows.map(({ ids }) => ids), words];
});"""


@pytest.mark.parametrize("kind", ["uncased", "marked", "cased", "sentencepiece"])
def test_the_tokenizer_gives_python_s_ids_windows_and_words(
        kind: str, toy_artifact: Callable[[str], Path], request: pytest.FixtureRequest,
        open_site: Callable[[Path], Page]) -> None:
    folder = {"uncased": lambda: toy_artifact("classify"), "marked": lambda: toy_artifact("tag"),
              "cased": lambda: toy_artifact("classify"),
              "sentencepiece": lambda: request.getfixturevalue("checkpoint")}[kind]()
    encoder = TextEncoder.load(folder / "tokenizer.json")
    encoder = encoder.recase(True) if kind == "cased" else encoder
    assert (encoder.is_wordpiece, encoder.marks_case) == (kind != "sentencepiece", kind == "marked")
    texts, choose = random_texts(600), random.Random(6)
    limits = [choose.choice((8, 16, 32, 96)) for _ in texts]
    found = open_site(toy_artifact("classify")).run(ENCODE, encoder.to_json(), texts, limits)
    for text, limit, one in zip(texts, limits, found, strict=True):
        assert one == in_python(encoder, text, limit), (limit, text)


# ---- decoding

SCHEMES = (("O", "B-PER", "I-PER", "B-LOC", "I-LOC"), ("O", "I-PER", "I-LOC"),
           ("O", "B-X", "I-X", "E-X", "S-X"), ("B-A-B", "I-A-B", "O", "NUMBER"))


def tag_cases() -> Iterator[dict[str, Any]]:
    """Make texts with their words' logits, and the spans that Python decodes."""
    choose = np.random.default_rng(3)
    for number in range(80):
        labels = SCHEMES[number % len(SCHEMES)]
        task = plugins.load(tasks, "tag").Task(labels, None)
        words = [f"w{i}😀" for i in range(int(choose.integers(1, 30)))]
        text, ends = " ".join(words), np.cumsum([len(word) + 1 for word in words]) - 1
        offsets = np.stack([ends - [len(word) for word in words], ends], 1)
        logits = choose.normal(0, 2, (1, len(words), len(labels))).astype(np.float32)
        logits[0, choose.random(len(words)) < 0.1] = 0  # a word without a piece
        encoded = Encoded(np.zeros(0), np.zeros(0), np.zeros(1), words=Words(
            np.zeros(len(words)), offsets, np.array([0, len(words)]), np.zeros(1)))
        answer = task.decode({"logits": logits}, [{"text": text}], encoded)[0]
        yield {"labels": labels, "text": text, "answer": answer, "logits": [
            row.tolist() if row.any() else None for row in logits[0]],
            "words": [{"begin": int(a), "end": int(b)} for a, b in offsets]}


def text_cases() -> Iterator[dict[str, Any]]:
    """Make outputs of the other tasks, and Python's answers."""
    choose = np.random.default_rng(4)
    options = {"classify": {"abstain_below": 0.6}, "match": {"pairs": True},
               "multilabel": {"thresholds": (0.2, 0.5, 0.9)}, "embed": {},
               "regress": {"spread": 2.5, "mean": -1.0, "folded": False}}
    for task, given in options.items():
        module = plugins.load(tasks, task)
        model = module.Task(() if task in ("regress", "embed") else ("a", "b", "c"),
                            module.Options(**given))
        for _ in range(20):
            values = choose.normal(0, 3, (1, 1 if task == "regress" else 3)).astype(np.float32)
            name = "sentence_embedding" if task == "embed" else "logits"
            if task == "classify" and values[0, 0] > 0:  # as TFLite files give them
                name, values = "probabilities", (lambda e: e / e.sum())(np.exp(values))
            shaped = values[:, None] if task == "embed" else values
            answer = model.decode({name: shaped}, [{}], SimpleNamespace())[0]  # type: ignore[arg-type]
            yield {"task": task, "labels": model.labels, "options": given, "answer": answer,
                   "outputs": {name: values[0].tolist()}}


def test_decoding_gives_python_s_answers(open_site: Callable[[Path], Page],
                                         toy_artifact: Callable[[str], Path]) -> None:
    page, tagged, others = open_site(toy_artifact("classify")), [*tag_cases()], [*text_cases()]
    found = page.run("""const { decodeSpans } = await load("site/decoding.js");
        return values[0].map(({ labels, text, words, logits }) =>
            ({ spans: decodeSpans(labels, text, words, logits) }));""", tagged)
    for one, case in zip(found, tagged, strict=True):
        assert_equal(one, case["answer"], 1e-6)
    assert sum(len(case["answer"]["spans"]) for case in tagged) > 300
    found = page.run("""const { decode } = await load("site/decoding.js");
        return values[0].map((one) => decode(one, one.outputs));""", others)
    for one, case in zip(found, others, strict=True):
        assert_equal(one, case["answer"], 1e-6)
    labels = {case["answer"].get("label", "none") for case in others}
    assert {None, "a", "b", "c"} <= labels


def test_spans_of_any_scheme_are_read_as_in_python(open_site: Callable[[Path], Page],
                                                   toy_artifact: Callable[[str], Path]) -> None:
    choose = random.Random(8)
    tags = ["O", "odd", "-X", *(f"{p}-{k}" for p in "BIESMUL" for k in ("X", "Y", "X-Y"))]
    rows = [choose.choices(tags, k=choose.randrange(12)) for _ in range(500)]
    found = open_site(toy_artifact("classify")).run(
        """const { readSpans } = await load("site/decoding.js");
        return values[0].map((row) => readSpans(row).map((s) => [s.first, s.last, s.label]));""",
        rows)
    assert found == [[list(span) for span in spans.read(row)] for row in rows]
