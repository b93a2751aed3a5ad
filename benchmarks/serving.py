"""Requests a second that servers answer in time, on one core: writes benchmarks/serving.md.

    python -m benchmarks.serving --data DIR --work WORK [--artifact ARTIFACT] [--seconds 60]
        --peer transformers=PYTHON --peer optimum=PYTHON --peer litserve=PYTHON

Each PYTHON has benchmarks/peers/serving_NAME.txt. All sides serve one checkpoint: minilm, trained
on SST-2, or an ARTIFACT with the formats tflite,onnx,safetensors. The server has one core to itself
and the generator another. What is done stands in benchmarks/serving.json, for each kind of CPU;
delete a side's lines there to measure it anew.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks import platforms, rates, servers, shared
from benchmarks.open_loop import Job, Point
from benchmarks.rates import LIMIT_MS, STEPS, TRIES, TURN_S, Turn
from benchmarks.servers import Server
from benchmarks.shared import HERE
from export.pipeline import cpu
from tf_pipeline import command
from tf_pipeline.artifact import Manifest
from tf_pipeline.errors import UserError
from tf_pipeline.predictor import Predictor
from tf_pipeline.runner import shapes_of
from tf_pipeline.runtimes import onnx
from tf_pipeline.text import batches

RESULTS = HERE / "serving.json"
LENGTHS = "16,24,32,48,64"  # of the TFLite files
AGREED = 100  # sentences whose labels are compared
SHARED = 40  # calls of a model without its server, after each of the server's turns


@dataclass(frozen=True)
class Side:
    """A server to measure."""

    name: str
    about: str
    peer: str = ""  # whose PYTHON runs it
    runtime: str = ""
    variant: str = ""
    length: int | None = None  # of a TFLite file; None: each text goes to the shortest that fits

    def words(self, places: "Places", port: int) -> list[str]:
        """Write the command that starts it."""
        if not self.peer:
            return [sys.executable, "-m", "serving", str(places.artifact), "--runtime",
                    self.runtime, "--variant", self.variant, "--threads", "1", "--port", str(port),
                    *(["--length", str(self.length)] if self.length else [])]
        folder = places.optimum / "weights" if self.peer == "transformers" else places.optimum
        return [places.pythons[self.peer], str(HERE / f"peers/serving_{self.peer}.py"),
                str(folder), str(port), str(Manifest.load(places.artifact).max_len)]

    def path(self, places: "Places") -> str:
        """Give the route that answers {"text": ...} with a label."""
        name = Manifest.load(places.artifact).name
        return "/predict" if self.peer else f"/v1/models/{name}:answer"


SIDES = (
    Side("onnx int8", "this kit, ONNX int8", runtime="onnx", variant="int8"),
    Side("onnx float32", "this kit, ONNX float32", runtime="onnx", variant="float32"),
    Side("tflite int8", "this kit, TFLite int8, length 64", runtime="tflite", variant="int8",
         length=64),
    Side("tflite lengths", f"this kit, TFLite int8, lengths {LENGTHS}", runtime="tflite",
         variant="int8"),
    Side("transformers", "transformers' pipeline behind FastAPI, float32", peer="transformers"),
    Side("optimum", "optimum's int8 ONNX file behind FastAPI", peer="optimum"),
    Side("litserve", "LitServe with batching, optimum's int8 file", peer="litserve"),
)


@dataclass(frozen=True)
class Places:
    """Where things are, and who has which core."""

    artifact: Path
    optimum: Path
    pythons: dict[str, str]
    server_core: int
    client_core: int


def send(job: Job) -> Point:
    """Let a process of its own send a job's requests."""
    words = [sys.executable, "-m", "benchmarks.open_loop"]
    return Point(**json.loads(shared.call(words, json.dumps(asdict(job)))))


