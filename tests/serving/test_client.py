"""The clients, blocking and with await: against the real server and against servers that fail."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from serving import AsyncClient, Client, ServingError, ServingTimeout
from tests.conftest import ROOT
from tests.serving.test_serving_cli import served
from tf_pipeline import UserError
from tf_pipeline.artifact import Manifest

TEXTS = ["what a film", "it was dull", "🎬🎬", "a lovely room", "no"]
Ask = Callable[..., Any]


@pytest.fixture(params=["blocking", "await"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Call one method of a client of either kind: ask(server, method, ..., settings={})."""
    def blocking(server: str, method: str, *words: Any, settings: Any = None, **named: Any) -> Any:
        with Client(server, **{"model": "m", **(settings or {})}) as client:
            return getattr(client, method)(*words, **named)

    async def awaited(server: str, method: str, *words: Any, settings: Any = None,
                      **named: Any) -> Any:
        async with AsyncClient(server, **{"model": "m", **(settings or {})}) as client:
            return await getattr(client, method)(*words, **named)

    if request.param == "blocking":
        return blocking
    return lambda *words, **named: asyncio.run(awaited(*words, **named))


@pytest.fixture(scope="module")
def real(artifact) -> Iterator[str]:
    with served(artifact, "--max-texts", "2") as (_, url, _):
        yield url


def test_long_texts_are_cut_into_bodies_that_the_server_takes(ask, artifact):
    """Also those whose characters take several bytes; one that no body holds is refused."""
    texts = ["一" * 900, "é" * 1000, *(f"{n} " * 700 for n in range(12))]
    with served(artifact, "--max-body-bytes", "6000") as (_, url, _):
        answers = ask(url, "answer", texts, settings={"model": "classify"})
        alone = [ask(url, "answer", [text], settings={"model": "classify"})[0] for text in texts]
        assert [a["label"] for a in answers] == [a["label"] for a in alone]
        with pytest.raises(ServingError, match="allowed are 6,000"):
            ask(url, "answer", ["a", "一" * 3000], settings={"model": "classify"})


Behaviour = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def failing(*behaviours: Behaviour) -> Iterator[tuple[str, list[BaseHTTPRequestHandler]]]:
    """Serve one behaviour a request, the last one ever after; give the address and the requests."""
    asked: list[BaseHTTPRequestHandler] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            asked.append(copy(self))  # one handler serves all requests of a connection
            behaviours[min(len(asked), len(behaviours)) - 1](self)

        do_GET = do_POST

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def reply(status: int, body: Any, **headers: str) -> Behaviour:
    def act(handler: BaseHTTPRequestHandler) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return act


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def break_off(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    handler.close_connection = True


def half_close(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_WR)
    handler.close_connection = True


def sleep(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(4)
    handler.close_connection = True


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    handler.close_connection = True
    try:
        for _ in range(80):
            handler.wfile.write(b" ")
            time.sleep(0.05)
    except OSError:  # the client went
        pass


GOOD = reply(200, {"answers": [{"label": "good"}]})
FULL = reply(429, {"error": "The queue is full."})


def test_all_that_can_be_asked(ask, real, artifact, predictor):
    manifest = Manifest.load(artifact)
    settings = {"model": manifest.name, "timeout_s": 20}
    answers = ask(real, "answer", TEXTS, settings=settings)  # three requests
    assert [a["label"] for a in answers] == [a["label"] for a in predictor(TEXTS)]
    rows = ask(real, "predict", TEXTS[:2], settings={**settings, "version": manifest.version})
    columns = ask(real, "predict", inputs={"text": TEXTS[:2]}, settings=settings)
    assert [row["label"] for row in rows] == columns["label"] == [a["label"] for a in answers[:2]]
    row = {"input_ids": [2, 5, 3], "attention_mask": [1, 1, 1], "token_type_ids": [0, 0, 0]}
    (tokens,) = ask(real, "predict", [row], signature_name="tokens", settings=settings)
    assert set(tokens) == {"logits", "probabilities"}
    tflite = next(g.path for g in manifest.graphs if g.runtime == "tflite")
    assert ask(real, "answer", TEXTS[:1], file=tflite, settings=settings)[0]["label"]
    status = ask(real, "status", settings=settings)
    assert status["model_version_status"][0]["version"] == str(manifest.version)
    metadata = ask(real, "metadata", settings=settings)["metadata"]
    assert "tokens" in metadata["signature_def"]["signature_def"]
    assert ask(real, "healthy", settings=settings) is True
    assert ask(real, "answer", [], settings=settings) == []


def test_the_servers_own_sentence(ask, real, artifact):
    settings = {"model": Manifest.load(artifact).name}
    with pytest.raises(ServingError, match=r"^texts\[0\] is 5; expected a string\.$") as caught:
        ask(real, "answer", [5], settings=settings)
    assert caught.value.status == 400
    with pytest.raises(ServingError, match="texts.0. holds half a surrogate pair"):
        ask(real, "answer", ["\ud800"], settings=settings)
    with pytest.raises(ServingError, match=r"^Servable not found for request: Latest\(m x\)$"):
        ask(real, "predict", ["a"], settings={"model": "m x"})
    with pytest.raises(ServingError, match="The body has .* allowed are") as caught:
        ask(real, "answer", ["a" * 1_100_000], settings=settings)
    assert caught.value.status == 413
    assert not isinstance(caught.value, ServingTimeout)


@pytest.mark.parametrize("trouble", [FULL, reply(503, {"error": "No version is loaded."}), hang_up,
                                     half_close], ids=["429", "503", "hang up", "half close"])
def test_what_passes_is_tried_again(ask, trouble):
    with failing(trouble, trouble, GOOD) as (url, asked):
        assert ask(url, "answer", ["a"]) == [{"label": "good"}]
    assert len(asked) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500])
