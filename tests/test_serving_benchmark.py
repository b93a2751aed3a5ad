"""The benchmark of serving: its clock, its search, and one side measured on a toy."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks import overload, rates, servers, serving
from benchmarks.open_loop import Job, Point, measure, quantile, together
from benchmarks.rates import Search, Turn
from tests.conftest import opinions, write_lines


@contextmanager
def stub(delay: Callable[[int], float], status: int = 200) -> Iterator[str]:
    """Answer requests one after the other, the nth after `delay(n)` seconds."""
    turn, asked = threading.Lock(), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            json.loads(self.rfile.read(int(self.headers["content-length"])))
            with turn:
                asked.append(self.path)
                time.sleep(delay(len(asked)))
            self.wfile.write(f"HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\n{{}}".encode())

    class Server(ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 128

        def handle_error(self, *words: Any) -> None:  # the load was ended early
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/x"
    finally:
        server.shutdown()
        server.server_close()


def test_all_that_is_planned_is_answered() -> None:
    with stub(lambda n: 0.001) as url:
        point = measure(Job(url, ['{"text": "ä"}', "{}"], rate=100, seconds=1.5, limit_ms=5000))
    assert 100 < point.planned < 210
    assert (point.answered, point.refused, point.stopped) == (point.planned, 0, False)
    assert 1 <= point.p50 <= point.p99
    assert point.late_p99 < 1000


def test_a_pause_of_the_server_is_everybodys() -> None:
    """Who waits for answers before asking again would see one slow request of many."""
    with stub(lambda n: 0.5 if n == 20 else 0) as url:
        point = measure(Job(url, ["{}"], rate=100, seconds=1.5, limit_ms=5000))
    assert point.answered == point.planned
    assert point.p99 > 300
    with stub(lambda n: 0.5 if n == 20 else 0) as url:
        started = time.monotonic()
        point = measure(Job(url, ["{}"], rate=100, seconds=30, limit_ms=50))
        assert point.stopped
        assert time.monotonic() - started < 15
    assert point.p99 == float("inf")


def test_refused_requests_are_not_in_time() -> None:
    with stub(lambda n: 0, status=429) as url:
        point = measure(Job(url, ["{}"], rate=100, seconds=0.5, limit_ms=5000))
    assert (point.answered, point.p50) == (0, float("inf"))
    assert point.refused > 0
    assert not rates.in_time(point)


def test_quantile() -> None:
    assert [quantile([1, 2, 3, 4], share) for share in (0.25, 0.5, 0.51, 0.99)] == [1, 2, 3, 4]
    assert quantile([], 0.5) == float("inf")


def test_most_over_ends_a_job() -> None:
    with stub(lambda n: 0.05) as url:
        point = measure(Job(url, ["{}"], rate=50, seconds=30, limit_ms=10, most_over=3))
    assert point.stopped
    assert 4 <= point.over < 60


def test_parts_of_a_point_are_pooled() -> None:
    whole = together([Point(10, 3, 1, 1, 0.2, False, [1.0, 9.0]),
                      Point(10, 2, 0, 0, 0.1, False, [2.0, 3.0])])
    assert whole == Point(10, 5, 1, 1, 0.2, False, [1.0, 2.0, 3.0, 9.0])
    assert (whole.answered, whole.p50, whole.p99) == (4, 3.0, float("inf"))


def answer(rate: float, most: float, seconds: float = 60) -> Point:
    count = int(rate * seconds)
    return Point(rate, count, 0, 0, 0.1, False, [10.0 if rate <= most else 60.0] * count)


def found(search: Search, short: float, whole: float) -> list[Point]:
    """Run a search whose short points hold one rate and whose whole points another."""
    trial = next(search)
    while True:
        try:
            trial = search.send(answer(trial.rate, whole if trial.seconds == 60 else short))
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(("short", "whole"), [(137, 137), (137, 100), (100, 137), (5.1, 5.1)])
def test_the_highest_rate_that_is_held(short: float, whole: float) -> None:
    points = found(rates.search(60), short, whole)
    best = points[-1]
    assert rates.in_time(best)
    assert whole / rates.STEPS ** 2 <= best.rate <= whole
    assert best.rate == max(point.rate for point in points if rates.in_time(point))


def test_no_rate_is_held() -> None:
    assert not rates.in_time(found(rates.search(60), 2, 2)[-1])
    assert found(rates.search(60), 1e9, 1e9)[-1].rate >= rates.HIGHEST


def test_searches_take_turns() -> None:
    """Points of 60 s are asked for in six parts, and after each comes the other server."""
    asked: list[tuple[str, Turn]] = []

    def ask(name: str, turn: Turn) -> Point:
        asked.append((name, turn))
        return answer(turn.rate, {"a": 20, "b": 90}[name], turn.seconds)

    best = {name: points[-1].rate for name, points in rates.in_turn(
        {name: rates.search(60) for name in "ab"}, ask)}
    assert 18 < best["a"] <= 20
    assert 81 < best["b"] <= 90
    assert max(turn.seconds for _, turn in asked) == rates.TURN_S
    last = max(i for i, (name, _) in enumerate(asked) if name == "a")
    assert [name for name, _ in asked[:last]] == list("ab" * last)[:last]
    numbers = [turn.number for name, turn in asked if name == "b"]
    assert numbers[-6:] == [0, 1, 2, 3, 4, 5]


def test_what_was_over_in_one_turn_is_not_allowed_in_the_next() -> None:
    left: list[int] = []

    def ask(name: str, turn: Turn) -> Point:
        left.append(turn.most_over)
        return Point(turn.rate, 100, 0, 7, 0.1, turn.most_over < 7, [1.0] * 93)

    def one_point() -> Search:
        return [(yield rates.Trial(100, 30))]

    ((_, (point,)),) = rates.in_turn({"a": one_point()}, ask)
    assert left == [30, 23, 16]
    assert (point.planned, point.over, point.stopped) == (300, 21, False)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the benchmark in a folder of the test's own, about 6 requests a second."""
    (tmp_path / "sst2").mkdir()
    write_lines(tmp_path / "sst2/dev.tsv", [
        "sentence\tlabel", *(f"{row['text']}\t{row['label']}" for row in opinions(40))])
    monkeypatch.setattr(serving, "HERE", tmp_path)
    monkeypatch.setattr(serving, "RESULTS", tmp_path / "serving.json")
    monkeypatch.setattr(rates, "HIGHEST", 6)
    monkeypatch.setattr(rates, "LIMIT_MS", 5000.0)
    monkeypatch.setattr(serving, "LIMIT_MS", 5000.0)

    def run(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["serving", "--data", str(tmp_path), "--work",
                                          str(tmp_path / "work"), *words])
        serving.main()

    return run


