"""Sends requests by a Poisson clock, whether or not the ones before were answered.

    python -m benchmarks.open_loop < job.json

A job holds url, bodies (texts to choose from), rate (a second), seconds, limit_ms, seed, core and
most_over.
The answer: how many arrived, latencies from the scheduled arrival on, and how late the generator
itself was. Of what PyPI and Debian offer, locust, hey and wrk wait for an answer before they ask
again, which hides a server's queue; wrk2, vegeta and oha are in neither.
"""

import asyncio
import json
import math
import os
import random
import selectors
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

MOST_CONNECTIONS = 800  # below the 1024 files that select() can watch
GRACE_S = 2.0  # for the last answers


@dataclass(frozen=True)
class Job:
    """One point of a curve."""

    url: str
    bodies: Sequence[str]
    rate: float
    seconds: float
    limit_ms: float
    seed: int = 0
    core: int | None = None
    most_over: int | None = None  # requests over the limit, then it ends; None: 1 % of all


@dataclass(frozen=True)
class Point:
    """What came of it; times in ms."""

    rate: float
    planned: int
    refused: int  # with another status than 200, or the connection failed
    over: int  # the limit, those refused among them
    late_p99: float  # how long after its time a request left the generator
    stopped: bool  # ended early, as more were over the limit than may be
    latency_ms: list[float]  # of those answered with 200, sorted

    @property
    def answered(self) -> int:
        """Requests with 200."""
        return len(self.latency_ms)

    @property
    def p50(self) -> float:
        """The middle latency of all requests; one without a good answer takes for ever."""
        return self._quantile(0.5)

    @property
    def p99(self) -> float:
        """The latency that 1 % of all requests exceed."""
        return self._quantile(0.99)

    def _quantile(self, share: float) -> float:
        return quantile([*self.latency_ms, *[math.inf] * (self.planned - self.answered)], share)


def together(parts: Sequence[Point]) -> Point:
    """Take the parts of one point together."""
    return Point(parts[0].rate, sum(p.planned for p in parts), sum(p.refused for p in parts),
                 sum(p.over for p in parts), max(p.late_p99 for p in parts),
                 any(p.stopped for p in parts), sorted(chain(*(p.latency_ms for p in parts))))


class Connection(asyncio.Protocol):
    """One kept connection that carries one request at a time."""

    def __init__(self) -> None:
        self.buffer = b""
        self.waiting: asyncio.Future[int] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to the server."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        """Send a request; its future gets the status."""
        assert self.transport is not None
        self.buffer = b""
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.waiting

    def data_received(self, data: bytes) -> None:
        """Collect an answer, whose length has to stand in its head."""
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end or self.waiting is None or self.waiting.done():
            return
        length = next((int(line[15:]) for line in head.split(b"\r\n")
                       if line[:15].lower() == b"content-length:"), None)
        if length is None:
            self.waiting.set_exception(ConnectionError(f"no Content-Length in {head!r}"))
        elif len(body) >= length:
            self.waiting.set_result(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what waits."""
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(ConnectionError("closed"))


class Load:
    """The requests of one job."""

    def __init__(self, job: Job):
        self.job = job
        parts = urlsplit(job.url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        choose = random.Random(job.seed)
        self.due: list[float] = []  # seconds from the start on
        now = choose.expovariate(job.rate)
        while now < job.seconds:
            self.due.append(now)
            now += choose.expovariate(job.rate)
        self.requests = [self._request(parts.path, choose.choice(job.bodies)) for _ in self.due]
        self.idle: list[Connection] = []
        self.open = self.refused = self.over = 0
        self.latency_ms: list[float] = []
        self.late_ms: list[float] = []

    def _request(self, path: str, body: str) -> bytes:
        content = body.encode()
        return (f"POST {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAccept: */*\r\n"
                "Content-Type: application/json\r\n"
                f"Content-Length: {len(content)}\r\n\r\n").encode() + content

    async def run(self) -> Point:
        """Send all of it, or until more is too late than may be."""
        start, tasks = time.monotonic(), set()
        given = self.job.most_over
        allowed = len(self.due) // 100 if given is None else given
        for due, request in zip(self.due, self.requests, strict=True):
            if (pause := start + due - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            if self.over > allowed:
                break
            task = asyncio.create_task(self._ask(start + due, request))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        stopped = self.over > allowed
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=0.1 if stopped else GRACE_S)
            for task in left:
                task.cancel()
        for connection in self.idle:
            assert connection.transport is not None
            connection.transport.close()
        return self._point(stopped)

    async def _ask(self, due: float, request: bytes) -> None:
        self.late_ms.append(1000 * (time.monotonic() - due))
        timer = asyncio.get_running_loop().call_at(due + self.job.limit_ms / 1000, self._count)
        try:
            status = await self._send(request)
        except OSError:
            status = 0
        latency = 1000 * (time.monotonic() - due)
        if status == 200:
            self.latency_ms.append(latency)
        else:
            self.refused += 1
        if latency <= self.job.limit_ms:
            timer.cancel()
            self.over += status != 200

    def _count(self) -> None:
        self.over += 1

    async def _send(self, request: bytes) -> int:
        connection = await self._connection()
        if connection is None:
            return 0
        try:
            status = await connection.ask(request)
        except OSError:
            self.open -= 1
            raise
        self.idle.append(connection)
        return status

    async def _connection(self) -> Connection | None:
        """Give the connection used last, or a new one; None if there are too many."""
        while self.idle:
            connection = self.idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
            self.open -= 1  # the server ends those that are idle for some seconds
        if self.open >= MOST_CONNECTIONS:
            return None
        self.open += 1
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                Connection, self.host, self.port)
        except OSError:
            self.open -= 1
            raise
        return connection

    def _point(self, stopped: bool) -> Point:
        return Point(self.job.rate, len(self.due), self.refused, self.over,
                     quantile(sorted(self.late_ms), 0.99), stopped,
                     [round(ms, 3) for ms in sorted(self.latency_ms)])


def quantile(values: Sequence[float], share: float) -> float:
    """Give the smallest of sorted values that `share` of them do not exceed."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else math.inf


def measure(job: Job) -> Point:
    """Send one job's requests from this process."""
    if job.core is not None:
        os.sched_setaffinity(0, {job.core})
    # select() takes microseconds; epoll, as asyncio calls it, whole milliseconds.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(
            selectors.SelectSelector())) as runner:
        return runner.run(Load(job).run())


def main() -> None:
    """Read a job, answer with its point."""
    given: dict[str, Any] = json.load(sys.stdin)
    print(json.dumps(asdict(measure(Job(**given)))))


if __name__ == "__main__":
    main()