def test_what_stays_is_not_tried_again(ask, status):
    with failing(reply(status, {"error": "No."}), GOOD) as (url, asked):
        with pytest.raises(ServingError, match=r"^No\.$") as caught:
            ask(url, "answer", ["a"])
        assert caught.value.status == status
    assert len(asked) == 1


def test_the_last_try_is_told(ask):
    with failing(FULL) as (url, asked):
        with pytest.raises(ServingError, match=r"^The queue is full\. Tried 3 times\.$") as caught:
            ask(url, "answer", ["a"], settings={"retries": 2})
        assert caught.value.status == 429
    assert len(asked) == 3


def test_the_server_says_how_long_to_wait(ask):
    busy = reply(429, {"error": "Full."}, Retry_After="1")
    with failing(busy, GOOD) as (url, _):
        start = time.monotonic()
        ask(url, "answer", ["a"])
        assert 1 < time.monotonic() - start < 4
    date = reply(503, {"error": "Full."}, Retry_After="Wed, 01 Jan 2200 00:00:00 GMT")
    for trouble in (date, reply(503, {"error": "Full."}, Retry_After="7")):
        with failing(trouble, GOOD) as (url, asked):  # too long: refused at once
            start = time.monotonic()
            with pytest.raises(ServingError, match=r"^Full\.$"):
                ask(url, "answer", ["a"])
            assert time.monotonic() - start < 4
        assert len(asked) == 1
    with failing(reply(503, {"error": "Full."}, Retry_After="soon"), GOOD) as (url, _):
        assert ask(url, "answer", ["a"])


@pytest.mark.parametrize("slow", [sleep, drip])
def test_time_is_over(ask, slow):
    with failing(slow) as (url, asked):
        start = time.monotonic()
        with pytest.raises(ServingTimeout, match=r"did not answer within 0\.4 s\. Raise") as caught:
            ask(url, "answer", ["a"], settings={"timeout_s": 0.4})
        assert 0.35 < time.monotonic() - start < 2
        assert caught.value.status is None
    assert len(asked) == 1


def test_the_servers_deadline_is_a_timeout_too(ask):
    with (failing(reply(504, {"error": "The deadline passed."})) as (url, asked),
          pytest.raises(ServingTimeout, match=r"^The deadline passed\.$")):
        ask(url, "answer", ["a"])
    assert len(asked) == 1


def test_tries_share_the_time_and_say_what_is_left(ask):
    with failing(FULL) as (url, asked):
        start = time.monotonic()
        # The last try may have too little time left for any answer.
        with pytest.raises(ServingError, match="The queue is full|did not answer within 0.5 s"):
            ask(url, "answer", ["a"], settings={"timeout_s": 0.5, "retries": 1000, "token": "s3"})
        assert time.monotonic() - start < 2
    left = [int(handler.headers["X-Request-Timeout-Ms"]) for handler in asked]
    assert 400 < left[0] <= 500
    assert left == sorted(left, reverse=True)
    assert len(left) > 1
    assert left[-1] < left[0]
    assert {handler.headers["Authorization"] for handler in asked} == {"Bearer s3"}


