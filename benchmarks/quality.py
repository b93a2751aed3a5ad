"""Quality on published data sets, each beside a peer's figure: writes benchmarks/quality.md.

    python benchmarks/quality.py --data DIR [--only sst2,conll2003] [--jobs 4]
    python benchmarks/quality.py --data DIR --peer PYTHON      (an environment of its own)

DIR holds the data sets as benchmarks/data.md names them. Every run that is done stands in
benchmarks/quality.json, so that a stopped table goes on where it was; delete its lines there to
measure anew. PYTHON has what benchmarks/peers/requirements.txt asks for.
"""

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benchmarks"
RESULTS = HERE / "quality.json"


@dataclass(frozen=True)
class Row:
    """One line of the table. `{data}`, `{work}` and `{models}` in flags stand for folders."""

    name: str
    about: str
    train: str  # flags of `python -m tf_pipeline train`
    metrics: dict[str, str]  # name in metrics.json -> name in the table
    goal: str
    published: str = "-"
    repeats: tuple[str, ...] = ("0", "1", "2")  # seeds, or folds
    seeded: bool = True  # whether repeats are seeds; folds stand in the flags as {repeat}
    prepare: Callable[[Path, Path], None] | None = None  # writes {work}/NAME from the data
    outside: dict[str, str] = field(default_factory=dict)  # name -> texts out of scope
    peer: str | None = None  # flags of benchmarks/peers/finetune.py


def folds(data: Path, work: Path) -> None:
    """Cut Financial PhraseBank into five stratified folds; of each, four train and one tests."""
    from sklearn.model_selection import StratifiedKFold

    rows = _read(data / "financial_phrasebank/sentences_50agree.csv")
    cuts = StratifiedKFold(5, shuffle=True, random_state=0).split(rows, [r["label"] for r in rows])
    for number, (train, test) in enumerate(cuts):
        _write(work / f"phrasebank/train{number}.csv", [rows[i] for i in train])
        _write(work / f"phrasebank/test{number}.csv", [rows[i] for i in test])


def held_out_intents(data: Path, work: Path) -> None:
    """Leave 12 of the 77 intents out of training; their test texts are out of scope."""
    train, test = (_read(data / f"banking77/{part}.csv") for part in ("train", "test"))
    unseen = set(random.Random(0).sample(sorted({r["label"] for r in train}), 12))
    _write(work / "scope/train.csv", [r for r in train if r["label"] not in unseen])
    _write(work / "scope/test.csv", [r for r in test if r["label"] not in unseen])
    _write(work / "scope/near.csv", [r for r in test if r["label"] in unseen])
    news = _read(data / "ag_news/test.csv")
    _write(work / "scope/far.csv", [{"text": r["text"]} for r in
                                    random.Random(0).sample(news, min(2000, len(news)))])


def chinese_names(data: Path, work: Path) -> None:
    """Write CLUENER as CoNLL: a Han character, word or sign a line."""
    from tf_pipeline.words import split

    for part in ("train", "dev"):
        path = data / f"cluener/{part}.jsonl"
        if not path.exists():
            raise SystemExit(f"error: --data lacks {path}. benchmarks/data.md says where it is "
                             "from.")
        sentences = []
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            tokens, places = split(row["text"])
            tags = ["O"] * len(tokens)
            for kind, mentions in row["label"].items():
                for start, end in (span for found in mentions.values() for span in found):
                    inside = [i for i, (a, b) in enumerate(places) if a <= end and b > start]
                    for i in inside:
                        tags[i] = f"{'B' if i == inside[0] else 'I'}-{kind}"
            sentences.append("\n".join(f"{t} {g}" for t, g in zip(tokens, tags, strict=True)))
        (work / "cluener").mkdir(parents=True, exist_ok=True)
        (work / f"cluener/{part}.txt").write_text("\n\n".join(sentences) + "\n", "utf-8")


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        raise SystemExit(f"error: --data lacks {path}. benchmarks/data.md says where it is from.")
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


