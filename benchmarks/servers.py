"""A server under measurement: started on a core of its own, asked, weighed, ended."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import shared

LONGEST_START_S = 120


@dataclass(frozen=True)
class Server:
    """A running one."""

    process: subprocess.Popen[bytes]
    url: str
    cold_start_s: float  # until it gave its first answer

    def stand_still(self) -> None:
        """Take the processor away from it and those below it, until it is `running`."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let it run while the block lasts."""
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            self.stand_still()


def ask(url: str, text: str) -> str:
    """Give the label of one text; OSError if there is no good answer."""
    request = urllib.request.Request(url, json.dumps({"text": text}).encode(),
                                     {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        found = json.load(answer)
    return str(found.get("answers", [found])[0]["label"])


@contextmanager
def started(words: Callable[[int], list[str]], path: str, core: int, log: Path) -> Iterator[Server]:
    """Start what `words` gives for a free port, and end it with all its children.

    `path` answers {"text": ...}; what the server prints goes to `log`.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}{path}"
    with log.open("wb") as said:
        start = time.monotonic()
        process = subprocess.Popen(
            words(port), cwd=shared.ROOT, stdout=said, stderr=said, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    try:
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > start + LONGEST_START_S:
                raise SystemExit(f"error: {' '.join(process.args)} does not answer. {log} ends "  # type: ignore[arg-type]
                                 f"with:\n{log.read_text()[-2000:]}")
            time.sleep(0.005)
        yield Server(process, url, time.monotonic() - start)
    finally:
        with suppress(ProcessLookupError):  # all of them ended by themselves
            os.killpg(process.pid, signal.SIGKILL)  # the group that start_new_session made
        process.wait()


def _answers(url: str) -> bool:
    try:
        ask(url, "a text")
    except OSError:
        return False
    return True


def resident_mib(pid: int) -> int:
    """Give what a process and those below it hold in memory; shared pages count once."""
    total = 0
    for member in _family(pid):
        lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total // 1024


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread that has ended meanwhile
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    return found


def cpu_s(pid: int) -> float:
    """Give the processor time that a process and those below it have used, in seconds."""
    # The number that clock_getcpuclockid(3) gives for a process: threads that ended count, too.
    return sum(time.clock_gettime((~member << 3) | 2) for member in _family(pid))


def busy_cores(seconds: float = 1.0) -> float:
    """Measure how many cores are busy now."""
    before = _cpu_time()
    time.sleep(seconds)
    used, whole = (b - a for a, b in zip(before, _cpu_time(), strict=True))
    return (os.cpu_count() or 1) * used / max(1, whole)


def _cpu_time() -> tuple[int, int]:
    fields = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
    return sum(fields) - fields[3] - fields[4], sum(fields)  # less idle and waiting for the disk
