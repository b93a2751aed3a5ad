"""The page of `python -m serving web` by itself: what it shows, sends and keeps; in Chromium."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from serving import libraries
from serving.options import WebOptions
from serving.static_site import write
from tests.conftest import command
from tests.platforms.sites import Page, content_type, hosted
from tf_pipeline import Predictor
from tf_pipeline.artifact import Manifest

pytestmark = pytest.mark.platforms
GOOD, BAD = "the kitchen was lovely", "the night bus was awful"
ANSWERED = "document.querySelectorAll('.answer').length === {} && " \
    "document.getElementById('latency').textContent.includes('in all')"


@pytest.fixture(scope="module")
def address(toy_artifact: Callable[[str], Path],
            tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve sites below the server's root."""
    folder = tmp_path_factory.mktemp("sites")
    for task in ("classify", "tag", "match", "embed"):
        write(toy_artifact(task), WebOptions(out=folder / "sub" / task))
    with hosted(folder) as (_, url):
        yield f"{url}/sub"


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get("about:blank")
    for kind in ("performance", "browser"):
        browser.get_log(kind)
    yield Page(browser, f"{address}/classify/").ready()
    refused = [entry["message"] for entry in browser.get_log("browser")
               if "Content Security Policy" in entry["message"]]
    assert not refused


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """Listen at another address, and list what arrives."""
    arrived: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            arrived.append(self.path)
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", arrived
    server.shutdown()
    server.server_close()


def test_scores_are_shown_as_the_server_s_page_shows_them(
        page: Page, toy_artifact: Callable[[str], Path]) -> None:
    page.write(f"{GOOD}\n\n  \n{BAD}").wait(ANSWERED.format(2))
    assert page.texts(".answer .sentence") == [GOOD, BAD]
    assert page.texts(".best .label") == ["good", "bad"]
    wanted = Predictor(toy_artifact("classify"), "onnx", "int8")([GOOD])[0]["scores"]
    shown = dict(zip(page.texts(".label")[:2], page.texts(".percent")[:2], strict=True))
    for label, text in shown.items():
        assert float(text.strip("<>\xa0%")) == pytest.approx(100 * wanted[label], abs=0.11)
    assert page.text("name") == "classify"
    assert "2 texts" in page.text("latency")
    assert "ms in the model" in page.text("latency")


def test_every_file_can_be_chosen(page: Page, toy_artifact: Callable[[str], Path]) -> None:
    page.write(GOOD).wait(ANSWERED.format(1))
    paths = [g.path for g in Manifest.load(toy_artifact("classify")).graphs
             if g.runtime in ("onnx", "tflite")]
    assert page.texts("#file option") == paths
    for path in paths:
        page.choose(path).wait(f"document.getElementById('latency').dataset.file === '{path}'")
        assert page.texts(".best .label") == ["good"]
        assert "decides as the trained model" in page.text("file-about")


@pytest.mark.parametrize("file", ["onnx/model.onnx", "model_L64_int8.tflite"])
def test_spans_are_marked(file: str, browser: Any, address: str,
                          toy_artifact: Callable[[str], Path]) -> None:
    text = "😀😀 Then Quentin Quist went to Jena . 😀 Zoe left Xanten !"
    graph = next(g for g in Manifest.load(toy_artifact("tag")).graphs if g.path == file)
    spans = Predictor(toy_artifact("tag"), graph.runtime, graph.variant)([text])[0]["spans"]
    assert len(spans) >= 4
    page = Page(browser, f"{address}/tag/").choose(file).write(text)
    page.wait(f"document.getElementById('latency').dataset.file === '{file}'")
    shown = page.js("return [...document.querySelectorAll('mark')].map(e => "
                    "[e.firstChild.textContent, e.lastChild.textContent.split(' ')[0]])")
    assert shown == [[span["text"], span["label"]] for span in spans]


def test_pairs_and_vectors(browser: Any, address: str) -> None:
    page = Page(browser, f"{address}/match/")
    page.write("our room ? 7 ||| lovely !\nour room . 7 |||").wait(ANSWERED.format(1))
    assert page.texts(".best .label") == ["fits"]
    page = Page(browser, f"{address}/embed/")
    texts = ["Where is the red bridge?", "Where is the quiet lake?",
             "A bus leaves for the red bridge."]
    page.write("\n".join(texts)).wait(ANSWERED.format(3))
    best = page.js("return [...document.querySelectorAll('.best .label')].map(e => e.textContent)")
    assert (best[0], best[2]) == (texts[2], texts[0])


