"""A static site for the tests: written with the real libraries, and served by http.server."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from tests.documents import SERVER

# A module of the page itself, so that what is tested is what answers.
_ASK = """
const [texts, file, done] = arguments;
import(new URL("site/answerer.js", document.baseURI)).then(({ Answerer }) => {
  window.asked ??= new Answerer();
  return window.asked.ask(texts, file);
}).then((answer) => done(JSON.stringify(answer)), (error) => done(`error: ${error.message}`));
"""


@contextmanager
def hosted(folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen, str]]:
    """Serve a folder as the documentation says, in a process of its own; give its address."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory",
         str(folder), str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        found = SERVER.search(process.stdout.readline())
        assert found, "http.server did not start"
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


def content_type(url: str) -> str:
    """Give the type that the server names for a file."""
    with build_opener(ProxyHandler({})).open(url, timeout=10) as answer:
        return answer.headers["Content-Type"]


class Page:
    """The site in a browser."""

    def __init__(self, driver: WebDriver, url: str):
        self.driver, self.url = driver, url
        driver.set_script_timeout(240)
        driver.get(url)

    def js(self, code: str, *values: Any) -> Any:
        return self.driver.execute_script(code, *values)

    def text(self, element_id: str) -> str:
        return self.driver.find_element("id", element_id).text

    def texts(self, selector: str) -> list[str]:
        return self.js("return [...document.querySelectorAll(arguments[0])]"
                       ".map(e => e.textContent)", selector)

    def write(self, text: str) -> "Page":
        """Type a text; a driver cannot send emoji as keys."""
        self.js("const e = document.getElementById('texts'); e.value = arguments[0];"
                "e.dispatchEvent(new Event('input'))", text)
        return self

    def choose(self, file: str) -> "Page":
        self.js("const e = document.getElementById('file'); e.value = arguments[0];"
                "e.dispatchEvent(new Event('change'))", file)
        return self

    def wait(self, code: str, timeout_s: float = 60) -> "Page":
        """Wait until an expression holds in the page."""
        WebDriverWait(self.driver, timeout_s, 0.05).until(
            lambda driver: driver.execute_script(f"return {code}"), code)
        return self

    def wait_for(self, code: str, timeout_s: float = 60) -> "Page":
        """Wait until the body of an async function gives true."""
        WebDriverWait(self.driver, timeout_s, 0.05).until(lambda _: self.run(code), code)
        return self

    def ready(self) -> "Page":
        """Wait until the page works without a network."""
        return self.wait("document.getElementById('offline').textContent.startsWith('Ready')")

    def ask(self, texts: Sequence[Sequence[str]], file: str) -> list[dict[str, Any]]:
        """Answer with a file, through the page's own worker, at full precision."""
        answer = self.driver.execute_async_script(_ASK, texts, file)
        assert not answer.startswith("error: "), answer
        return json.loads(answer)["answers"]

    def run(self, code: str, *values: Any) -> Any:
        """Run the body of an async function that may import the page's modules."""
        answer = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1], values = [...arguments].slice(0, -1);"
            "const load = (path) => import(new URL(path, document.baseURI));"
            f"(async () => {{ {code} }})().then((found) => done(JSON.stringify({{ found }})),"
            "(error) => done(JSON.stringify({ error: error.stack })));", *values)
        content = json.loads(answer)
        assert "error" not in content, content["error"]
        return content.get("found")