class Bench:
    """Servers on one core that take turns; all but the one whose turn it is stand still."""

    def __init__(self, places: Places, sentences: Sequence[str], flags: argparse.Namespace):
        self.places, self.sentences, self.flags = places, sentences, flags
        self._bodies = [json.dumps({"text": text}) for text in sentences]
        self._servers: dict[str, Server] = {}
        self._models: dict[str, Model] = {}
        self._cpu_ms: dict[str, list[float]] = {}  # of each turn, a request

    def measure(self, sides: Sequence[Side]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give the rows of sides, as they are done: starts, memory, labels, load."""
        with ExitStack() as stack:
            rows = {side.name: self._start(side, stack) for side in sides}
            found = rates.in_turn({side.name: rates.search(self.flags.seconds) for side in sides},
                                  self._ask)
            for name, points in found:
                row, model = rows[name], self._models.get(name)
                row["resident_mib"].append(servers.resident_mib(self._servers[name].process.pid))
                yield name, {**row, "points": [shown(point) for point in points],
                             "cpu_ms": _mean(self._cpu_ms[name]),
                             "model_ms": _mean(model.times_ms) if model else None}

    def _start(self, side: Side, stack: ExitStack) -> dict[str, Any]:
        """Start a side's server some times; the last one stays, and stands still."""
        log = self.flags.work / f"serving-{side.name.replace(' ', '-')}.log"
        start = partial(servers.started, partial(side.words, self.places), side.path(self.places),
                        self.places.server_core, log)
        others, starts = servers.busy_cores(), []
        for _ in range(self.flags.starts - 1):
            with start() as server:
                starts.append(server.cold_start_s)
        server = self._servers[side.name] = stack.enter_context(start())
        starts.append(server.cold_start_s)
        fresh = servers.resident_mib(server.process.pid)
        labels = [servers.ask(server.url, text) for text in self.sentences[:AGREED]]
        server.stand_still()
        self._cpu_ms[side.name] = []
        if side.peer != "transformers":  # PyTorch is not in this environment
            self._models[side.name] = Model(side, self.places, self.sentences)
        served = Manifest.load(self.places.artifact)
        score = served.metrics.get(served.metric)  # none where there were no labels
        model = served.run["backbone"] + (f" with {served.metric} {score:.4f}" if score else "")
        return {"model": model, "cold_start_s": [round(s, 3) for s in starts],
                "resident_mib": [fresh], "busy_cores_before": round(others, 2), "labels": labels}

    def _ask(self, name: str, turn: Turn) -> Point:
        server = self._servers[name]
        job = Job(server.url, self._bodies, turn.rate, turn.seconds, LIMIT_MS, turn.number,
                  self.places.client_core, turn.most_over)
        with server.running():
            before = servers.cpu_s(server.process.pid)
            point = send(job)
            used = servers.cpu_s(server.process.pid) - before
        if not point.stopped and point.answered:
            self._cpu_ms[name].append(1000 * used / point.answered)
        if name in self._models:
            self._models[name].ask(SHARED)
        print(f"{name}: {turn.rate:.0f}/s for {turn.seconds:g} s: p50 {point.p50:.1f}, p99 "
              f"{point.p99:.1f} ms{', stopped' if point.stopped else ''}", flush=True)
        return point


class Model:
    """A side's file without its server: one sentence a call, on the server's core."""

    def __init__(self, side: Side, places: Places, sentences: Sequence[str]):
        predictor = Predictor(places.artifact, side.runtime or "onnx", side.variant or "int8",
                              side.length, threads=1)
        assert predictor.graph is not None
        self._core = places.server_core
        self._run = (onnx.load(places.optimum / platforms.PEER_FILES["int8"], 1) if side.peer
                     else predictor.run)
        shapes = shapes_of(predictor.graph)
        self._inputs = cycle([next(batches(predictor.encode([{"text": text}]), shapes))[1]
                              for text in sentences])
        self.times_ms: list[float] = []

    def ask(self, count: int) -> None:
        """Time it on the next sentences."""
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self._core})
        try:
            for inputs in islice(self._inputs, count):
                start = time.perf_counter()
                self._run(inputs)
                self.times_ms.append(1000 * (time.perf_counter() - start))
        finally:
            os.sched_setaffinity(0, own)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def shown(point: Point) -> dict[str, Any]:
    """Write a point for serving.json."""
    values = {**asdict(point), "answered": point.answered, "p50": point.p50, "p99": point.p99}
    del values["latency_ms"]
    return {key: None if value == math.inf else value for key, value in values.items()}


