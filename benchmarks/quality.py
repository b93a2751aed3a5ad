"""Quality on published data sets, each beside a peer's figure: writes benchmarks/quality.md.

    python -m benchmarks.quality --data DIR [--only sst2,conll2003] [--jobs 4]
    python -m benchmarks.quality --data DIR --baseline
    python -m benchmarks.quality --data DIR --peer PYTHON      (an environment of its own)

DIR holds the data sets as benchmarks/data.md names them. Every run that is done stands in
benchmarks/quality.json, so that a stopped table goes on where it was; delete its lines there to
measure anew. PYTHON has what benchmarks/peers/requirements.txt asks for.
"""

import argparse
import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import baseline, shared
from benchmarks.rows import ROWS, Row
from benchmarks.shared import HERE
from tf_pipeline import command, fetch

RESULTS = HERE / "quality.json"
_START = threading.Lock()


class Table:
    """The results so far, on disk after every run."""

    def __init__(self, path: Path):
        self.path = path
        self.runs: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        self._lock = threading.Lock()

    def has(self, row: str, repeat: str, side: str, command: str) -> bool:
        """Whether this very command was run."""
        return any((r["row"], r["repeat"], r["side"], r["command"]) ==
                   (row, repeat, side, command) for r in self.runs)

    def add(self, run: dict[str, Any]) -> None:
        """Keep a run, in the place of one of the same row, repeat and side."""
        with self._lock:
            key = ("row", "repeat", "side")
            self.runs = [r for r in self.runs if any(r[k] != run[k] for k in key)] + [run]
            order = {row.name: i for i, row in enumerate(ROWS)}
            self.runs.sort(key=lambda r: (order.get(r["row"], 99), r["side"], r["repeat"]))
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.runs, indent=1) + "\n", "utf-8")
            part.replace(self.path)

    def of(self, row: str, side: str) -> list[dict[str, Any]]:
        """Give the runs of one side of a row."""
        return [r for r in self.runs if (r["row"], r["side"]) == (row, side)]


def measure(row: Row, repeat: str, places: dict[str, str], commit: str,
            keep: bool) -> dict[str, Any]:
    """Train and score once; the run folder is deleted afterwards, or kept to export it.

    A training that was cut off goes on, if code and flags are the same.
    """
    mark = hashlib.sha256(f"{commit} {shown(row, 'ours', repeat)}".encode()).hexdigest()[:8]
    run = Path(places["work"]) / "runs" / f"{row.name}-{repeat}-{mark}"
    if row.start:
        before = [w.format(**places, repeat=repeat) for w in row.start.split()]
        start = run.with_name(f"start-{hashlib.sha256(row.start.encode()).hexdigest()[:8]}")
        with _START:  # other repeats wait for it and find it finished
            shared.call([*shared.KIT, "train", *before, "--out", str(start), "--resume"])
        places = {**places, "start": str(start)}
    words = [w.format(**places, repeat=repeat) for w in row.train.split()]
    seed = ["--seed", repeat] if row.seeded else []
    shared.call([*shared.KIT, "train", *words, *seed, "--out", str(run), "--resume"])
    scores = json.loads((run / "metrics.json").read_text())
    info = json.loads((run / "run.json").read_text())
    found = {name: scores["test"][name] for name in row.metrics}
    if scores["calibration"]:
        found |= {f"calibration_{k}": v for k, v in scores["calibration"].items()}
    for name, spec in row.also.items():
        others = json.loads(shared.call([*shared.KIT, "evaluate", str(run), "--data",
                                         spec.format(**places), "--json"]))
        found |= {f"{name}_{metric}": others[metric] for metric in row.metrics}
    for name, spec in row.outside.items():
        test = words[words.index("--test") + 1]
        apart = json.loads(shared.call([*shared.KIT, "evaluate", str(run), "--data", test,
                                        "--out-of-scope", spec.format(**places), "--json"])
                           )["out_of_scope"]
        found |= {f"{name}_{key}": apart[key] for key in ("auroc", "recall", "accuracy")}
    if not keep:
        shutil.rmtree(run)
    return {"scores": found, "device": info["device"], "precision": info["precision"],
            "duration_s": info["duration_s"]}


def measure_peer(row: Row, repeat: str, places: dict[str, str], python: str) -> dict[str, Any]:
    """Let the peer train on the same files."""
    assert row.peer is not None
    words = [w.format(**places, repeat=repeat) for w in row.peer.split()]
    seed = ["--seed", repeat] if row.seeded else []
    start = time.time()
    out = shared.call([python, str(HERE / "peers" / "finetune.py"), *words, *seed, "--model",
                       str(fetch.minilm())])
    answer = json.loads(out.splitlines()[-1])
    return {"scores": answer["scores"], "device": answer["device"],
            "precision": answer["precision"], "duration_s": round(time.time() - start, 1)}


def shown(row: Row, side: str, repeat: str) -> str:
    """Write the flags for every machine."""
    flags = row.peer if side == "peer" else row.train
    assert flags is not None
    if row.start:
        flags += f" (START: {row.start})"
    return flags.format(data="DIR", work="WORK", models="MODELS", start="START", repeat=repeat)


def mean(runs: list[dict[str, Any]], name: str) -> str:
    """Show the mean over repeats and, of several, the lowest and highest."""
    values = [r["scores"][name] for r in runs if name in r["scores"]]
    if not values:
        return "-"
    shown = f"{sum(values) / len(values):.4f}"
    return shown if len(values) == 1 else f"{shown} ({min(values):.4f} to {max(values):.4f})"


def _of_all(row: Row, runs: list[dict[str, Any]], name: str) -> str:
    whole = len(runs) in (0, len(row.repeats))
    return mean(runs, name) + ("" if whole else f", {len(runs)} of {len(row.repeats)} runs")


