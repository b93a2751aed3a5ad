"""Exported files beside optimum's of the same weights: writes benchmarks/artifacts.md.

    python -m benchmarks.platforms --data DIR --work DIR --peer PYTHON [--run RUN]

Fine-tunes minilm on SST-2 phrases (or takes --run), converts it, lets optimum export the same
weights, and asks all files in turn, round by round: size, accuracy on the 872 sentences, latency.
"""

import math
import os
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import rows, shared
from benchmarks.shared import HERE
from tf_pipeline import command
from tf_pipeline.artifact import Manifest
from tf_pipeline.run import Run
from tf_pipeline.runner import Runner, run_all
from tf_pipeline.runtimes import onnx, tflite
from tf_pipeline.text import INPUTS, Arrays, Shapes

SHAPES = tuple((batch, length) for batch in (1, 32) for length in (20, 64, 128))
FIXED = (64, 128)  # lengths of the .tflite files
ROUNDS = 5
SECONDS = 1.0  # that one file is asked in a round
PEER_FILES = {"float32": "model.onnx", "int8": "model_quantized.onnx"}


@dataclass(frozen=True)
class Found:
    """What all the asking gave: medians in ms by (file, batch, length)."""

    artifact: Path
    peer: Path
    latency: dict[tuple[str, int, int], float]
    accuracy: dict[str, float]


def main() -> None:
    """Measure and write the page."""
    parser = command.Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2/")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and files")
    parser.add_argument("--peer", required=True,
                        help="python with benchmarks/peers/optimum.txt installed")
    parser.add_argument("--run", type=Path, help="take this finished run of SST-2")
    flags = parser.parse_args()
    run = flags.run or train(flags.data, flags.work / "sst2")
    artifact, peer = flags.work / "artifact", flags.work / "peer"
    export(run, artifact, peer, shared.interpreter(flags.peer))
    found = measure(Run.load(run), artifact, peer)
    (HERE / "artifacts.md").write_text(page(found), "utf-8")
    print(f"Wrote {HERE / 'artifacts.md'}")


def train(data: Path, out: Path, backbone: str = "minilm") -> Path:
    """Fine-tune as the row sst2 of benchmarks/quality.md does, unless it was done before."""
    row = next(row for row in rows.ROWS if row.name == "sst2")
    shared.call([*shared.KIT, "train", *row.train.format(data=data).split(),
                 "--backbone", backbone, "--out", str(out), "--resume"])
    return out


def export(run: Path, artifact: Path, peer: Path, python: str) -> None:
    """Write our files, and the peer's from our weights; both anew."""
    shutil.rmtree(artifact, ignore_errors=True)
    shared.call([sys.executable, "-m", "export", "convert", str(run), "--out", str(artifact),
                 "--formats", "saved_model,tflite,onnx,safetensors",
                 "--lengths", ",".join(map(str, FIXED))])
    export_peer(artifact, peer, python)


def export_peer(artifact: Path, peer: Path, python: str) -> None:
    """Let optimum export the weights of an artifact, which stand in peer/weights, anew."""
    shutil.rmtree(peer, ignore_errors=True)
    weights = peer / "weights"
    weights.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json",
                 "vocab.txt"):
        shutil.copy2(artifact / name, weights)
    features = Manifest.load(artifact).cpu["features"]
    cpu = "avx512_vnni" if "avx512_vnni" in features else "avx2"
    shared.call([python, str(HERE / "peers/optimum_export.py"), str(weights), str(peer),
                 "--cpu", cpu])


def measure(run: Run, artifact: Path, peer: Path) -> Found:
    """Ask every file."""
    threads = os.cpu_count() or 1
    ours = {g.path: g for g in Manifest.load(artifact).graphs}
    loaded = {path: onnx.load(artifact / path, threads)
              for path, graph in ours.items() if graph.runtime == "onnx"}
    theirs = {f"optimum {name}": onnx.load(peer / name, threads) for name in PEER_FILES.values()}
    records = run.evaluation("test")
    encoded = run.task.encode(records, run.encoder, run.max_len)
    alone = Shapes(1, few=False)
    accuracy = {name: float(run.task.score(run_all(runner, encoded, alone), records)[
        run.task.METRIC]) for name, runner in theirs.items()}
    accuracy |= {path: graph.parity["metric_after"] for path, graph in ours.items()}
    latency: dict[tuple[str, int, int], float] = {}
    for batch, length in SHAPES:
        runners = {**loaded, **theirs}
        runners |= {g.path: tflite.load(artifact / g.path, threads) for g in ours.values()
                    if g.runtime == "tflite" and batch == 1 and g.length == length}
        for name, milliseconds in in_turn(runners, texts(run, batch, length)).items():
            latency[name, batch, length] = milliseconds
    return Found(artifact, peer, latency, accuracy)


