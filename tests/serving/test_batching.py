"""Requests that wait: which go together, which are refused, late or gone."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx2
import pytest

from serving.batching import Batcher, Work
from serving.errors import Busy, Late
from serving.graphs import LoadedGraph, ignore
from serving.options import Queueing
from serving.server import create_app
from tf_pipeline.predictor import Predictor

TEXTS = [f"the kitchen was {word}" for word in ("lovely", "awful", "small", "ours")] * 10
LONG = "the night bus was awful and " * 20


class Gate:
    """Acts on numbers when it is opened, and keeps what went together."""

    def __init__(self) -> None:
        self.open, self.groups = threading.Event(), []

    def double(self, asked: list[int]) -> list[int]:
        assert self.open.wait(20)
        self.groups.append(list(asked))
        if 13 in asked:
            raise ValueError("13")
        return [2 * number for number in asked]

    def work(self, number: int, like: Any = 0, texts: int = 1, deadline_s: float = 20) -> Work:
        return Work(self.double, number, texts, like, time.monotonic() + deadline_s)


@pytest.fixture
def gate() -> Iterator[Gate]:
    found = Gate()
    yield found
    found.open.set()


def waiting(batcher: Batcher, gate: Gate,
            act: Callable[[asyncio.Task], Awaitable[Any]]) -> Any:
    """Occupy the thread with the number 0, and do something meanwhile."""
    async def run() -> Any:
        first = asyncio.create_task(batcher.ask(gate.work(0)))
        await asyncio.sleep(0.02)
        return await act(first)

    return asyncio.run(run())


def test_what_is_alike_goes_together_and_the_oldest_first(gate):
    batcher = Batcher(Queueing(), 4, ignore)

    async def ask(first: asyncio.Task) -> Any:
        likes = "ababab"
        tasks = [asyncio.create_task(batcher.ask(gate.work(i + 1, like)))
                 for i, like in enumerate(likes)]
        tasks.append(asyncio.create_task(batcher.ask(gate.work(7, "a", texts=3))))
        await asyncio.sleep(0.02)
        assert batcher.waiting == 9
        gate.open.set()
        return await asyncio.gather(first, *tasks)

    assert waiting(batcher, gate, ask) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert gate.groups == [[0], [1, 3, 5], [2, 4, 6], [7]]
    assert batcher.waiting == 0


def test_a_request_fails_by_its_own_fault_only(gate):
    batcher = Batcher(Queueing(), 8, ignore)

    async def ask(first: asyncio.Task) -> Any:
        tasks = [asyncio.create_task(batcher.ask(gate.work(n))) for n in (12, 13, 14)]
        await asyncio.sleep(0.02)
        gate.open.set()
        return await asyncio.gather(first, *tasks, return_exceptions=True)

    first, before, wrong, behind = waiting(batcher, gate, ask)
    assert (first, before, behind) == (0, 24, 28)
    assert isinstance(wrong, ValueError)
    assert gate.groups == [[0], [12, 13, 14], [12], [13], [14]]


def test_a_full_queue_refuses_and_what_is_cancelled_makes_room(gate):
    batcher = Batcher(Queueing(queue_size=3), 8, ignore)

    async def ask(first: asyncio.Task) -> None:
        waits = asyncio.create_task(batcher.ask(gate.work(1, texts=2)))
        await asyncio.sleep(0.02)
        with pytest.raises(Busy, match=r"2 texts wait, and the request brings 2; allowed are 3"
                                       r".*--queue-size") as refused:
            await batcher.ask(gate.work(2, texts=2))
        assert refused.value.retry_after_s >= 1
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert batcher.waiting == 0
        behind = asyncio.create_task(batcher.ask(gate.work(3, texts=2)))
        await asyncio.sleep(0.02)
        gate.open.set()
        assert await behind == 6
        assert await first == 0

    waiting(batcher, gate, ask)
    assert gate.groups == [[0], [3]]


def test_the_deadline(gate):
    batcher = Batcher(Queueing(), 8, ignore)

    async def ask(first: asyncio.Task) -> None:
        with pytest.raises(Late, match=r"The deadline passed after 0\.0\d+ s\. Allow"):
            await batcher.ask(gate.work(1, deadline_s=0.05))
        assert batcher.waiting == 0
        gate.open.set()
        assert await first == 0

    waiting(batcher, gate, ask)
    assert gate.groups == [[0]]


def test_what_would_be_late_is_refused_at_once(gate):
    """A text took .2 s, so behind five others .5 s are not enough."""
    batcher = Batcher(Queueing(), 1, ignore)

    async def ask(first: asyncio.Task) -> None:
        await asyncio.sleep(0.2)
        gate.open.set()
        await first
        gate.open.clear()
        tasks = [asyncio.create_task(batcher.ask(gate.work(n, deadline_s=60))) for n in range(6)]
        await asyncio.sleep(0.02)
        start = time.monotonic()
        with pytest.raises(Busy, match=r"5 texts wait, which takes about 1\.\d+ s, and the "
                                       r"request's deadline is in 0\.[45]\d s\. Ask again in 2 s"):
            await batcher.ask(gate.work(7, deadline_s=0.5))
        assert time.monotonic() - start < 0.4
        gate.open.set()
        await asyncio.gather(*tasks)

    waiting(batcher, gate, ask)


@pytest.mark.parametrize(("variant", "calls"), [("float32", range(1, 20)), ("int8", [40])])
def test_requests_share_calls_of_files_that_take_several_texts(artifact, variant, calls):
    """An int8 file's answer would depend on the texts beside it, so it takes one at a time."""
    predictor, stages = Predictor(artifact, "onnx", variant), Counter()
    loaded = LoadedGraph(predictor, Queueing(batch_size=16),
                         lambda stage, _: stages.update([stage]))

    async def ask() -> list[Any]:
        deadline = time.monotonic() + 60
        return await asyncio.gather(*(loaded.answer([[text]], deadline) for text in TEXTS))

    found = [answers[0] for answers, _ in asyncio.run(ask())]
    alone = [predictor([text])[0] for text in TEXTS]
    assert [a["label"] for a in found] == [a["label"] for a in alone]
    assert [a["score"] for a in found] == pytest.approx([a["score"] for a in alone], abs=1e-6)
    assert stages["infer"] == stages["tokenize"] == stages["decode"]
    assert stages["infer"] in calls
    assert stages["queue"] == 40