ROWS = (
    Row("sst2", "SST-2, dev", "--task classify --train tsv:{data}/sst2/train.tsv?text=sentence "
        "--test tsv:{data}/sst2/dev.tsv?text=sentence --max-len 64 --epochs 2 "
        "--learning-rate 1e-4 --pooling mean --precision mixed_bfloat16",
        {"accuracy": "accuracy"}, "the peer's best", ".935 (BERT-base)",
        peer="--task classify --train {data}/sst2/train.tsv --test {data}/sst2/dev.tsv "
             "--max-len 64 --epochs 2 --learning-rate 1e-4"),
    Row("banking77", "Banking77, test", "--task classify --train csv:{data}/banking77/train.csv "
        "--test csv:{data}/banking77/test.csv --max-len 64 --epochs 8 --learning-rate 3e-4 "
        "--patience 8 --pooling mean --precision mixed_bfloat16",
        {"accuracy": "accuracy"}, "the peer's", ".937 (BERT-base)",
        peer="--task classify --train {data}/banking77/train.csv --test "
             "{data}/banking77/test.csv --max-len 64 --epochs 8 --learning-rate 2e-4"),
    Row("goemotions", "GoEmotions, 28 labels, test",
        "--task multilabel --train tsv:{data}/goemotions?header=text,labels,id&label_names="
        "{data}/goemotions/emotions.txt --max-len 64 --epochs 4 --learning-rate 2e-4 "
        "--patience 4 --pooling mean --precision mixed_bfloat16",
        {"macro_f1": "macro F1", "micro_f1": "micro F1"}, "the peer's; aim .46",
        ".46 (BERT-base)",
        peer="--task multilabel --train {data}/goemotions/train.tsv --test "
             "{data}/goemotions/test.tsv --max-len 64 --epochs 4 --learning-rate 1e-4"),
    Row("phrasebank", "Financial PhraseBank 50agree, 5 folds",
        "--task classify --train csv:{work}/phrasebank/train{repeat}.csv --test "
        "csv:{work}/phrasebank/test{repeat}.csv --max-len 128 --epochs 5 --learning-rate 1e-4 "
        "--patience 5 --pooling mean --precision mixed_bfloat16",
        {"accuracy": "accuracy", "macro_f1": "macro F1"}, "the peer's; aim .86",
        ".86 (FinBERT)", repeats=("0", "1", "2", "3", "4"), seeded=False,
        prepare=folds,
        peer="--task classify --train {work}/phrasebank/train{repeat}.csv --test "
             "{work}/phrasebank/test{repeat}.csv --max-len 128 --epochs 4 --learning-rate 1e-4"),
    Row("conll2003", "CoNLL-2003, test", "--task tag --train conll:{data}/conll2003_en "
        "--max-len 128 --epochs 8 --learning-rate 3e-4 --precision mixed_bfloat16",
        {"span_f1": "span F1", "token_accuracy": "token accuracy",
         "token_macro_f1": "token macro F1"}, ".885 / .978 / .885; aim .90 / .980 / .909",
        ".924 span F1 (BERT-base, cased)",
        peer="--task tag --train {data}/conll2003_en/eng.train --test "
             "{data}/conll2003_en/eng.testb --max-len 128 --epochs 3 --learning-rate 1e-4"),
    Row("stsb_before", "STS-B, test, before training", "--task embed --train "
        "csv:{data}/stsb/en-train.csv?text=text_a --validation csv:{data}/stsb/en-dev.csv?text="
        "text_a --test csv:{data}/stsb/en-test.csv?text=text_a --max-len 64 --epochs 0",
        {"spearman": "Spearman"}, "as published", ".820 (all-MiniLM-L6-v2)", repeats=("0",)),
    Row("stsb", "STS-B, test, after training", "--task embed --train "
        "csv:{data}/stsb/en-train.csv?text=text_a --validation csv:{data}/stsb/en-dev.csv?text="
        "text_a --test csv:{data}/stsb/en-test.csv?text=text_a --max-len 64 --epochs 4 "
        "--learning-rate 5e-5 --precision mixed_bfloat16", {"spearman": "Spearman"},
        ".84; aim .86", ".847 (SBERT-base)", repeats=("0",)),
    Row("cluener", "CLUENER (Chinese), dev, me5-small-zh-en", "--task tag --train "
        "conll:{work}/cluener/train.txt --test conll:{work}/cluener/dev.txt --backbone "
        "{models}/me5-small-zh-en --max-len 96 --epochs 4 --learning-rate 2e-4 "
        "--patience 4 --precision mixed_bfloat16", {"span_f1": "span F1"}, "aim .74",
        ".788 (BERT-base-chinese, hidden test)", repeats=("0",), prepare=chinese_names),
    Row("scope", "Banking77 without 12 intents, test", "--task classify --train "
        "csv:{work}/scope/train.csv --test csv:{work}/scope/test.csv --max-len 64 --epochs 8 "
        "--learning-rate 3e-4 --patience 8 --pooling mean --precision mixed_bfloat16",
        {"accuracy": "accuracy in scope"},
        "AUROC .85 near, .98 far", prepare=held_out_intents,
        outside={"near": "csv:{work}/scope/near.csv?label=", "far": "csv:{work}/scope/far.csv"}),
)


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


def measure(row: Row, repeat: str, places: dict[str, str], keep: bool) -> dict[str, Any]:
    """Train and score once; the run folder is deleted afterwards, or kept to export it."""
    run = Path(places["work"]) / "runs" / f"{row.name}-{repeat}"
    shutil.rmtree(run, ignore_errors=True)
    words = [w.format(**places, repeat=repeat) for w in row.train.split()]
    seed = ["--seed", repeat] if row.seeded else []
    _call([sys.executable, "-m", "tf_pipeline", "train", *words, *seed, "--out", str(run)])
    scores = json.loads((run / "metrics.json").read_text())
    info = json.loads((run / "run.json").read_text())
    found = {name: scores["test"][name] for name in row.metrics}
    if scores["calibration"]:
        found |= {f"calibration_{k}": v for k, v in scores["calibration"].items()}
    for name, spec in row.outside.items():
        out = run / f"{name}.json"
        test = words[words.index("--test") + 1]
        _call([sys.executable, "-m", "tf_pipeline", "evaluate", str(run), "--data", test,
               "--out-of-scope", spec.format(**places), "--out", str(out)])
        apart = json.loads(out.read_text())["out_of_scope"]
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
    out = _call([python, str(HERE / "peers" / "finetune.py"), *words, *seed])
    answer = json.loads(out.splitlines()[-1])
    return {"scores": answer["scores"], "device": answer["device"],
            "precision": answer["precision"], "duration_s": round(time.time() - start, 1)}