def test_answer_that_breaks_off(ask):
    with failing(break_off, GOOD) as (url, asked):
        with pytest.raises(ServingError, match="The answer of http.*:answer broke off: ") as caught:
            ask(url, "answer", ["a"])
        assert caught.value.status is None
    assert len(asked) == 1


@pytest.mark.parametrize(("body", "message"), [
    (b"<html>", "answered '<html>'; expected JSON with 'answers'"),
    ([1], "expected JSON with 'answers'"), ({"other": 1}, "expected JSON with 'answers'")])
def test_answer_of_another_server(ask, body, message):
    with failing(reply(200, body)) as (url, _), pytest.raises(ServingError, match=message):
        ask(url, "answer", ["a"])
    with (failing(reply(502, b"<html>" + b"x" * 900)) as (url, _),
          pytest.raises(ServingError, match=r"answered 502: '<html>x+'\.\.\. \(906 bytes\)")):
        ask(url, "status")


def test_no_server(ask):
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert ask(url, "healthy") is False
        with pytest.raises(ServingError, match=r"No answer from .*Tried 3 times\. Is the server"):
            ask(url, "status", settings={"retries": 2})


def test_unhealthy(ask):
    with failing(reply(503, {"error": "No version is loaded."})) as (url, asked):
        assert ask(url, "healthy") is False
    assert len(asked) == 1


@pytest.mark.parametrize(("settings", "message"), [
    ({"server": "127.0.0.1:8501"}, "address is '127.0.0.1:8501'; expected one such as 'http:"),
    ({"model": ""}, "The model's name is ''"), ({"timeout_s": 0}, "timeout_s is 0; it must be a"),
    ({"timeout_s": float("nan")}, "timeout_s is nan"), ({"retries": -1}, "retries is -1; it must"),
    ({"token": "a\r\nb"}, "The token's character 1 cannot stand in a header"),
])
def test_wrong_settings(settings, message):
    for kind in (Client, AsyncClient):
        with pytest.raises(UserError, match=message):
            kind(**{"server": "http://127.0.0.1:1", "model": "m", **settings})


@pytest.mark.parametrize(("method", "given", "message"), [
    ("answer", {"texts": "a text"}, "The texts are 'a text'; pass a list"),
    ("answer", {"texts": [object()]}, "cannot be written as JSON: Object of type object"),
    ("predict", {}, "Of instances and inputs neither is given"),
    ("predict", {"instances": ["a"], "inputs": ["a"]}, "Of instances and inputs both is given"),
    ("predict", {"inputs": [float("nan")]}, "cannot be written as JSON: Out of range float"),
])
def test_wrong_requests_are_not_sent(ask, method, given, message):
    with pytest.raises(UserError, match=message):
        ask("http://127.0.0.1:1", method, **given)


def test_one_connection_for_all_and_threads_may_share_it(real, artifact):
    with failing(GOOD) as (url, asked), Client(url, "m") as client:
        for _ in range(3):
            client.answer(["a"])
    assert len({handler.client_address for handler in asked}) == 1
    with Client(real, Manifest.load(artifact).name, timeout_s=20) as client:
        def label(text: str) -> str:
            return client.answer([text])[0]["label"]

        alone = [label(text) for text in TEXTS]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(label, TEXTS)) == alone


def test_a_full_queue_of_the_real_server_is_waited_for(artifact):
    """Sixteen at once where two may wait; without another try most of them are refused."""
    name = Manifest.load(artifact).name
    with (served(artifact, "--queue-size", "2") as (_, url, _),
          Client(url, name, timeout_s=60, retries=1000) as client,
          ThreadPoolExecutor(16) as pool):
        expected = client.answer(TEXTS[:1])[0]["label"]
        answers = list(pool.map(client.answer, [TEXTS[:1]] * 64))
    assert [answer[0]["label"] for answer in answers] == [expected] * 64


def test_importing_it_needs_neither_numpy_nor_a_server():
    code = ("import sys\nfrom serving import AsyncClient, Client, ServingError\n"
            "print(*sys.modules)")
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True,
                          check=True)
    assert time.perf_counter() - start < 2
    modules = set(done.stdout.split())
    assert {"httpx2", "serving.client"} <= modules
    assert not modules & {"numpy", "starlette", "uvicorn", "onnxruntime", "tokenizers",
                          "tensorflow", "serving.server", "serving.options"}