def prepared(flags: argparse.Namespace, pythons: dict[str, str]) -> Places:
    """Train and export what is not there yet."""
    flags.work.mkdir(parents=True, exist_ok=True)
    artifact = flags.artifact or flags.work / "serving-minilm"
    if not flags.artifact and not artifact.exists():
        # To the end: of a model that wavers, int8 files need slower weights.
        run = platforms.train(flags.data, flags.work / "sst2", flags.backbone)
        shared.call([sys.executable, "-m", "export", "convert", str(run), "--out", str(artifact),
                     "--formats", "tflite,onnx,safetensors", "--lengths", LENGTHS])
    try:
        Manifest.load(artifact)
    except UserError as error:
        raise SystemExit(f"error: --artifact: {error}") from None
    optimum = flags.work / "serving-optimum"
    if "optimum" in pythons:
        if not (artifact / "model.safetensors").exists():
            raise SystemExit(f"error: --artifact {artifact} lacks model.safetensors, from which "
                             "the peers start. Convert it with --formats "
                             "tflite,onnx,safetensors.")
        platforms.export_peer(artifact, optimum, pythons["optimum"])
    return Places(artifact, optimum, pythons, *flags.cores)


def page(rows: Sequence[dict[str, Any]], sentences: Sequence[str]) -> str:
    """Lay the rows out, a table for each kind of CPU."""
    words = sorted(len(text.split()) for text in sentences)
    lines = ["# Serving on one core", "",
             "Written by `python -m benchmarks.serving`; all points are in serving.json. BERT "
             f"answers the {len(sentences)} sentences of SST-2's dev set, of "
             f"{words[0]} to {words[-1]} words (median {words[len(words) // 2]}), a sentence a "
             "request. The server has one core and the generator another. Requests arrive by a "
             "Poisson clock whether or not the ones before were answered, and latency counts from "
             f"the planned arrival. requests/s: the highest rate at which 99 % are answered within "
             f"{LIMIT_MS:g} ms; rates are {STEPS - 1:.0%} apart, and one that is missed is tried "
             f"{TRIES} times. The servers take turns of {TURN_S:g} s. CPU: the server's processor "
             "time a request, of all turns. Model: its call alone on that core, a sentence at a "
             "time, between the turns. Share: of CPU, what the model needs. Start: process to "
             "first answer, files in the page cache, median. Memory: shared pages counted once."]
    for kind in dict.fromkeys(row["cpu"] for row in rows):
        here = [row for row in rows if row["cpu"] == kind]
        models = " and ".join(dict.fromkeys(row["model"] for row in here))
        lines += ["", f"## On a CPU with {kind}", f"Model: {models}.", "",
                  *_table({row["side"]: row for row in here})]
    return "\n".join(lines) + "\n"