def _call(words: list[str]) -> str:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr[-3000:]}")
    return done.stdout


def mean(runs: list[dict[str, Any]], name: str) -> str:
    """Show the mean over repeats and, of several, the lowest and highest."""
    values = [r["scores"][name] for r in runs if name in r["scores"]]
    if not values:
        return "-"
    shown = f"{sum(values) / len(values):.4f}"
    return shown if len(values) == 1 else f"{shown} ({min(values):.4f} to {max(values):.4f})"


def report(table: Table) -> str:
    """Write the page."""
    lines = ["# Quality", "", "Written by `python benchmarks/quality.py`; the runs are in "
             "quality.json. Checkpoint `minilm` (22.7 M parameters) on both sides. Means over "
             "seeds or folds, with the lowest and the highest. The peer is transformers with "
             "PyTorch (`benchmarks/peers`), trained on all training rows; ours sets validation "
             "rows aside where the data set has none.", "",
             "| data | metric | ours | peer | published | goal |",
             "| --- | --- | --- | --- | --- | --- |"]
    for row in ROWS:
        ours, theirs = table.of(row.name, "ours"), table.of(row.name, "peer")
        metrics = row.metrics | {f"{name}_{key}": f"{text}, {name}" for name in row.outside
                                 for key, text in (("auroc", "AUROC"),
                                                   ("recall", "recall at 1 point of accuracy"))}
        for i, (name, text) in enumerate(metrics.items()):
            first = i == 0
            lines.append(f"| {row.about if first else ''} | {text} | {mean(ours, name)} | "
                         f"{mean(theirs, name)} | {row.published if first else ''} | "
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


def _jobs(flags: argparse.Namespace, table: Table, commit: str) -> Iterator[Callable[[], None]]:
    places = {"data": str(flags.data.resolve()), "work": str(flags.work.resolve()),
              "models": str((flags.models or flags.data.resolve().parent / "models").resolve())}
    side = "peer" if flags.peer else "ours"
    for row in ROWS:
        if flags.only and row.name not in flags.only.split(","):
            continue
        template = row.peer if flags.peer else row.train
        if template is None:
            continue
        if row.prepare:
            row.prepare(flags.data, flags.work)
        for repeat in row.repeats[:flags.repeats]:
            command = template.format(data="DIR", work="WORK", models="MODELS", repeat=repeat)
            if table.has(row.name, repeat, side, command):
                continue

            def job(row: Row = row, repeat: str = repeat, command: str = command) -> None:
                measured = (measure_peer(row, repeat, places, flags.peer) if flags.peer
                            else measure(row, repeat, places, flags.keep))
                table.add({"row": row.name, "repeat": repeat, "side": side, "command": command,
                           "commit": commit, "date": datetime.now(UTC).date().isoformat(),
                           **measured})
                print(row.name, repeat, side, json.dumps(measured["scores"]), flush=True)

            yield job


def main() -> None:
    """Measure what is missing and write the page."""
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"),
                        help="folder for what is prepared and trained (default: runs/benchmarks)")
    parser.add_argument("--models", type=Path, help="folder of the checkpoints that are not built "
                        "in (default: models beside DIR)")
    parser.add_argument("--only", help="rows to measure, e.g. sst2,conll2003")
    parser.add_argument("--repeats", type=int, help="seeds or folds of each row (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--keep", action="store_true", help="keep the trained runs in WORK/runs")
    parser.add_argument("--peer", metavar="PYTHON", help="measure the peer, with this interpreter")
    parser.add_argument("--commit", help="the code's commit (default: asked of git)")
    flags = parser.parse_args()
    known = [row.name for row in ROWS]
    if unknown := [name for name in (flags.only or "").split(",") if name and name not in known]:
        parser.error(f"--only names {unknown[0]!r}; allowed: {', '.join(known)}.")
    if flags.peer and not shutil.which(flags.peer):
        parser.error(f"--peer {flags.peer} is no program. Give the peer's python.")
    commit = flags.commit or subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True,
        check=True).stdout.strip()
    table = Table(RESULTS)
    with ThreadPoolExecutor(flags.jobs) as pool:
        for done in [pool.submit(job) for job in _jobs(flags, table, commit)]:
            done.result()
    (HERE / "quality.md").write_text(report(table), "utf-8")
    print(f"Wrote {HERE / 'quality.md'}")


if __name__ == "__main__":
    main()
