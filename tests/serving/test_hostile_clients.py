"""Clients that send too much, too slowly, or never to the end: others are answered as before."""

import gzip
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.servers import resident_mib
from tests.serving.test_serving_cli import post, served, stop

ASK = "/v1/models/classify:answer"


@pytest.fixture(scope="module")
def server(artifact: Path) -> Iterator[tuple[int, str]]:
    """Give a server's process and address; at the end it still answers, and its log is clean."""
    with served(artifact, "--read-timeout-ms", "2000") as (process, url, _):
        for _ in range(20):
            answers_at_once(url)
        yield process.pid, url
        answers_at_once(url)
        rest = stop(process)
    assert "Traceback" not in rest
    assert process.returncode == 0


def answers_at_once(url: str) -> None:
    start = time.monotonic()
    assert post(f"{url}{ASK}", {"text": "the kitchen was lovely"})[0] == 200
    assert time.monotonic() - start < 2


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def answer(connection: socket.socket) -> bytes:
    """Read until the server closes the connection, or resets it."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def head(*lines: str) -> bytes:
    return "\r\n".join([f"POST {ASK} HTTP/1.1", "Host: a", "Content-Type: application/json", *lines,
                        "", ""]).encode()


def send_much(connection: socket.socket, part: bytes, count: int) -> int:
    """Send a part again and again; give how often it could be sent."""
    for sent in range(count):
        try:
            connection.sendall(part)
        except OSError:
            return sent
    return count


@pytest.mark.parametrize("kind", ["length", "chunks"])
def test_a_body_of_100_mb_is_refused_and_not_kept(server, kind):
    pid, url = server
    before, mb = resident_mib(pid), b"a" * 1_000_000
    with connect(url) as connection:
        if kind == "length":
            connection.sendall(head("Content-Length: 100000000"))
            send_much(connection, mb, 100)
        else:
            connection.sendall(head("Transfer-Encoding: chunked"))
            send_much(connection, b"f4240\r\n" + mb + b"\r\n", 100)
        connection.settimeout(5)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
        answers_at_once(url)
    assert resident_mib(pid) < before + 30


@pytest.mark.parametrize(("body", "status", "said"), [
    (b"[" * 900_000, 400, "nested too deep"),
    (b'{"a":' * 190_000, 400, "nested too deep"),
    (b'{"text": "\xff\xfe"}', 400, "not UTF-8"),
    (b'{"text": ' + b"9" * 100_000 + b"}", 400, ""),
    (b'{"text": NaN}', 400, ""),
    (b"\x00" * 1000, 400, "")])
def test_bodies_that_are_no_requests(server, body, status, said):
    pid, url = server
    before = resident_mib(pid)
    for _ in range(5):
        with connect(url) as connection:
            connection.sendall(head(f"Content-Length: {len(body)}", "Connection: close") + body)
            found = answer(connection)
        first, _, rest = found.partition(b"\r\n\r\n")
        assert first.startswith(f"HTTP/1.1 {status} ".encode())
        assert said in json.loads(rest)["error"]
    answers_at_once(url)
    assert resident_mib(pid) < before + 60


def test_a_gzip_bomb_is_not_opened(server):
    pid, url = server
    before, bomb = resident_mib(pid), gzip.compress(b" " * 300_000_000, 1)
    with connect(url) as connection:
        connection.sendall(head(f"Content-Length: {len(bomb)}", "Content-Encoding: gzip"))
        send_much(connection, bomb, 1)
        assert connection.recv(65536).startswith(b"HTTP/1.1 415 ")
    assert resident_mib(pid) < before + 30


def test_hundreds_of_half_requests_are_let_go(server):
    """Nothing sent, half a head, half a body: each has its time and no more."""
    pid, url = server
    before = resident_mib(pid)
    with ExitStack() as stack:
        halves = []
        for number in range(450):
            connection = stack.enter_context(connect(url))
            connection.sendall((b"", head()[:60], head("Content-Length: 50") + b"{")[number % 3])
            halves.append(connection)
        answers_at_once(url)
        start = time.monotonic()
        found = [answer(connection) for connection in halves]
        assert time.monotonic() - start < 15
        assert not any(found[0::3] + found[1::3])
        assert all(one.startswith(b"HTTP/1.1 408 ") for one in found[2::3])
        assert b"After 2,000 ms 1 bytes of the body were here" in found[2]
        answers_at_once(url)
    assert resident_mib(pid) < before + 40


def test_a_head_without_end_is_cut_off(server):
    pid, url = server
    before = resident_mib(pid)
    with connect(url) as connection:
        connection.sendall(head()[:-2])
        assert send_much(connection, b"X-More: " + b"a" * 10_000 + b"\r\n", 10_000) < 10_000
        assert answer(connection)[:13] in (b"HTTP/1.1 431 ", b"")  # b"": it was reset first
    assert resident_mib(pid) < before + 30


def test_a_slow_body_that_comes_in_time_is_answered(server):
    _, url = server
    body = json.dumps({"text": "the kitchen was lovely"}).encode()
    with connect(url) as connection:
        connection.sendall(head(f"Content-Length: {len(body)}", "Connection: close"))
        for byte in body:
            connection.sendall(bytes([byte]))
            time.sleep(0.01)
        assert answer(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_reads_nothing_holds_nobody_up(server):
    """It asks for long answers, and leaves them in its socket."""
    _, url = server
    body = json.dumps({"texts": ["a lovely garden"] * 250}).encode()
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(connect(url))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall((head(f"Content-Length: {len(body)}") + body) * 3)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            start = time.monotonic()
            answers_at_once(url)
            if time.monotonic() - start < 0.5:
                break
        else:
            pytest.fail("the server is still held up")


def test_kept_connections_have_their_time_anew(server):
    """Several requests on one connection, longer apart than a head may take."""
    _, url = server
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    for _ in range(3):
        connection.request("POST", ASK, json.dumps({"text": "the kitchen was lovely"}))
        answered = connection.getresponse()
        assert (answered.status, "answers" in json.load(answered)) == (200, True)
        own = connection.sock
        time.sleep(2.5)
    assert own is connection.sock  # all on one
    connection.close()