def test_a_side_is_measured_once_and_written(bench: Callable[..., None], artifact: Path,
                                             tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    cores = ",".join(map(str, (sorted(os.sched_getaffinity(0)) * 2)[:2]))
    words = ("--artifact", str(artifact), "--seconds", "0.5", "--starts", "1", "--only",
             "onnx int8,onnx float32", "--cores", cores)
    bench(*words)
    assert "onnx int8: 5/s for 0.5 s" in capsys.readouterr().out
    found = {row["side"]: row for row in json.loads((tmp_path / "serving.json").read_text())}
    assert set(found) == {"onnx int8", "onnx float32"}
    assert {"points", "commit", "date", "resident_mib"} <= set(found["onnx int8"])
    assert set(found["onnx int8"]["labels"]) <= {"good", "bad"}
    page = (tmp_path / "serving.md").read_text()
    row = re.search(r"\| this kit, ONNX int8 \| (\d+) \| ([\d.]+) \| ([\d.]+) \| "
                    r"[\d.]+ \| [\d.]+ \| \d+% \| 0\.5 \| "
                    r"([\d.]+) \| (\d+) \| (\d+) \| \d+% \|", page)
    assert row, page
    assert int(row[1]) >= 5
    assert float(row[4]) > 0.1
    assert 20 < int(row[5]) < 2000
    assert "| this kit, ONNX float32 |" in page
    bench(*words)
    assert "/s for" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_is_trained_where_none_is_given(bench: Callable[..., None],
                                                tmp_path: Path) -> None:
    write_lines(tmp_path / "sst2/train.tsv", [
        "sentence\tlabel", *(f"{row['text']}\t{row['label']}" for row in opinions(300))])
    bench("--backbone", "tiny", "--seconds", "0.5", "--starts", "1", "--only",
          "tflite int8,tflite lengths")
    page = (tmp_path / "serving.md").read_text()
    assert "| this kit, TFLite int8, length 64 | " in page
    assert "| this kit, TFLite int8, lengths 16,24,32,48,64 | " in page


def test_overload_is_answered_or_refused(artifact: Path, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sst2").mkdir()
    write_lines(tmp_path / "sst2/dev.tsv", [
        "sentence\tlabel", *(f"{row['text']}\t1" for row in opinions(40))])
    monkeypatch.setattr(overload, "HERE", tmp_path)
    monkeypatch.setattr(overload, "CALM_S", 0.5)
    monkeypatch.setattr(sys, "argv", ["overload", "--data", str(tmp_path), "--artifact",
                                      str(artifact), "--seconds", "2", "--timeout-ms", "150",
                                      "--times", "6"])
    own = os.sched_getaffinity(0)
    try:
        overload.main()
    finally:
        os.sched_setaffinity(0, own)
    found = dict(re.findall(r"^\| (.+) \| (.+) \|$", (tmp_path / "overload.md").read_text(), re.M))
    sent, answered = (float(found[name]) for name in ("requests/s sent", "answered/s"))
    assert 0 < answered < sent
    assert int(found["refused with 429"].rstrip("%")) > 0
    assert float(found["after the last answer as before again in, s"]) < 20


@pytest.mark.parametrize(("words", "message"), [
    (("--artifact", "/nowhere"), "error: --artifact: /nowhere does not exist"),
    (("--artifact", "a", "--times", "0"), "--times is 0; it must be over 0"),
    (("--artifact", "a", "--seconds", "-2"), "--seconds is -2; it must be over 0"),
    (("--artifact", "a", "--timeout-ms", "0"), "--timeout-ms is 0; it must be over 0")])
def test_overload_names_wrong_flags(words: tuple[str, ...], message: str, tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sst2").mkdir()
    write_lines(tmp_path / "sst2/dev.tsv", ["sentence\tlabel", "a text\t1"])
    monkeypatch.setattr(overload, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["overload", "--data", str(tmp_path), *words])
    with pytest.raises(SystemExit) as stopped:
        overload.main()
    assert message in f"{stopped.value} {capsys.readouterr().err}"
    assert not (tmp_path / "overload.md").exists()


@pytest.mark.parametrize(("words", "message"), [
    (("--only", "typo"), "--only names 'typo'; allowed: onnx int8, "),
    (("--peer", "torch=python"), "--peer names 'torch'; allowed: transformers, optimum, litserve"),
    (("--peer", f"litserve={sys.executable}"), "--peer names litserve without optimum"),
    (("--peer", "optimum=/nowhere/python"), "--peer /nowhere/python is no program"),
    (("--cores", "0,7000"), "--cores names 0,7000; allowed are two of 0"),
    (("--artifact", "/nowhere"), "--artifact: .*/nowhere"),
    (("--seconds", "0"), "--seconds is 0 and --starts 3; both must be over 0"),
    (("--artifact", "ARTIFACT", "--peer", f"optimum={sys.executable}"),
     "--artifact .* lacks model.safetensors"),
])
def test_wrong_flags_are_named(words: tuple[str, ...], message: str, artifact: Path,
                               bench: Callable[..., None], tmp_path: Path,
                               capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        bench(*(str(artifact) if word == "ARTIFACT" else word for word in words))
    assert re.search(message, f"{stopped.value} {capsys.readouterr().err}")
    assert not (tmp_path / "serving.md").exists()


def test_a_server_that_does_not_start_is_named(tmp_path: Path) -> None:
    def words(port: int) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('out of order')"]

    core = min(os.sched_getaffinity(0))
    with (pytest.raises(SystemExit, match="(?s)does not answer.*server.log ends .*out of order"),
          servers.started(words, "/x", core, tmp_path / "server.log")):
        pass


def test_processor_time_counts_threads_that_ended_and_children() -> None:
    code = """
import subprocess, sys, threading, time
def work():
    end = time.thread_time() + 0.3
    while time.thread_time() < end: pass
thread = threading.Thread(target=work); thread.start(); thread.join()
child = subprocess.Popen([sys.executable, "-c", '''
import time
while time.process_time() < 0.3: pass
print(flush=True); input()'''], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline(); print(flush=True); input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 0.6 <= servers.cpu_s(process.pid) < 3
        process.kill()
