"""The page in a real Chromium, asking the real server process."""

import base64
import json
import subprocess
import time
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from tests.serving.test_serving_cli import served
from tf_pipeline.artifact import Manifest

GOOD, BAD = "the kitchen was lovely", "the night bus was awful"
# Counted in characters; the three before the first span are two code units each in JavaScript.
SPANS = {"answers": [{"spans": [{"label": "PER", "start": 4, "end": 7, "text": "Ada", "score": 1},
                                {"label": "LOC", "start": 11, "end": 14, "text": "<b>",
                                 "score": 0.5}]}], "file": "x", "latency_ms": 1.0}


@pytest.fixture(scope="module")
def address(artifact):
    with served(artifact, "--runtime", "onnx", "--variant", "float32") as (_, url, _):
        yield url


@pytest.fixture
def page(browser, address):
    """Open the page freshly and answer once, so that both sides are warm."""
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get("about:blank")
    for kind in ("performance", "browser"):
        browser.get_log(kind)
    browser.get(f"{address}/")
    Page(browser).write(GOOD).wait(lambda page: page.sentences() == [GOOD])
    yield Page(browser)
    severe = [entry["message"] for entry in browser.get_log("browser")
              if entry["level"] == "SEVERE" and "status of 400" not in entry["message"]]
    assert not severe  # also what the Content-Security-Policy has refused