def texts(run: Run, batch: int, length: int) -> Arrays:
    """Make rows of random pieces, all of them real."""
    ids = np.random.default_rng(0).integers(1000, run.config.vocab_size, (batch, length))
    values = (ids, np.ones_like(ids), np.zeros_like(ids))
    return {name: value.astype(np.int32) for name, value in zip(INPUTS, values, strict=True)}


def in_turn(runners: Mapping[str, Runner], inputs: Arrays) -> dict[str, float]:
    """Ask each in every round; the median over rounds of each round's median, in ms."""
    medians: dict[str, list[float]] = {name: [] for name in runners}
    for runner in runners.values():
        runner(inputs)
    for _ in range(ROUNDS):
        for name, runner in runners.items():
            medians[name].append(median_of_calls(runner, inputs))
    return {name: statistics.median(values) for name, values in medians.items()}


def median_of_calls(runner: Runner, inputs: Arrays) -> float:
    """Ask for SECONDS, at least five times."""
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        runner(inputs)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def page(found: Found) -> str:
    """Lay all of it out."""
    manifest = Manifest.load(found.artifact)
    return f"""# Exported files beside optimum's

Written by `python -m benchmarks.platforms`. minilm, fine-tuned on SST-2 phrases; the same weights
exported by this kit and by optimum-onnx 0.1.0 (int8: its dynamic settings for this CPU). Latency:
ms, the median of {ROUNDS} rounds in turn, {os.cpu_count()} threads on a CPU with
{", ".join(manifest.cpu["features"])}.

## Files
{files(found, manifest)}

## onnxruntime
{onnxruntime_table(found, manifest)}

## LiteRT
One text, the file's one length; beside optimum's int8 file in onnxruntime on texts of that length.
{litert_table(found, manifest)}

## int8 ONNX: what was tried
On texts of the validation split, a text at a time.
{candidates(manifest)}

## MediaPipe's tokenizer
{mediapipe(manifest)}

Commit {shared.commit()}, {shared.today()}.
"""


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Lay rows out in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *lines])


def files(found: Found, manifest: Manifest) -> str:
    """Sizes and accuracies of all files."""
    sizes = {g.path: g.bytes for g in manifest.graphs}
    sizes |= {f"optimum {name}": (found.peer / name).stat().st_size
              for name in PEER_FILES.values()}
    agreement = {g.path: f"{g.parity['agreement']:.2%}" for g in manifest.graphs}
    return table(["file", "bytes", "decides as trained", "accuracy"],
                 [[name, f"{size:,}", agreement.get(name, "-"), f"{found.accuracy[name]:.4f}"]
                  for name, size in sizes.items()])


def onnxruntime_table(found: Found, manifest: Manifest) -> str:
    """Latencies of ours and theirs, and the ratios' geometric mean."""
    parts = []
    for variant, theirs in PEER_FILES.items():
        ours = manifest.choose("onnx", variant).path
        both = [(shape, found.latency[(ours, *shape)], found.latency[(f"optimum {theirs}", *shape)])
                for shape in SHAPES]
        ratios = [a / b for _, a, b in both]
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        parts.append(table(
            [f"{variant}: batch", "length", "ours", "optimum", "ratio"],
            [[str(batch), str(length), f"{a:.2f}", f"{b:.2f}", f"{a / b:.2f}"]
             for (batch, length), a, b in both])
            + f"\n\nratio: {mean:.2f} (geometric mean), largest {max(ratios):.2f}")
    return "\n\n".join(parts)


def litert_table(found: Found, manifest: Manifest) -> str:
    """Latencies of the .tflite files."""
    lines = []
    for graph in [g for g in manifest.graphs if g.runtime == "tflite"]:
        length = graph.length or 0
        ours = found.latency[graph.path, 1, length]
        theirs = found.latency[f"optimum {PEER_FILES['int8']}", 1, length]
        lines.append([graph.path, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}"])
    return table(["file", "ours", "optimum int8", "ratio"], lines)


def candidates(manifest: Manifest) -> str:
    """List the recipes."""
    graph = manifest.choose("onnx", "int8")
    return table(["weights", "outliers above", "decides as trained", "mean error", "ms", "taken"],
                 [[c["weights"], f"{c['outliers']:g} medians", f"{c['agreement']:.2%}",
                   f"{c['error']:.4f}", f"{c['milliseconds']:.2f}", "yes" if c["taken"] else ""]
                  for c in graph.candidates])


def mediapipe(manifest: Manifest) -> str:
    """Say what the phone's tokenizer changes, before and after the cure of docs/phone.md."""
    (graph, *_) = [g for g in manifest.graphs if "mediapipe" in g.parity]
    seen = graph.parity["mediapipe"]
    return table(["texts", "other ids", "accuracy", "other ids after folding"],
                 [[str(seen["texts"]), str(seen["mismatches"]), f"{seen['metric']:.4f}",
                   str(seen["mismatches_folded"])]])


if __name__ == "__main__":
    main()
