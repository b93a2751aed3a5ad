"""What the server does with more requests than it can answer: writes benchmarks/overload.md.

    python -m benchmarks.overload --data DIR --artifact ARTIFACT [--times 3] [--seconds 120]

The server has one core to itself and the generator another. How many requests it answers is
measured first, with eight under way at any time; then so many times more come by a Poisson clock,
and after them one at a time until it answers as it did before.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import servers, shared
from benchmarks.open_loop import Job, Load, quantile
from benchmarks.servers import Server
from benchmarks.serving import SIDES, Places
from benchmarks.shared import HERE
from tf_pipeline import command
from tf_pipeline.artifact import Manifest
from tf_pipeline.errors import UserError

AT_ONCE = 8
CALM_S = 5.0  # in which capacity and the usual answer are measured
RECOVERED = 2.0  # times the usual answer


class Everything(Load):
    """Sends all requests, and keeps the status and the milliseconds of each."""

    def __init__(self, job: Job):
        super().__init__(job)
        self.outcomes: list[tuple[int, float]] = []  # status (0: no answer), ms since it was sent

    async def _ask(self, due: float, request: bytes) -> None:
        sent = time.monotonic()
        self.late_ms.append(1000 * (sent - due))
        try:
            status = await self._send(request)
        except OSError:
            status = 0
        self.outcomes.append((status, 1000 * (time.monotonic() - sent)))


@contextmanager
def memory(pid: int) -> Iterator[list[int]]:
    """Weigh a process once a second while the block lasts, in MiB."""
    found, end = [servers.resident_mib(pid)], threading.Event()

    def weigh() -> None:
        while not end.wait(1):
            found.append(servers.resident_mib(pid))

    thread = threading.Thread(target=weigh)
    thread.start()
    try:
        yield found
    finally:
        end.set()
        thread.join()
        found.append(servers.resident_mib(pid))


def capacity(server: Server, sentences: Sequence[str]) -> float:
    """Give the answers a second with AT_ONCE requests under way."""
    end = time.monotonic() + CALM_S

    def keep_asking(seed: int) -> int:
        choose, count = random.Random(seed), 0
        while time.monotonic() < end:
            servers.ask(server.url, choose.choice(sentences))
            count += 1
        return count

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(keep_asking, range(AT_ONCE))) / CALM_S


def alone_ms(server: Server, text: str) -> float:
    """Time one request while nothing else is asked."""
    start = time.monotonic()
    servers.ask(server.url, text)
    return 1000 * (time.monotonic() - start)


def recovery_s(server: Server, sentences: Sequence[str], usual_ms: float) -> float:
    """Wait until a request is answered about as soon as it usually is."""
    start = time.monotonic()
    for text in sentences:
        began = time.monotonic()
        try:
            if alone_ms(server, text) <= RECOVERED * usual_ms:
                return began - start
        except OSError:  # refused: still full
            time.sleep(0.05)
    return time.monotonic() - start


def measured(server: Server, sentences: Sequence[str], flags: argparse.Namespace) -> list[str]:
    """Load the server and give the table's lines."""
    usual = [alone_ms(server, text) for text in sentences[:100]]
    able = capacity(server, sentences)
    job = Job(server.url, [json.dumps({"text": text}) for text in sentences], flags.times * able,
              flags.seconds, flags.timeout_ms)
    load = Everything(job)
    with memory(server.process.pid) as mib, asyncio.Runner() as runner:
        runner.run(load.run())
    back = recovery_s(server, sentences, statistics.quantiles(usual, n=20)[-1])
    by_status = {status: sorted(ms for found, ms in load.outcomes if found == status)
                 for status in sorted({found for found, _ in load.outcomes})}
    print({status: len(ms) for status, ms in by_status.items()}, flush=True)
    answered, refused = by_status.get(200, []), by_status.get(429, [])
    others = {status: len(ms) for status, ms in by_status.items() if status not in (200, 429)}
    rows = {
        "alone: ms, median and 95 %": f"{statistics.median(usual):.1f}, "
                                      f"{statistics.quantiles(usual, n=20)[-1]:.1f}",
        f"answers/s with {AT_ONCE} under way": f"{able:.0f}",
        "requests/s sent": f"{len(load.due) / flags.seconds:.0f}",
        "answered/s": f"{len(answered) / flags.seconds:.0f}",
        "answered: ms, p50 and p99": f"{quantile(answered, .5):.0f}, {quantile(answered, .99):.0f}",
        "refused with 429": f"{len(refused) / max(1, len(load.outcomes)):.0%}",
        "refused: ms, p50 and p99": f"{quantile(refused, .5):.1f}, {quantile(refused, .99):.1f}",
        "other outcomes": ", ".join(f"{n} x {status or 'no answer'}"
                                    for status, n in others.items()) or "none",
        "MiB before, after 10 s, most, at the end": ", ".join(map(str, (
            mib[0], mib[min(10, len(mib) - 1)], max(mib), mib[-1]))),
        "after the last answer as before again in, s": f"{back:.2f}"}
    return [f"| {name} | {value} |" for name, value in rows.items()]


def main() -> None:
    """Measure and write the page."""
    parser = command.Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2/")
    parser.add_argument("--artifact", type=Path, required=True, help="with ONNX int8, of SST-2")
    parser.add_argument("--times", type=float, default=3, help="of what it can answer (default: 3)")
    parser.add_argument("--seconds", type=float, default=120, help="of overload (default: 120)")
    parser.add_argument("--timeout-ms", type=int, default=1000, help="deadline (default: 1000)")
    flags = parser.parse_args()
    for name in ("times", "seconds", "timeout_ms"):
        if not getattr(flags, name) > 0:
            parser.error(f"--{name.replace('_', '-')} is {getattr(flags, name):g}; it must be over "
                         "0")
    sentences = [line.split("\t")[0].strip() for line in
                 shared.text(flags.data / "sst2/dev.tsv").splitlines()[1:]]
    cores = sorted(os.sched_getaffinity(0))
    try:
        backbone = Manifest.load(flags.artifact).run["backbone"]
    except UserError as error:
        raise SystemExit(f"error: --artifact: {error}") from None
    places = Places(flags.artifact, flags.artifact, {}, cores[-1], cores[0])
    words = partial(SIDES[0].words, places)
    os.sched_setaffinity(0, {places.client_core})
    with TemporaryDirectory() as folder, servers.started(
            lambda port: [*words(port), "--timeout-ms", str(flags.timeout_ms)],
            SIDES[0].path(places), places.server_core, Path(folder) / "log") as server:
        rows = measured(server, sentences, flags)
    (HERE / "overload.md").write_text("\n".join([
        "# Overload", "",
        f"Written by `python -m benchmarks.overload`: {backbone} (ONNX int8, one core, one thread, "
        f"deadline {flags.timeout_ms} ms) is sent {flags.times:g} times what it can answer for "
        f"{flags.seconds:g} s, a sentence of SST-2 a request, by a Poisson clock on another core.",
        "", "| | |", "| --- | --- |", *rows, "",
        f"Commit {shared.commit()}, {shared.today()}.", ""]), "utf-8")
    print(f"Wrote {HERE / 'overload.md'}")


if __name__ == "__main__":
    main()
