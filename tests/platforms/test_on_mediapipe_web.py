"""MediaPipe's TextClassifier for the web, in Chromium, answers as Keras does and sends nothing."""

import json
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from export import mediapipe
from export.twin import Twin
from tests.conftest import ROOT, opinions
from tests.platforms.conftest import HERE
from tests.platforms.sites import Page, hosted
from tf_pipeline import Predictor, sources
from tf_pipeline.run import Run

pytestmark = pytest.mark.platforms
METRICS = "https://odml.pa.googleapis.com/v1/log"
LABELS = ("bad", "good")
ODD = ["Café naïve RÉSUMÉ", "THE ÉLAN of déjà vu", "x\u200by\u00adz\ttab", "½ — “quote” …",
       "🙂 ok", "un\u00a0break\u3000able\u2028line", "v\x0bt\x85\ufeff \ufffd", "ΟΔΥΣΣΕΥΣ ΑΣ",
       "İstanbul 我喜欢 lovely", "not everywhere \u0378 \U0001fae9", "", "a" * 300, "word " * 300]
_ASK = """const { classify, fold } = await load("classify.js");
    return classify(values[0], values[1].map(values[2] ? fold : (text) => text));"""


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Give 100 tweets, and texts that an ASCII tokenizer would spoil."""
    tweets = [record["text"] for record in sources.read("vader:tweets")]
    return [*tweets[::len(tweets) // 100][:100],
            *(row["text"] for row in opinions(40, seed=3)), *ODD]


@pytest.fixture(scope="module")
def site(npm_folder: Callable[[str], Path], artifact: Path,
         tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Serve page, MediaPipe and artifact from one folder."""
    source, folder = npm_folder("mediapipe_web"), tmp_path_factory.mktemp("mediapipe")
    for name in ("index.html", "classify.js", "node_modules"):
        (folder / name).symlink_to(source / name)
    (folder / "artifact").symlink_to(artifact)
    with hosted(folder) as (_, url):
        yield folder, url


def ask(page: Page, file: str, texts: list[str], fold: bool = True) -> np.ndarray:
    """Give MediaPipe's scores (texts, labels)."""
    rows = page.run(_ASK, f"artifact/{file}", texts, fold)
    return np.array([[row[label] for label in LABELS] for row in rows])


def test_float32_gives_the_answers_of_keras(browser: Any, site: tuple[Path, str],
                                            run_folder: Path, texts: list[str]) -> None:
    twin = Twin(Run.load(run_folder))
    assert tuple(twin.task.labels) == LABELS
    expected = twin.outputs([{"text": text} for text in texts], 96)["probabilities"]
    page = Page(browser, f"{site[1]}/")
    found = ask(page, "model_L96.tflite", texts)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert min(np.bincount(found.argmax(1))) > 20  # both labels are there
    # Folding is what makes them equal.
    plain = ask(page, "model_L96.tflite", texts, fold=False)
    assert np.abs(plain - expected).max() > 0.01


def test_int8_gives_the_answers_of_predictor(browser: Any, site: tuple[Path, str],
                                             artifact: Path, texts: list[str]) -> None:
    answers = Predictor(artifact, "tflite", "int8", 96)(texts)
    expected = np.array([[answer["scores"][label] for label in LABELS] for answer in answers])
    found = ask(Page(browser, f"{site[1]}/"), "model_L96_int8.tflite", texts)
    # int8 arithmetic is exact but for roundings that WebAssembly does otherwise: of few texts.
    assert np.abs(found - expected).max() < 0.02
    assert np.median(np.abs(found - expected)) < 1e-5
    clear = np.abs(expected[:, 0] - 0.5) > 0.02
    assert clear.sum() > 120
    assert (found.argmax(1) == expected.argmax(1))[clear].all()


def test_the_page_folds_as_python_does(browser: Any, site: tuple[Path, str]) -> None:
    # What has a meaning in Python's Unicode; Chromium's is newer.
    characters = [char for char in map(chr, range(0x30000))
                  if unicodedata.category(char) not in ("Cs", "Cn")]
    given = [*ODD, *(f"x{char}y" for char in characters)]
    page = Page(browser, f"{site[1]}/")
    found = page.run("const { fold } = await load('classify.js'); return values[0].map(fold);",
                     given)
    differing = {text for text, one in zip(given, found, strict=True)
                 if one != mediapipe.fold(text)}
    assert differing <= {"x\U0001171ey"}  # a sign of Ahom: Unicode 15 made an accent of it


def test_the_page_of_the_documentation_folds_so_too() -> None:
    script = (HERE / "mediapipe_web/classify.js").read_text("utf-8")
    fold = script.partition("export const fold")[2].partition(";\n\n")[0]
    assert "normalize" in fold
    assert f"const fold{fold};" in (ROOT / "docs/browser.md").read_text("utf-8")


def sent(page: Page) -> list[tuple[str, str]]:
    """List what was asked of other hosts since the last call, and what became of it."""
    own, urls, ends = urlsplit(page.url).netloc, {}, {}
    for entry in page.driver.get_log("performance"):
        event = json.loads(entry["message"])["message"]
        method, about = event["method"], event["params"]
        if method == "Network.requestWillBeSent":
            urls[about["requestId"]] = about["request"]["url"]
        elif method == "Network.responseReceived":
            ends[about["requestId"]] = "answered"
        elif method == "Network.loadingFailed":
            ends[about["requestId"]] = about["errorText"]
    assert any(url.endswith(".tflite") for url in urls.values())
    return [(url, ends.get(number, "under way")) for number, url in urls.items()
            if urlsplit(url).netloc not in ("", own)]


def test_the_policy_keeps_every_request_on_the_page(browser: Any,
                                                    site: tuple[Path, str]) -> None:
    folder, url = site
    policy = (folder / "index.html").read_text("utf-8")
    without = policy.replace("Content-Security-Policy", "nothing")
    assert without != policy
    (folder / "open.html").write_text(without, "utf-8")
    left, refused = {}, {}
    for name in ("index.html", "open.html"):
        browser.get("about:blank")
        for kind in ("performance", "browser"):
            browser.get_log(kind)
        page = Page(browser, f"{url}/{name}")
        ask(page, "model_L96.tflite", ["the kitchen was lovely"] * 3)
        left[name] = sent(page)
        refused[name] = [entry["message"] for entry in browser.get_log("browser")
                         if "Content Security Policy" in entry["message"]]
    # Chromium reports what the policy refuses on the console, and asks the network for nothing.
    assert left["index.html"] == []
    assert any(METRICS in message for message in refused["index.html"])
    # It does try: without a policy, only this browser's lack of names stops it.
    assert set(left["open.html"]) == {(METRICS, "net::ERR_NAME_NOT_RESOLVED")}