def test_nothing_is_sent_anywhere(page: Page, address: str, elsewhere: tuple[str, list]) -> None:
    paths = page.texts("#file option")
    page.write(f"{GOOD}\n{BAD}")
    for path in paths:
        page.choose(path).wait(f"document.getElementById('latency').dataset.file === '{path}'")
    events = [json.loads(entry["message"])["message"]
              for entry in page.driver.get_log("performance")]
    asked = [event["params"]["request"] for event in events
             if event["method"] == "Network.requestWillBeSent"]
    assert any(request["url"].endswith("/site.json") for request in asked)
    assert {urlsplit(request["url"]).netloc for request in asked
            if not request["url"].startswith(("blob:", "data:"))} == {urlsplit(address).netloc}
    assert {request["method"] for request in asked} == {"GET"}
    assert not any("kitchen" in request["url"] for request in asked)
    # The policy holds also against a script that would try.
    url, arrived = elsewhere
    send = f"fetch('{url}', {{ method: 'POST', mode: 'no-cors', body: 'text' }})"
    assert page.run(f"return {send}.then(() => 'sent', (e) => e.message)") == "Failed to fetch"
    assert page.run(f"""const image = new Image(); image.src = "{url}";
        return image.decode().then(() => "shown", () => "refused");""") == "refused"
    assert arrived == []
    messages = [entry["message"] for entry in page.driver.get_log("browser")]
    assert sum("Content Security Policy" in message for message in messages) >= 2


def test_a_library_cannot_send_texts_from_the_worker(
        browser: Any, toy_artifact: Callable[[str], Path], elsewhere: tuple[str, list],
        tmp_path: Path) -> None:
    url, arrived = elsewhere
    site = write(toy_artifact("classify"), WebOptions(out=tmp_path / "site"))
    for name in ("libraries/tokenizers.js", "libraries/onnx/ort.js", "libraries/onnx/ort-wasm.js"):
        with (site / name).open("a") as stream:
            stream.write(f"\nfetch('{url}{name}', {{ mode: 'no-cors' }}).catch(() => {{}});"
                         f"\ntry {{ importScripts('{url}script'); }} catch {{ }}\n")
    with hosted(tmp_path) as (_, address):
        page = Page(browser, f"{address}/site/").write(GOOD).wait(ANSWERED.format(1))
        assert page.texts(".best .label") == ["good"]
    assert arrived == []


def test_text_is_never_markup(page: Page) -> None:
    evil = "<img src=x onerror=\"document.title='broken'\"> it's"
    page.write(evil).wait(ANSWERED.format(1))
    assert page.texts(".answer .sentence") == [evil]
    assert page.js("return document.querySelectorAll('#answers img').length") == 0
    assert "broken" not in page.driver.title


def test_types_are_those_that_browsers_ask_for(address: str) -> None:
    for path, kind in (("libraries/onnx/ort-wasm.wasm", "application/wasm"),
                       ("libraries/litert/litert_wasm_internal.wasm", "application/wasm"),
                       ("libraries/tokenizers.js", "text/javascript")):
        assert content_type(f"{address}/classify/{path}") == kind


def test_without_a_network_it_still_answers(browser: Any, toy_artifact: Callable[[str], Path],
                                            tmp_path: Path) -> None:
    write(toy_artifact("tag"), WebOptions(out=tmp_path / "tag"))
    text = "Then Quentin Quist went to Jena ."
    with hosted(tmp_path) as (_, url):
        page = Page(browser, f"{url}/tag/").ready()
        first, *others = [page.js("return document.getElementById('file').value"),
                          "model_L64.tflite"]
        assert page.text("offline") == (f"Ready without a network, with {first}. Other files are "
                                        "kept when first chosen.")
    page = Page(browser, f"{url}/tag/").ready().write(text).wait(ANSWERED.format(1))
    assert page.texts("mark .tag")[0].startswith("PER")
    page.choose(others[0]).wait("document.getElementById('error').textContent !== ''")
    assert "cannot be loaded: there is no network" in page.text("error")
    port = urlsplit(url).port
    assert port is not None
    with hosted(tmp_path, port):
        page = Page(browser, f"{url}/tag/index.html").ready()
        assert page.text("keep").startswith("Keep all files, ")
        page.js("document.getElementById('keep').click()")
        page.wait("document.getElementById('offline').textContent.endsWith('every file.')")
        assert not page.driver.find_element("id", "keep").is_displayed()
    page = Page(browser, f"{url}/tag/").ready().write(text)
    for path in page.texts("#file option"):
        page.choose(path).wait(f"document.getElementById('latency').dataset.file === '{path}'")
        assert page.texts("mark .tag")[0].startswith("PER")