def test_outputs_of_requests_that_shared_a_call(toy_artifact, base):
    """Rows of tokens are as many as a request's own longest text has, whatever ran beside it."""
    app = create_app(Predictor(toy_artifact("tag"), "onnx", "float32"))
    bodies = [{"instances": [text]} for text in ("Zoe left Jena .", "Zoe left !", LONG)] * 5
    path = "/v1/models/tag:predict"

    async def ask() -> tuple[list[Any], list[Any]]:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            one_by_one = [(await client.post(path, json=body)).json() for body in bodies[:3]]
            together = await asyncio.gather(*(client.post(path, json=body) for body in bodies))
            return one_by_one, [answer.json() for answer in together]

    alone, shared = asyncio.run(ask())
    for i, answer in enumerate(shared):
        wanted = alone[i % 3]["predictions"][0]
        assert len(answer["predictions"][0]) == len(wanted)
        for row, expected in zip(answer["predictions"][0], wanted, strict=True):
            assert row == pytest.approx(expected, abs=1e-4)


def test_statuses_over_http(predictor, base, monkeypatch):
    go_on, real = threading.Event(), predictor.outputs

    def slow(encoded: Any) -> Any:
        assert go_on.wait(20)
        return real(encoded)

    monkeypatch.setattr(predictor, "outputs", slow)
    app = create_app(predictor, queueing=Queueing(queue_size=2, batch_size=1))

    async def ask() -> None:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            def post(texts: int, **headers: str) -> Awaitable[Any]:
                return client.post(f"{base}:answer", json={"texts": ["a"] * texts},
                                   headers=headers)

            first, second = asyncio.create_task(post(1)), asyncio.create_task(post(2))
            await asyncio.sleep(0.05)
            busy = await post(1)
            assert (busy.status_code, busy.headers["retry-after"]) == (429, "1")
            assert "2 texts wait" in busy.json()["error"]
            second.cancel()
            await asyncio.sleep(0.05)
            late = await post(1, **{"X-Request-Timeout-Ms": "50"})
            assert late.status_code == 504
            assert "deadline passed" in late.json()["error"]
            for value in ("0", "-1", "soon", "1.5", ""):
                wrong = await post(1, **{"X-Request-Timeout-Ms": value})
                assert wrong.status_code == 400
                assert f"x-request-timeout-ms is {value!r}" in wrong.json()["error"]
            go_on.set()
            assert (await first).status_code == 200

    asyncio.run(ask())


def test_a_client_that_hangs_up_leaves_the_queue(predictor, base, monkeypatch):
    go_on, asked, real = threading.Event(), [], predictor.outputs

    def slow(encoded: Any) -> Any:
        asked.append(len(encoded))
        assert go_on.wait(20)
        return real(encoded)

    monkeypatch.setattr(predictor, "outputs", slow)
    app = create_app(predictor)

    async def post(hang_up: asyncio.Event) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        body = [{"type": "http.request", "body": b'{"text": "a"}', "more_body": False}]

        async def receive() -> dict[str, Any]:
            if body:
                return body.pop()
            await hang_up.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        path = f"{base}:answer"
        await app({"type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
                   "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http",
                   "server": ("test", 80), "root_path": ""}, receive, send)
        return sent

    async def ask() -> None:
        never, now = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(post(never))
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(post(now))
        await asyncio.sleep(0.05)
        now.set()
        assert (await gone)[0]["status"] == 499
        go_on.set()
        assert (await first)[0]["status"] == 200

    asyncio.run(ask())
    assert asked == [1]


def test_bad_settings():
    from tf_pipeline.errors import UserError

    for name, flag in (("batch_size", "batch-size"), ("queue_size", "queue-size"),
                       ("timeout_ms", "timeout-ms")):
        with pytest.raises(UserError, match=f"--{flag} is 0; it must be 1 or more"):
            Queueing(**{name: 0})
