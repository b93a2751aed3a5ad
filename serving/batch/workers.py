"""Processes that answer chunks of rows; one that dies is replaced and its chunk answered again."""

import json
import logging
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from tf_pipeline.errors import UserError
from tf_pipeline.sources import Row

from .answerer import BatchAnswerer
from .parts import write_part

log = logging.getLogger(__name__)

MOST_DEATHS = 3  # of processes at one chunk: then it is not chance


class Chunk(NamedTuple):
    """Rows that are answered together."""

    number: int
    rows: list[Row]


class Done(NamedTuple):
    """What came of a chunk; `end` is the byte of the file where it ends."""

    rows: int
    errors: int
    end: int


@dataclass
class _Worker:
    process: Any
    connection: Connection
    chunk: Chunk | None = None


class Workers:
    """Up to `count` processes that write their answers into `folder`."""

    def __init__(self, answerer: BatchAnswerer, folder: Path, count: int):
        self._answerer, self._folder, self._count = answerer, folder, count
        # Not forked: libraries that were loaded before would lose their threads.
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._returned: deque[Chunk] = deque()  # of processes that died
        self._deaths: Counter[int] = Counter()

    def answer(self, chunks: Iterator[Chunk]) -> Generator[Done, None, None]:
        """Hand chunks out in their order, one to a process; gives what came of each when it is.

        One more than that is held in memory. The processes end with the loop, however it ends.
        """
        try:
            ahead = next(chunks, None)
            while True:
                while (ahead or self._returned) and (worker := self._idle()):
                    chunk = self._returned.popleft() if self._returned else ahead
                    assert chunk is not None
                    if chunk is ahead:
                        ahead = None
                    self._give(worker, chunk)
                    ahead = ahead or next(chunks, None)
                busy = [worker for worker in self._workers if worker.chunk is not None]
                if not busy and not self._returned:
                    return
                ready = wait([worker.connection for worker in busy]) if busy else ()
                for worker in [worker for worker in busy if worker.connection in ready]:
                    yield from self._take(worker)
        finally:
            for worker in self._workers:
                worker.process.kill()
            for worker in self._workers:
                worker.process.join()
                worker.connection.close()

    def _idle(self) -> _Worker | None:
        for worker in self._workers:
            if worker.chunk is None:
                return worker
        return self._start() if len(self._workers) < self._count else None

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._answerer, self._folder),
                                        daemon=True)
        process.start()
        theirs.close()  # else the pipe would outlive the process
        self._workers.append(_Worker(process, ours))
        return self._workers[-1]

    def _give(self, worker: _Worker, chunk: Chunk) -> None:
        worker.chunk = chunk
        try:
            worker.connection.send(chunk)
        except OSError:
            self._bury(worker)

    def _take(self, worker: _Worker) -> Iterator[Done]:
        assert worker.chunk is not None
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if kind == "missing":
            raise ModuleNotFoundError(f"No module named {content!r}", name=content)
        if kind == "refused":
            raise UserError(content)
        rows, worker.chunk = worker.chunk.rows, None
        yield Done(len(rows), content, rows[-1].end)

    def _bury(self, worker: _Worker) -> None:
        """Take a dead process's chunk back; UserError where the chunk seems to be the cause."""
        assert worker.chunk is not None
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)
        code, chunk = worker.process.exitcode, worker.chunk
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        where = f"rows {chunk.rows[0].number} to {chunk.rows[-1].number}"
        self._deaths[chunk.number] += 1
        if self._deaths[chunk.number] == MOST_DEATHS:
            raise UserError(f"{MOST_DEATHS} processes, one after the other, ended by {how} over "
                            f"{where}. If memory is short, give fewer --processes; else look at "
                            "these rows.")
        log.warning("A process ended by %s over %s. Another answers them.", how, where)
        self._returned.append(chunk)


def _work(connection: Connection, answerer: BatchAnswerer, folder: Path) -> None:
    """Answer chunks until the connection ends; what a user can mend is told through it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent sees to the end
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a thread each
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        while True:
            chunk = connection.recv()
            answers, errors = answer_chunk(answerer, chunk.rows)
            write_part(folder, chunk.number, b"".join(answers), b"".join(errors))
            connection.send(("done", len(errors)))
    except UserError as error:
        connection.send(("refused", str(error)))
    except ModuleNotFoundError as error:
        connection.send(("missing", error.name))
    except (EOFError, ConnectionError):  # the parent is gone, or needs no more
        return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def answer_chunk(answerer: BatchAnswerer, rows: list[Row]) -> tuple[list[bytes], list[bytes]]:
    """Give the lines of the answers and those of the errors, each in the order of the rows."""
    outcomes = iter(answerer([row.record for row in rows if not row.fault]))
    answers: list[bytes] = []
    errors: list[bytes] = []
    for row in rows:
        outcome = {"error": row.fault} if row.fault else next(outcomes)
        kept = {"columns": row.kept} if row.kept else {}
        try:
            line = _line({"row": row.number, **kept, **outcome})
        except ValueError as error:  # NaN, which JSON files may hold and JSON may not
            outcome = {"error": f"{', '.join(row.kept)} cannot be kept: {error}."}
            line = _line({"row": row.number, **outcome})
        (errors if "error" in outcome else answers).append(line)
    return answers, errors


def _line(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    # Half of a surrogate pair is no UTF-8; JSON can escape it just as `backslashreplace` does.
    return text.encode("utf-8", "backslashreplace") + b"\n"