def _table(done: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Write the sides of one CPU, and what they come to."""
    yield ("| server | requests/s | p50 ms | p99 ms | CPU ms | model ms | share | s a point | "
           "start s | MiB started | MiB after | labels as ours in float32 | others busy, cores |")
    yield f"|{' --- |' * 13}"
    reference = done.get("onnx float32", {}).get("labels")
    yield from (_line(side, done[side.name], reference) for side in SIDES if side.name in done)
    ours, theirs = (max((done[s.name]["points"][-1]["rate"] for s in SIDES if s.name in done
                         and bool(s.peer) == peer and s.name != "transformers"), default=0)
                    for peer in (False, True))
    if ours and theirs:
        yield f"\nratio: {ours / theirs:.2f} of the best int8 peer (goal 2)"
        row = done.get("onnx int8", {})
        if row.get("cpu_ms"):
            yield ("\nWith no work around the model at all, ours would answer "
                   f"{row['cpu_ms'] / row['model_ms']:.2f} times as much.")
    yield "\nMeasured: " + ", ".join(f"{name} at commit {row['commit']} on {row['date']}"
                                     for name, row in done.items()) + "."


def _line(side: Side, row: dict[str, Any], reference: list[str] | None) -> str:
    """Write a side's line; `reference` holds the labels that it should give."""
    best = row["points"][-1]
    held = best["p99"] is not None and best["p99"] <= LIMIT_MS and not best["stopped"]
    figures = ([f"{best['rate']:.0f}", f"{best['p50']:.1f}", f"{best['p99']:.1f}"] if held
               else [f"under {best['rate']:.0f}", "-", "-"])
    alone, cpu = row["model_ms"], row["cpu_ms"]
    equal = "-" if reference is None else format(statistics.fmean(
        a == b for a, b in zip(row["labels"], reference, strict=True)), ".0%")
    costs = ["-" if cpu is None else f"{cpu:.2f}", "-" if alone is None else f"{alone:.2f}",
             f"{alone / cpu:.0%}" if alone and cpu else "-"]
    cells = [side.about, *figures, *costs, f"{row['seconds']:g}",
             f"{statistics.median(row['cold_start_s']):.2f}", *map(str, row["resident_mib"]),
             equal, f"{row['busy_cores_before']:.2f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure what is missing and write the page."""
    flags, pythons = _flags()
    sentences = [line.split("\t")[0].strip() for line in
                 shared.text(flags.data / "sst2/dev.tsv").splitlines()[1:]]
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    kind = ", ".join(cpu()["features"])
    done = {row["side"] for row in rows if row["cpu"] == kind}
    missing = [side for side in SIDES if side.name not in done and side.name in flags.only
               and (not side.peer or side.peer in pythons)]
    if missing:
        places = prepared(flags, pythons)
    for name, found in Bench(places, sentences, flags).measure(missing) if missing else ():
        rows.append({"side": name, "cpu": kind, "seconds": flags.seconds,
                     "commit": shared.commit(), "date": shared.today(), **found})
        part = RESULTS.with_suffix(".part")
        part.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
        part.replace(RESULTS)
    (HERE / "serving.md").write_text(page(rows, sentences), "utf-8")
    print(f"Wrote {HERE / 'serving.md'}")


def _flags() -> tuple[argparse.Namespace, dict[str, str]]:
    parser = command.Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2/")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="folder for "
                        "what is trained and exported (default: runs/benchmarks)")
    parser.add_argument("--artifact", type=Path, help="serve this one instead of training")
    parser.add_argument("--backbone", default="minilm", help="to train (default: minilm)")
    parser.add_argument("--peer", metavar="NAME=PYTHON", action="append", default=[],
                        help="interpreter of transformers, optimum or litserve (which serves "
                        "optimum's file); without it the peer is left out")
    parser.add_argument("--seconds", type=float, default=60, help="for one point (default: 60)")
    parser.add_argument("--starts", type=int, default=3, help="starts to time (default: 3)")
    parser.add_argument("--only", default=",".join(side.name for side in SIDES),
                        help="sides, e.g. 'onnx int8,optimum' (default: all)")
    parser.add_argument("--cores", default="1,0", help="of the server and of the generator "
                        "(default: 1,0)")
    flags = parser.parse_args()
    pythons = dict(given.partition("=")[::2] for given in flags.peer)
    peers = [side.peer for side in SIDES if side.peer]
    for name, python in pythons.items():
        if name not in peers:
            parser.error(f"--peer names {name!r}; allowed: {', '.join(peers)}, e.g. "
                         f"{peers[0]}=PYTHON")
        shared.interpreter(python)
    if pythons and "optimum" not in pythons:
        parser.error(f"--peer names {', '.join(pythons)} without optimum, whose export they serve")
    flags.only = flags.only.split(",")
    if unknown := set(flags.only) - {side.name for side in SIDES}:
        parser.error(f"--only names {min(unknown)!r}; allowed: "
                     f"{', '.join(side.name for side in SIDES)}")
    own = sorted(os.sched_getaffinity(0))
    flags.cores = [int(core) if core.isdigit() else -1 for core in flags.cores.split(",")]
    if len(flags.cores) != 2 or not set(flags.cores) <= set(own):
        parser.error(f"--cores names {','.join(map(str, flags.cores))}; allowed are two of "
                     f"{', '.join(map(str, own))}")
    if flags.seconds <= 0 or flags.starts < 1:
        parser.error(f"--seconds is {flags.seconds:g} and --starts {flags.starts}; both must be "
                     "over 0")
    return flags, pythons


if __name__ == "__main__":
    main()
