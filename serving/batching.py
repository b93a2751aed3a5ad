"""Requests that wait for one loaded file: the oldest goes first, with what is like it.

While the file answers, further requests gather, and the next call takes them together. So a lone
request never waits for company, and under load the batches grow by themselves.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .errors import Busy, Late
from .options import Queueing

# Takes what several requests brought, and gives each one's result, in order.
Act = Callable[[list[Any]], list[Any]]
# Takes "batch" and the texts of a call, or a stage of answering and the seconds that it took.
Observe = Callable[[str, float], None]
# Weight of the newest call in the time that a text takes. With a tenth the last few texts' lengths
# decided who was refused.
_RECENT = 0.03
# Share of a request's time that waiting may be expected to take: of those that would have been
# answered just in time, a quarter came too late (benchmarks/overload.py).
_SURE = 0.7


@dataclass(frozen=True)
class Work:
    """What one request asks for."""

    act: Act
    payload: Any
    texts: int  # or rows of token ids
    like: Hashable  # only work of one kind and of about one length goes together
    deadline: float  # in time.monotonic()


@dataclass(frozen=True, eq=False)
class _Job:
    work: Work
    result: asyncio.Future  # of the event loop that asks
    since: float = field(default_factory=time.monotonic)

    def settle(self, call: Future, place: int) -> None:
        """Give the asker its part of what a call brought, or what went wrong in it."""
        loop = self.result.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._settle, call, place)

    def _settle(self, call: Future, place: int) -> None:
        if self.result.done():  # given up meanwhile
            return
        if error := call.exception():
            self.result.set_exception(error)
        else:
            self.result.set_result(call.result()[place])


class Batcher:
    """Hands work to one thread, as a loaded file answers one call at a time.

    `ask` may be awaited in any event loop, of any thread.
    """

    def __init__(self, queueing: Queueing, batch_size: int, observe: Observe):
        self._queueing, self._batch_size, self._observe = queueing, batch_size, observe
        self._jobs: deque[_Job] = deque()
        self._waiting = 0  # texts of the jobs
        self._busy = False
        self._text_s = 0.0  # seconds a text, of late
        self._calls = 0
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "answer")

    async def ask(self, work: Work) -> Any:
        """Give the work's result.

        Raises Busy where too much waits, and Late at the deadline; what is cancelled leaves the
        queue.
        """
        job = _Job(work, asyncio.get_running_loop().create_future())
        with self._lock:
            self._refuse(work)
            self._jobs.append(job)
            self._waiting += work.texts
            idle, self._busy = not self._busy, True
        if idle:
            self._next()
        try:
            async with asyncio.timeout(work.deadline - time.monotonic()):
                return await job.result
        except TimeoutError:
            raise Late(f"The deadline passed after {time.monotonic() - job.since:.3f} s. Allow the "
                       "request more time, or send fewer texts at once.") from None
        finally:
            self._forget(job)

    def close(self) -> None:
        """Let the thread end. Nothing may be asked any more."""
        self._thread.shutdown(wait=False)

    @property
    def waiting(self) -> int:
        """Texts that wait for the file."""
        return self._waiting

    def _refuse(self, work: Work) -> None:
        """Raise Busy at once for what would be too late, or more than may wait."""
        wait_s = (self._waiting + work.texts) * self._text_s
        retry_after_s = max(1, math.ceil(wait_s))
        if self._jobs and self._waiting + work.texts > self._queueing.queue_size:
            raise Busy(f"{self._waiting} texts wait, and the request brings {work.texts}; allowed "
                       f"are {self._queueing.queue_size}. Ask again in {retry_after_s} s, or raise "
                       "--queue-size of the server.", retry_after_s)
        left_s = work.deadline - time.monotonic()
        if left_s < 0 or (self._jobs and wait_s > _SURE * left_s):
            raise Busy(f"{self._waiting} texts wait, which takes about {wait_s:.2f} s, and the "
                       f"request's deadline is in {max(left_s, 0):.2f} s. Ask again in "
                       f"{retry_after_s} s.", retry_after_s)

    def _next(self) -> None:
        """Hand the next jobs to the thread; nothing where none waits."""
        with self._lock:
            jobs = self._take()
            if not jobs:
                self._busy = False
                return
        start, texts = time.monotonic(), sum(job.work.texts for job in jobs)
        self._observe("batch", texts)
        call = self._thread.submit(jobs[0].work.act, [job.work.payload for job in jobs])
        # Without the lock: the callback runs at once, here, where the call is done already.
        call.add_done_callback(partial(self._finish, jobs, texts, start))

    def _take(self) -> list[_Job]:
        """Take the oldest job out of the queue, with others like it as far as there is room."""
        taken: list[_Job] = []
        room = self._batch_size
        for job in list(self._jobs):
            if taken and (job.work.like != taken[0].work.like or job.work.texts > room):
                continue
            self._remove(job)
            if not job.result.cancelled():
                taken.append(job)
                room -= job.work.texts
                self._observe("queue", time.monotonic() - job.since)
            if taken and room < 1:
                break
        return taken

    def _remove(self, job: _Job) -> None:
        self._jobs.remove(job)
        self._waiting -= job.work.texts

    def _forget(self, job: _Job) -> None:
        """Take a job whose request is gone out of the queue."""
        if job.result.cancelled():
            with self._lock:
                if job in self._jobs:
                    self._remove(job)

    def _finish(self, jobs: list[_Job], texts: int, start: float, call: Future) -> None:
        """Give each request its result, and go on."""
        pace = (time.monotonic() - start) / texts
        self._calls += 1
        self._text_s += (pace - self._text_s) * max(_RECENT, 1 / self._calls)
        if call.exception() and len(jobs) > 1:
            for job in jobs:  # each alone, so that a request fails by its own fault only
                self._thread.submit(job.work.act, [job.work.payload]).add_done_callback(
                    partial(_deliver, [job]))
            self._thread.submit(self._next)
        else:
            _deliver(jobs, call)
            self._next()


def _deliver(jobs: list[_Job], call: Future) -> None:
    """Give each job its part of a call, or all of them what went wrong."""
    for place, job in enumerate(jobs):
        job.settle(call, place)
