"""The page at `/` and the artifact's files behind it, over HTTP without a browser."""

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from serving import graphs, pages
from serving.options import Limits, Queueing
from serving.server import create_app
from tf_pipeline.predictor import Predictor

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
TEXT = "the kitchen was lovely"


@pytest.fixture(scope="module")
def client(predictor) -> TestClient:
    return TestClient(create_app(predictor, Limits(max_texts=8)))


def test_a_browser_gets_the_page_and_a_program_json(client):
    page, json = client.get("/", headers=BROWSER), client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert json.json()["model"] == "classify"
    assert page.headers["vary"] == json.headers["vary"] == "Accept"


@pytest.mark.parametrize("path", ["/", *(f"/web/{name}" for name in pages.TYPES)])
def test_every_file_of_the_page_keeps_it_to_this_server(client, path):
    answer = client.get(path, headers=BROWSER)
    assert answer.status_code == 200
    policy = dict(part.strip().split(" ", 1)
                  for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    for kind in ("script-src", "style-src", "img-src", "connect-src"):
        assert policy[kind] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_names_no_other_server_and_writes_no_markup():
    files = {path.name: path.read_text("utf-8") for path in pages.WEB.iterdir()}
    assert set(files) == {"index.html", *pages.TYPES}
    for name, content in files.items():
        without_namespaces = content.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[\w.]+\.\w", without_namespaces), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", content)
        assert not re.search(r"<script>|<style| on\w+=| style=", content), name
    ids = set(re.findall(r'id="([\w-]+)"', files["index.html"]))
    scripts = "".join(content for name, content in files.items() if name.endswith(".js"))
    assert set(re.findall(r'at\("([\w-]+)"\)', scripts)) <= ids


@pytest.mark.parametrize("path", ["/web/", "/web/pages.py", "/web/..%2Fpages.py", "/web/index.html",
                                  "/web/x/page.js", "/favicon.ico"])
def test_other_files_are_not_given(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "Malformed request" in answer.json()["error"]


def test_files_and_limits_are_listed(client, base, manifest):
    listed = client.get(f"{base}/files").json()
    assert [f["path"] for f in listed["files"]] == [g.path for g in manifest.graphs]
    assert listed["labels"] == list(manifest.labels)
    assert listed["limits"]["texts"] == 8
    assert listed == client.get(f"{base}/versions/{manifest.version}/files").json()
    for file, graph in zip(listed["files"], manifest.graphs, strict=True):
        assert file["max_tokens"] == min(manifest.max_len, graph.length or manifest.max_len)
        assert file["agreement"] == graph.parity["agreement"] > .9
    assert client.get("/v1/models/other/files").status_code == 404


def test_every_file_answers_as_its_own_predictor(client, base, artifact, manifest):
    for graph in manifest.graphs:
        answer = client.post(f"{base}:answer", json={"text": TEXT, "file": graph.path}).json()
        own = Predictor(artifact, graph.runtime, graph.variant, graph.length)([TEXT])[0]
        assert answer["file"] == graph.path
        assert answer["answers"][0]["score"] == pytest.approx(own["score"], abs=1e-6)
        assert 0 < answer["latency_ms"] < 10_000


def test_served_file_is_named_and_answers_without_the_key(client, base, predictor):
    answer = client.post(f"{base}:answer", json={"texts": [TEXT]}).json()
    assert answer["file"] == predictor.graph.path


def test_many_threads_load_a_file_once(predictor, manifest):
    files = graphs.Graphs(predictor, Queueing())
    path = next(g.path for g in manifest.graphs if g.runtime == "tflite")
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(files.get, [path] * 8))
        answers = list(pool.map(lambda one: asyncio.run(
            one.answer([[TEXT]], time.monotonic() + 60))[0], loaded))
    assert len({id(one) for one in loaded}) == 1
    assert answers == answers[:1] * 8


@pytest.mark.parametrize(("value", "message"), [
    ("onnx/other.onnx", '"onnx/other.onnx", which the artifact does not offer. Known: .*onnx'),
    ("../manifest.json", "does not offer"), ("manifest.json", "does not offer"),
    ("", "does not offer"), (5, "file is 5; expected a string"), (None, "is null; expected a"),
    (["onnx/model.onnx"], "is an array of 1; expected a string"), ({}, "is an empty object"),
])
def test_bad_files(client, base, value, message):
    answer = client.post(f"{base}:answer", json={"text": TEXT, "file": value})
    assert answer.status_code == 400
    assert re.search(message, answer.json()["error"]), answer.json()


def test_file_needs_a_text_beside_it(client, base, predictor):
    answer = client.post(f"{base}:answer", json={"file": predictor.graph.path})
    assert answer.status_code == 400
    assert "expected either 'texts'" in answer.json()["error"]


def test_files_of_a_runtime_that_is_not_installed(predictor, base, manifest, monkeypatch):
    monkeypatch.setitem(graphs.MODULES, "saved_model", ("tensorflow_of_nowhere",))
    client = TestClient(create_app(predictor))
    listed = [f["path"] for f in client.get(f"{base}/files").json()["files"]]
    path = next(g.path for g in manifest.graphs if g.runtime == "saved_model")
    assert sorted(listed) == sorted(g.path for g in manifest.graphs
                                    if g.runtime in ("onnx", "tflite"))
    error = client.post(f"{base}:answer", json={"text": TEXT, "file": path}).json()["error"]
    assert re.search("has no tensorflow_of_nowhere to run it with. Known: .*install", error)