def _beside_majority(runs: list[dict[str, Any]], name: str) -> str:
    largest = name.replace("accuracy", "majority")
    return mean(runs, name) + ("" if largest == name or mean(runs, largest) == "-" else
                               f" ({mean(runs, largest)})")


def report(table: Table) -> str:
    """Write the page."""
    lines = ["# Quality", "", "Written by `python -m benchmarks.quality`; the runs are in "
             "quality.json. Means over seeds or folds, with the lowest and the highest. Ours and "
             "the peer start from the checkpoint `minilm` (22.7 M parameters), Chinese rows from "
             "me5-small-zh-en. The peer is transformers with PyTorch (`benchmarks/peers`), trained "
             "on all training rows; ours sets validation rows aside where the data set has none. "
             "Of several labels the peer gives those over .5, ours those over thresholds chosen on "
             "validation. "
             "The baseline is logistic regression on TF-IDF of character 1- and 2-grams (for "
             "tags: on the words around), behind it the largest class.", "",
             "| data | metric | ours | peer | baseline | published | goal |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in ROWS:
        ours, theirs, classical = (table.of(row.name, side)
                                   for side in ("ours", "peer", "baseline"))
        metrics = {**row.metrics,
                   **{f"{name}_{key}": f"{text}, {name}" for name in row.also
                      for key, text in row.metrics.items()},
                   **{f"{name}_{key}": f"{text}, {name}" for name in row.outside
                      for key, text in (("auroc", "AUROC"),
                                        ("recall", "recall at 1 point of accuracy"))}}
        for i, (name, text) in enumerate(metrics.items()):
            first = i == 0
            lines.append(f"| {row.about if first else ''} | {text} | {_of_all(row, ours, name)} | "
                         f"{_of_all(row, theirs, name)} | {_beside_majority(classical, name)} | "
                         f"{row.published if first else ''} | "
                         f"{row.goal if first else ''} |")
    lines += ["", "Expected calibration error on test, before and after temperature scaling:", ""]
    for row in ROWS:
        if any("calibration_error_before" in r["scores"] for r in table.of(row.name, "ours")):
            runs = table.of(row.name, "ours")
            lines.append(f"- {row.about}: {mean(runs, 'calibration_error_before')}, "
                         f"{mean(runs, 'calibration_error_after')}")
    lines += ["", "## Runs", "", "| row | repeat | side | command | commit | date | device | s |",
              "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    lines += [f"| {r['row']} | {r['repeat']} | {r['side']} | `{r['command']}` | {r['commit']} | "
              f"{r['date']} | {r['device']}, {r['precision']} | {r['duration_s']:.0f} |"
              for r in table.runs]
    return "\n".join(lines) + "\n"


def _jobs(flags: argparse.Namespace, table: Table) -> Iterator[Callable[[], None]]:
    places = {"data": str(flags.data.resolve()), "work": str(flags.work.resolve()),
              "models": str((flags.models or flags.data.resolve().parent / "models").resolve())}
    commit = flags.commit or shared.commit()
    side = "peer" if flags.peer else "baseline" if flags.baseline else "ours"
    for row in ROWS:
        if flags.only and row.name not in flags.only.split(","):
            continue
        if (flags.peer and not row.peer) or (flags.baseline and not row.baseline):
            continue
        if row.prepare:
            row.prepare(flags.data, flags.work)
        for repeat in row.repeats[:1 if flags.baseline else flags.repeats]:
            command = shown(row, side, repeat)
            if table.has(row.name, repeat, side, command):
                continue

            def job(row: Row = row, repeat: str = repeat, command: str = command) -> None:
                measured = (measure_peer(row, repeat, places, flags.peer) if flags.peer
                            else baseline.measure(row, places) if flags.baseline
                            else measure(row, repeat, places, commit, flags.keep))
                table.add({"row": row.name, "repeat": repeat, "side": side, "command": command,
                           "commit": commit, "date": shared.today(),
                           **measured})
                print(row.name, repeat, side, json.dumps(measured["scores"]), flush=True)

            yield job


def main() -> None:
    """Measure what is missing and write the page."""
    about = (__doc__ or "").splitlines()[0]
    parser = command.Parser(description=about)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"),
                        help="folder for what is prepared and trained (default: runs/benchmarks)")
    parser.add_argument("--models", type=Path, help="folder of the checkpoints that are not built "
                        "in (default: models beside DIR)")
    parser.add_argument("--only", help="rows to measure, e.g. sst2,conll2003")
    parser.add_argument("--repeats", type=int, help="seeds or folds of each row (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--keep", action="store_true", help="keep the trained runs in WORK/runs")
    side = parser.add_mutually_exclusive_group()
    side.add_argument("--peer", metavar="PYTHON", help="measure the peer, with this interpreter")
    side.add_argument("--baseline", action="store_true", help="measure TF-IDF with logistic "
                      "regression")
    parser.add_argument("--commit", help="the code's commit (default: asked of git)")
    flags = parser.parse_args()
    known = [row.name for row in ROWS]
    if unknown := [name for name in (flags.only or "").split(",") if name and name not in known]:
        parser.error(f"--only names {unknown[0]!r}; allowed: {', '.join(known)}.")
    if flags.peer:
        shared.interpreter(flags.peer)
    table = Table(RESULTS)
    with ThreadPoolExecutor(flags.jobs) as pool:
        for done in [pool.submit(job) for job in _jobs(flags, table)]:
            done.result()
    (HERE / "quality.md").write_text(report(table), "utf-8")
    print(f"Wrote {HERE / 'quality.md'}")


if __name__ == "__main__":
    main()
