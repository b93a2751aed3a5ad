"""Requests a second that servers answer in time, on one core: writes benchmarks/serving.md.

    python -m benchmarks.serving --data DIR --work WORK [--artifact ARTIFACT] [--seconds 60]
        --peer transformers=PYTHON --peer optimum=PYTHON --peer litserve=PYTHON

Each PYTHON has benchmarks/peers/serving_NAME.txt. All sides serve one checkpoint: minilm, trained
for a few steps on SST-2 (what a model has learned does not change its speed), or an ARTIFACT with
the formats tflite,onnx,safetensors. The server has one core to itself and the generator another.
What is done stands in benchmarks/serving.json; delete a side's lines there to measure it anew.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import platforms, servers, shared
from benchmarks.open_loop import Job, Point
from benchmarks.shared import HERE
from tf_pipeline import command
from tf_pipeline.artifact import Manifest
from tf_pipeline.errors import UserError
from tf_pipeline.predictor import Predictor
from tf_pipeline.runner import run_all
from tf_pipeline.runtimes import onnx

RESULTS = HERE / "serving.json"
LIMIT_MS = 50.0
STEPS = 1.05  # between two rates that are told apart
TRIES = 3  # of a rate that is missed
LOWEST, HIGHEST = 5.0, 20_000.0  # requests a second
TEXTS = 1600  # to train on: 50 steps
AGREED = 100  # sentences whose labels are compared


@dataclass(frozen=True)
class Side:
    """A server to measure."""

    name: str
    about: str
    peer: str = ""  # whose PYTHON runs it
    runtime: str = ""
    variant: str = ""

    def words(self, places: "Places", port: int) -> list[str]:
        """Write the command that starts it."""
        if not self.peer:
            return [sys.executable, "-m", "serving", str(places.artifact), "--runtime",
                    self.runtime, "--variant", self.variant, "--threads", "1", "--port", str(port)]
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
    Side("tflite int8", "this kit, TFLite int8, length 64", runtime="tflite", variant="int8"),
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


def in_time(point: Point) -> bool:
    """Whether a rate is held."""
    return not point.stopped and point.p99 <= LIMIT_MS


def search(measure: Callable[[float, bool], Point]) -> list[Point]:
    """Find the highest rate that is held; gives the whole points, that one last.

    `measure` takes a rate and whether the point is a short one. Short points double the rate
    until it is too high, then halve the interval; whole points go up or down from there. If not
    even LOWEST is held, the last point is one that is not.
    """
    def tried(rate: float, short: bool) -> Point:
        # A hiccup of the machine is not the server's: what is missed gets further chances.
        for _ in range(TRIES):
            point = measure(rate, short)
            if in_time(point):
                break
        return point

    low, high = LOWEST, LOWEST
    while high < HIGHEST and in_time(tried(high, True)):
        low, high = high, high * 2
    while high / low > STEPS ** 2:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if in_time(tried(middle, True)) else (low, middle)
    held, missed = [], []
    rate, point = low, tried(low, False)
    while in_time(point) and rate < HIGHEST:
        held.append(point)
        rate *= STEPS
        point = tried(rate, False)
    while not in_time(point) and rate > LOWEST and not held:
        missed.append(point)
        rate /= STEPS
        point = tried(rate, False)
    return [*missed, point, *held] if held and not in_time(point) else [*missed, *held, point]


def measured(side: Side, places: Places, sentences: Sequence[str],
             flags: argparse.Namespace) -> dict[str, Any]:
    """Measure one side: starts, memory, labels, load."""
    others = servers.busy_cores()
    start = partial(servers.started, partial(side.words, places), side.path(places),
                    places.server_core, flags.work / f"serving-{side.name.replace(' ', '-')}.log")
    starts = []
    for _ in range(flags.starts - 1):
        with start() as server:
            starts.append(server.cold_start_s)
    with start() as server:
        starts.append(server.cold_start_s)
        fresh = servers.resident_mib(server.process.pid)
        labels = [servers.ask(server.url, text) for text in sentences[:AGREED]]
        job = Job(server.url, [json.dumps({"text": text}) for text in sentences], 1,
                  flags.seconds, LIMIT_MS, core=places.client_core)

        def point(rate: float, short: bool) -> Point:
            seconds = min(flags.seconds, max(2.0, flags.seconds / 6)) if short else flags.seconds
            found = send(replace(job, rate=rate, seconds=seconds))
            print(f"{side.name}: {rate:.0f}/s for {seconds:g} s: p50 {found.p50:.1f}, p99 "
                  f"{found.p99:.1f} ms{', stopped' if found.stopped else ''}", flush=True)
            return found

        points = [{key: None if value == math.inf else value for key, value in asdict(p).items()}
                  for p in search(point)]
        memory = servers.resident_mib(server.process.pid)
    return {"points": points, "inference_ms": inference_ms(side, places, sentences),
            "cold_start_s": [round(s, 3) for s in starts], "resident_mib": [fresh, memory],
            "busy_cores_before": round(others, 2), "labels": labels}


def inference_ms(side: Side, places: Places, sentences: Sequence[str]) -> float | None:
    """Mean time of the model's call alone, a sentence at a time on the server's core."""
    if side.peer == "transformers":  # PyTorch is not in this environment
        return None
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {places.server_core})
    try:
        predictor = Predictor(places.artifact, side.runtime or "onnx", side.variant or "int8",
                              threads=1)
        runner = (onnx.load(places.optimum / platforms.PEER_FILES["int8"], 1) if side.peer
                  else predictor.run)
        length = predictor.graph.length if predictor.graph else None
        rows = [predictor.encode([{"text": text}]) for text in sentences]
        times = []
        for row in [*rows[:20], *rows]:
            start = time.perf_counter()
            run_all(runner, row, 1, length)
            times.append(1000 * (time.perf_counter() - start))
        return statistics.fmean(times[20:])
    finally:
        os.sched_setaffinity(0, own)


def prepared(flags: argparse.Namespace, pythons: dict[str, str]) -> Places:
    """Train and export what is not there yet."""
    flags.work.mkdir(parents=True, exist_ok=True)
    artifact = flags.artifact or flags.work / "serving-minilm"
    if not flags.artifact and not artifact.exists():
        run, rows = flags.work / "serving-run", flags.work / "serving-train.tsv"
        lines = shared.text(flags.data / "sst2/train.tsv").splitlines()
        every = max(1, (len(lines) - 1) // TEXTS)
        rows.write_text("\n".join([lines[0], *lines[1::every]]) + "\n", "utf-8")
        if not (run / "run.json").exists():
            shared.call([*shared.KIT, "train", "--task", "classify", "--train",
                         f"tsv:{rows}?text=sentence", "--backbone", flags.backbone,
                         "--max-len", "64", "--epochs", "1", "--learning-rate", "1e-4",
                         "--out", str(run), "--resume"])
        # A model of few steps wavers, and int8 changes more of its labels than may be published.
        shared.call([sys.executable, "-m", "export", "convert", str(run), "--out", str(artifact),
                     "--formats", "tflite,onnx,safetensors", "--lengths", "64", "--accept-drift"])
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


def page(done: dict[str, dict[str, Any]], sentences: Sequence[str]) -> str:
    """Lay the rows out."""
    words = sorted(len(text.split()) for text in sentences)
    lines = ["# Serving on one core", "",
             "Written by `python -m benchmarks.serving`; all points are in serving.json. MiniLM, "
             f"trained for a few steps, answers {len(sentences)} sentences of SST-2 of "
             f"{words[0]} to {words[-1]} words (median {words[len(words) // 2]}), a sentence a "
             "request. The server has one core and the generator another. Requests arrive by a "
             "Poisson clock whether or not the ones before were answered, and latency counts from "
             f"the planned arrival. requests/s: the highest rate at which 99 % are answered within "
             f"{LIMIT_MS:g} ms; rates are {STEPS - 1:.0%} apart, and one that is missed is tried "
             f"{TRIES} times. Model: its call alone, a sentence at a time, and the share of the "
             "core's time that this takes at that rate. Start: process to first answer, files in "
             "the page cache, median. Memory: shared pages "
             "counted once.", "",
             "| server | requests/s | p50 ms | p99 ms | model ms | share | s a point | start s | "
             "MiB started | MiB after | labels as ours in float32 | others busy, cores |",
             f"|{' --- |' * 12}"]
    reference = done.get("onnx float32", {}).get("labels")
    lines += [_line(side, done[side.name], reference) for side in SIDES if side.name in done]
    ours, theirs = (max((done[s.name]["points"][-1]["rate"] for s in SIDES if s.name in done
                         and bool(s.peer) == peer and s.name != "transformers"), default=0)
                    for peer in (False, True))
    if ours and theirs:
        lines += ["", f"ratio: {ours / theirs:.2f} of the best int8 peer (goal 2)"]
    lines += ["", "Measured: " + ", ".join(f"{name} at commit {row['commit']} on {row['date']}"
                                           for name, row in done.items()) + "."]
    return "\n".join(lines) + "\n"


def _line(side: Side, row: dict[str, Any], reference: list[str] | None) -> str:
    """Write a side's line; `reference` holds the labels that it should give."""
    best = row["points"][-1]
    held = best["p99"] is not None and best["p99"] <= LIMIT_MS and not best["stopped"]
    figures = ([f"{best['rate']:.0f}", f"{best['p50']:.1f}", f"{best['p99']:.1f}"] if held
               else [f"under {best['rate']:.0f}", "-", "-"])
    alone = row["inference_ms"]
    share = "-" if alone is None or not held else f"{best['rate'] * alone / 1000:.0%}"
    equal = "-" if reference is None else format(statistics.fmean(
        a == b for a, b in zip(row["labels"], reference, strict=True)), ".0%")
    cells = [side.about, *figures, "-" if alone is None else f"{alone:.2f}", share,
             f"{row['seconds']:g}",
             f"{statistics.median(row['cold_start_s']):.2f}", *map(str, row["resident_mib"]),
             equal, f"{row['busy_cores_before']:.2f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure what is missing and write the page."""
    flags, pythons = _flags()
    sentences = [line.split("\t")[0].strip() for line in
                 shared.text(flags.data / "sst2/dev.tsv").splitlines()[1:]]
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    done = {row["side"]: row for row in rows}
    missing = [side for side in SIDES if side.name not in done and side.name in flags.only
               and (not side.peer or side.peer in pythons)]
    if missing:
        places = prepared(flags, pythons)
    for side in missing:
        found = measured(side, places, sentences, flags)
        done[side.name] = {"side": side.name, "seconds": flags.seconds, "commit": shared.commit(),
                           "date": shared.today(), **found}
        part = RESULTS.with_suffix(".part")
        part.write_text(json.dumps(list(done.values()), indent=1) + "\n", "utf-8")
        part.replace(RESULTS)
    (HERE / "serving.md").write_text(page(done, sentences), "utf-8")
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