class Page:
    def __init__(self, driver):
        self.driver = driver

    def js(self, code, *values):
        return self.driver.execute_script(code, *values)

    def get(self, element_id):
        return self.driver.find_element("id", element_id)

    def write(self, text):
        self.get("texts").clear()
        self.get("texts").send_keys(text)
        return self

    def press(self, *keys):
        self.driver.switch_to.active_element.send_keys(*keys)

    def focused(self):
        return self.js("return document.activeElement.id")

    def texts(self, selector):
        return self.js("return [...document.querySelectorAll(arguments[0])]"
                       ".filter(e => e.checkVisibility()).map(e => e.textContent)", selector)

    def sentences(self):
        return self.texts(".answer .sentence")

    def given(self, labels, answer):
        """Load the page anew, with these labels and this answer to everything."""
        listed = self.js("return fetch('v1/models/classify/files').then(answer => answer.json())")
        bodies = [{**listed, "labels": labels},
                  {"answers": [answer], "file": "x", "latency_ms": 1.0}]
        added = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": f"""
            const real = window.fetch, [files, answer] = {json.dumps(bodies)};
            window.fetch = async (url, options) => String(url).endsWith("healthz")
                ? real(url, options)
                : new Response(JSON.stringify(String(url).endsWith("files") ? files : answer));"""})
        self.driver.refresh()
        self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
        return self

    def wait(self, holds, timeout_s=20):
        start = time.perf_counter()
        while not holds(self):
            shown = self.js("return document.body.innerText")
            assert time.perf_counter() - start < timeout_s, shown
            time.sleep(0.01)
        return time.perf_counter() - start


def test_answer_is_seen_within_a_second_of_typing(page, artifact):
    start = time.perf_counter()
    page.write(f"{GOOD}\n\n  \n{BAD}")
    page.wait(lambda page: page.sentences() == [GOOD, BAD])
    seconds = time.perf_counter() - start
    assert seconds < 1, f"{seconds:.2f} s, typing included"
    assert page.texts(".best .label") == ["good", "bad"]
    labels = Manifest.load(artifact).labels
    assert page.texts(".score .label") == [*labels, *labels]
    scores = [float(text.strip("<>\xa0%")) for text in page.texts(".score .percent")]
    assert sum(scores[:2]) == pytest.approx(100, abs=0.2)
    widths = page.js("return [...document.querySelectorAll('.fill')]"
                     ".map(e => parseFloat(e.style.width))")
    assert widths == pytest.approx(scores, abs=0.11)
    assert "in the model" in page.get("latency").text


def test_typing_shows_the_answer_of_the_last_text(page):
    page.write("a")
    for letter in " kitchen that was lovely":
        page.press(letter)
        time.sleep(0.03)
    page.wait(lambda page: page.sentences() == ["a kitchen that was lovely"])
    time.sleep(0.4)
    assert page.sentences() == ["a kitchen that was lovely"]


def test_every_request_goes_to_the_server(page, address):
    page.get("clear").click()
    page.get("example").click()
    page.wait(lambda page: len(page.sentences()) == 3)
    events = [json.loads(entry["message"])["message"]
              for entry in page.driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events
             if event["method"] == "Network.requestWillBeSent"]
    assert {"/", "/web/page.js", "/web/page.css", "/healthz"} <= {urlsplit(u).path for u in asked}
    assert {urlsplit(u)[:2] for u in asked} == {("http", urlsplit(address).netloc)}
    # The policy holds also against a script that would try.
    refused = page.js("return fetch('http://127.0.0.1:9/').then(() => 'sent', e => e.message)")
    assert refused == "Failed to fetch"
    assert any("Content Security Policy" in entry["message"]
               for entry in page.driver.get_log("browser"))


def test_another_file_answers(page, artifact):
    select = Select(page.get("file"))
    paths = [g.path for g in Manifest.load(artifact).graphs]
    assert [option.text for option in select.options] == paths
    for path in (p for p in paths if "saved_model" not in p):
        select.select_by_visible_text(path)
        page.wait(lambda page, path=path: page.get("latency").get_attribute("data-file") == path)
        assert page.texts(".best .label") == ["good"]
        assert "decides as the trained model" in page.get("file-about").text
        assert (f'"file":"{path}"' in page.get("curl").text) == (path != "onnx/model.onnx")


def test_keyboard_alone(page):
    assert page.focused() == "texts"
    stops = []
    for _ in range(5):
        page.press(Keys.TAB)
        stops.append(page.focused())
        style = page.js("const s = getComputedStyle(document.activeElement);"
                        "return [s.outlineStyle, parseFloat(s.outlineWidth)]")
        assert style == ["solid", 3], stops
    assert stops == ["file", "", "clear", "copy", "curl"]  # "" is the Ask button
    page.get("texts").send_keys("")
    page.press(" indeed", Keys.CONTROL + Keys.ENTER)
    page.wait(lambda page: page.sentences() == [f"{GOOD} indeed"])
    page.press(Keys.TAB)
    before = page.get("file").get_attribute("value")
    page.press(Keys.ARROW_DOWN if not page.get("file").get_property("selectedIndex")
               else Keys.ARROW_UP)
    after = page.get("file").get_attribute("value")
    assert after != before
    page.wait(lambda page: page.get("latency").get_attribute("data-file") == after, 60)
    page.press(Keys.TAB, Keys.TAB)
    page.press(Keys.ENTER)
    assert (page.focused(), page.get("texts").get_property("value")) == ("texts", "")


def test_screen_reader_gets_names_answers_and_errors(page):
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {(node["role"]["value"], node.get("name", {}).get("value")) for node in tree
             if not node["ignored"]}
    assert {("textbox", "Sentences, one a line"), ("combobox", "File that answers"),
            ("button", "Ask"), ("button", "Clear"), ("button", "Copy the curl line"),
            ("list", "Answers"), ("region", "curl line"), ("heading", "classify")} <= named
    page.wait(lambda page: "1 answer: good" in page.get("spoken").get_property("textContent"))
    page.js("const e = arguments[0]; e.value = arguments[1]; e.dispatchEvent(new Event('input'))",
            page.get("texts"), "x\n" * 300)
    page.wait(lambda page: "holds 300 texts; allowed are 256" in page.get("error").text)
    assert page.get("error").get_attribute("role") == "alert"
    assert page.sentences() == []
    page.write(GOOD)
    page.wait(lambda page: page.sentences() == [GOOD])
    assert page.texts("#error") == []


def test_text_is_never_markup(page):
    evil = "<img src=x onerror=\"document.title='broken'\"> it's \\ $HOME `x`"
    page.write(evil)
    page.wait(lambda page: page.sentences() == [evil])
    assert page.js("return document.querySelectorAll('#answers img').length") == 0
    assert "broken" not in page.driver.title
    page.write("שלום " * 3 + "\n" + "x" * 500)
    page.wait(lambda page: len(page.sentences()) == 2)
    first = "document.querySelector('.sentence')"
    assert page.js(f"return getComputedStyle({first}).direction") == "rtl"


def test_curl_line_does_what_the_page_does(page):
    text = "it's \"fine\" \\ $HOME `x` 100 %"
    page.write(text)
    page.wait(lambda page: page.sentences() == [text])
    script = page.get("curl").text.replace("curl ", "printf '%s\\n' ", 1)
    words = subprocess.run(["sh", "-c", script], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    assert words[0].endswith("/v1/models/classify:answer")
    assert json.loads(words[2]) == {"texts": [text]}
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(words[0]))
    page.driver.execute_cdp_cmd("Browser.grantPermissions", {
        "origin": origin, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    page.get("copy").click()
    page.wait(lambda page: page.get("copy").text == "Copied")
    assert page.js("return navigator.clipboard.readText()") == page.get("curl").text
    page.wait(lambda page: page.get("copy").text == "Copy the curl line")


def test_spans_are_marked_at_characters_not_at_code_units(page):
    page.js("window.fetch = async () => new Response(arguments[0])".replace(
        "arguments[0]", json.dumps(json.dumps(SPANS))))
    page.write("")
    page.js("const e = arguments[0]; e.value = arguments[1]; e.dispatchEvent(new Event('input'))",
            page.get("texts"), "😀😀😀 Ada at <b>")
    page.wait(lambda page: page.texts("mark .tag") == ["PER 100.0\xa0%", "LOC 50.0\xa0%"])
    assert page.texts("mark") == ["AdaPER 100.0\xa0%", "<b>LOC 50.0\xa0%"]


def test_masks_show_the_piece_that_belongs_there(page):
    mask = {"token": "room", "score": 0.4, "start": 4, "end": 10, "scores": {"room": 0.4}}
    page.given([], {"masks": [mask]}).write("the [MASK] was lovely")
    page.wait(lambda page: page.texts("mark .tag") == ["room 40.0\xa0%"])
    assert page.texts("mark") == ["[MASK]room 40.0\xa0%"]


def test_of_many_labels_the_best_are_shown(page):
    scores = {f"label {i}": (i + 1) / 36 for i in range(8)}
    page.given(list(scores), {"label": "label 7", "score": 0.2, "scores": scores})
    page.write("a text").wait(lambda page: page.sentences() == ["a text"])
    assert page.texts(".score .label") == [f"label {i}" for i in range(7, 1, -1)]
    assert page.texts(".more") == ["and 2 labels below these"]


@pytest.mark.parametrize(("answer", "shown", "best"), [
    ({"labels": ["joy", "fear"], "scores": {"joy": 0.9, "fear": 0.6, "calm": 0.2}},
     "1 answer: joy and fear", ["joy", "fear"]),
    ({"labels": [], "scores": {"joy": 0.1, "fear": 0.2, "calm": 0.2}}, "1 answer: no label", []),
    ({"label": None, "score": 0.4, "scores": {"joy": 0.4, "fear": 0.3, "calm": 0.3}},
     "1 answer: too unsure 40.0 %", []),
    ({"score": 3.25}, "1 answer: 3.25", []),
    ({"embedding": [0.25] * 32}, "1 answer: 32 numbers: 0.250, 0.250, 0.250, 0.250, …", []),
])
def test_several_labels_numbers_and_no_answer(page, answer, shown, best):
    page.given(["joy", "fear", "calm"], answer).write("a text")
    page.wait(lambda page: page.get("spoken").get_attribute("textContent").replace(
        "\u00a0", " ") == shown)
    assert page.texts(".best .label") == best
    if "scores" not in answer:
        assert page.texts(".number") == [shown.partition(": ")[2]]


def test_server_that_is_gone_is_said_in_words(browser, artifact):
    with served(artifact, "--runtime", "tflite") as (process, url, _):
        browser.get(f"{url}/")
        page = Page(browser).write(GOOD)
        page.wait(lambda page: page.sentences() == [GOOD])
        process.kill()
        process.wait()
        page.write(BAD)
        page.wait(lambda page: "server cannot be reached" in page.get("error").text)
        assert page.sentences() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_have_contrast(page, scheme, tmp_path):
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": scheme}]})
    page.write(f"{GOOD}\n{BAD}")
    page.wait(lambda page: len(page.sentences()) == 2)
    ground = luminance(page.js("return getComputedStyle(document.body).backgroundColor"))
    assert (ground > 0.8) == (scheme == "light")
    for selector in ("h1", ".quiet", ".sentence", ".score", ".best", "button.first", "kbd", "pre",
                     "select", "textarea"):
        colours = page.js("""
            let e = document.querySelector(arguments[0]), found = [getComputedStyle(e).color];
            while (getComputedStyle(e).backgroundColor === "rgba(0, 0, 0, 0)") e = e.parentElement;
            return [...found, getComputedStyle(e).backgroundColor]""", selector)
        low, high = sorted(map(luminance, colours))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (selector, colours)
    picture = page.driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"]
    (tmp_path / f"{scheme}.png").write_bytes(base64.b64decode(picture))


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it, of "rgb(1, 2, 3)"."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1:-1].split(",")[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("width", [320, 390])
def test_narrow_screen_needs_no_sideways_scrolling(page, width):
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": 700, "deviceScaleFactor": 2, "mobile": True})
    page.write(GOOD + " " + "w" * 300)
    page.wait(lambda page: len(page.sentences()) == 1)
    assert page.js("return document.documentElement.scrollWidth") <= width


def test_pairs_are_asked_about_when_both_texts_are_there(browser, toy_artifact):
    with served(toy_artifact("match"), "--runtime", "onnx", "--variant", "float32") as (_, url, _):
        browser.get(f"{url}/")
        page = Page(browser)
        page.write("our room ? 7 ||| lovely !\nour room . 7 |||")
        page.wait(lambda page: page.sentences() == ["our room ? 7 ||| lovely !"])
        assert page.get("error").text == ""
        assert "Two texts a line, with ||| between." in page.get("hint").text
        best = page.js("return document.querySelector('.score.best').innerText")
        assert best.startswith("fits")