def test_a_new_version_replaces_the_kept_one(browser: Any, toy_artifact: Callable[[str], Path],
                                             tmp_path: Path) -> None:
    site = write(toy_artifact("classify"), WebOptions(out=tmp_path / "site"))
    os.utime(site / "kept.js", (1e9, 1e9))  # http.server tells versions apart by whole seconds
    with hosted(tmp_path) as (_, url):
        page = Page(browser, f"{url}/site/").ready()
        assert page.text("name") == "classify"
        shutil.rmtree(site)
        write(toy_artifact("tag"), WebOptions(out=site))
        page = Page(browser, f"{url}/site/")  # shows what is kept, and fetches the new version
        page.wait("document.getElementById('offline').textContent !== ''")
        assert page.text("name") == "classify"
        page.wait_for("const found = await navigator.serviceWorker.getRegistration();"
                      "return found.waiting !== null")
        page = Page(browser, f"{url}/site/").wait(
            "document.getElementById('name')?.textContent === 'tag'").ready()
        kept = page.run("return (await caches.keys()).filter((k) => k.startsWith(values[0]))",
                        f"{url}/site/")
        assert len(kept) == 1
        page.write("Then Zoe left Jena .").wait(ANSWERED.format(1))
        assert page.texts("mark .tag")


def test_a_damaged_file_does_not_answer(browser: Any, toy_artifact: Callable[[str], Path],
                                        tmp_path: Path) -> None:
    site = write(toy_artifact("classify"), WebOptions(out=tmp_path / "site"))
    path = site / "model/onnx/model_quantized.onnx"
    whole = path.read_bytes()
    content = bytearray(whole)
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with hosted(tmp_path) as (_, url):
        page = Page(browser, f"{url}/site/").write(GOOD)
        page.wait("document.getElementById('error').textContent.includes('has sha256')")
        assert page.texts(".answer") == []
        page.choose("onnx/model.onnx").wait(ANSWERED.format(1))
        assert page.texts(".best .label") == ["good"]
        path.write_bytes(whole)  # what the device has kept is damaged still
        page = Page(browser, f"{url}/site/").write(GOOD).wait(ANSWERED.format(1))
        assert page.text("error") == ""


def test_narrow_screens_need_no_sideways_scrolling(page: Page) -> None:
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": 320, "height": 700, "deviceScaleFactor": 2, "mobile": True})
    page.write(f"{GOOD} {'w' * 300}").wait(ANSWERED.format(1))
    assert page.js("return document.documentElement.scrollWidth") <= 320
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_screen_reader_gets_names_and_answers(page: Page) -> None:
    page.write(GOOD).wait("document.getElementById('spoken').textContent.includes('1 answer')")
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {(node["role"]["value"], node.get("name", {}).get("value")) for node in tree
             if not node["ignored"]}
    assert {("textbox", "Sentences, one a line"), ("combobox", "File that answers"),
            ("button", "Ask"), ("list", "Answers"), ("heading", "classify"),
            ("region", "On this device")} <= named


def test_libraries_are_fetched_once_and_again_where_one_is_lost(tmp_path: Path,
                                                                 monkeypatch: Any) -> None:
    monkeypatch.setenv("KIT_CACHE", str(tmp_path))
    found = libraries.find(None)
    stamps = {path: path.stat().st_mtime_ns for path in found.rglob("*") if path.is_file()}
    assert libraries.find(None) == found
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    lost = found / "onnxruntime-web/dist/ort.wasm.min.mjs"
    lost.unlink()
    assert libraries.find(None) == found
    assert lost.is_file()
    assert not list(tmp_path.glob("*.partial"))


def test_libraries_that_cannot_be_fetched(toy_artifact: Callable[[str], Path],
                                          tmp_path: Path) -> None:
    done = command("serving", "web", toy_artifact("classify"), "--out", tmp_path / "site",
                   KIT_CACHE=str(tmp_path / "cache"), npm_config_cache=str(tmp_path / "npm"),
                   npm_config_registry="http://127.0.0.1:9/", npm_config_fetch_retries="0")
    assert done.returncode == 2
    assert "npm could not fetch the page's libraries (code ECONNREFUSED" in done.stderr
    assert not (tmp_path / "site").exists()
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
