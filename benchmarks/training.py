"""Speed and memory of training beside a peer's, in turn: writes benchmarks/training.md.

    python -m benchmarks.training --data DIR --peer PYTHON [--precision float32] [--no-levers]

Both fine-tune the checkpoint minilm with one recipe (AdamW, clipping, dropout .1, one precision,
texts of like length together) on the same files. The clock runs from the first step to the last,
tracing included and tokenizing not. Levers of ours are then taken away one at a time.

A processor without instructions for bfloat16 imitates it, slower than float32: compare in float32
there (writes benchmarks/training_float32.md).
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import shared
from benchmarks.shared import HERE
from tf_pipeline import command, fetch

PRECISIONS = {"bfloat16": "mixed_bfloat16", "float32": "float32"}  # the peer's name: ours


@dataclass(frozen=True)
class Texts:
    """One kind of texts to train on."""

    name: str
    about: str
    max_len: int
    share: float  # of --examples
    goal: str


KINDS = (Texts("phrases", "SST-2 phrases", 64, 1.0, "1.3, aim 2"),
         Texts("long", "AG News, three articles a text, cut at 128 tokens", 128, 0.125,
               "1.0, aim 1.5"))


def phrases(data: Path, count: int) -> list[dict[str, str]]:
    """Choose phrases of SST-2."""
    lines = shared.text(data / "sst2/train.tsv").splitlines()[1:]
    chosen = random.Random(0).sample(lines, min(count, len(lines)))
    return [dict(zip(("text", "label"), line.split("\t"), strict=True)) for line in chosen]


def long(data: Path, count: int) -> list[dict[str, str]]:
    """Join three articles of one topic, until there are enough."""
    by_topic: dict[str, list[str]] = {}
    for row in shared.read(data / "ag_news/train_5k.csv"):
        by_topic.setdefault(row["label"], []).append(row["text"])
    choose = random.Random(0)
    topics = [choose.choice(sorted(by_topic)) for _ in range(count)]
    return [{"text": " ".join(choose.sample(by_topic[topic], 3)), "label": topic}
            for topic in topics]


def ours(kind: Texts, work: Path, precision: str, lever: str = "") -> tuple[float, int]:
    """Train once: examples a second, and peak memory in MiB."""
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    start = ([sys.executable, "-m", "benchmarks.training", "without", lever] if lever
             else [*shared.KIT, "train"])
    most = shared.peak([*start, "--task", "classify", "--train", f"csv:{work}/{kind.name}.csv",
                        "--validation", f"csv:{work}/{kind.name}-test.csv",
                        "--test", f"csv:{work}/{kind.name}-test.csv", "--max-len",
                        str(kind.max_len), "--epochs", "1", "--warmup", "0.06", "--learning-rate",
                        "1e-4", "--precision", PRECISIONS[precision], "--out", str(run)])
    return json.loads((run / "metrics.json").read_text())["speed"]["examples_per_s"], most


def theirs(kind: Texts, work: Path, precision: str, python: str) -> tuple[float, int, int]:
    """Let the peer train once: examples a second, peak memory and that after import in MiB."""
    answer = work / "peer.json"
    words = [python, str(HERE / "peers/finetune.py"), "--task", "classify", "--train",
             f"{work}/{kind.name}.csv", "--test", f"{work}/{kind.name}-test.csv", "--max-len",
             str(kind.max_len), "--epochs", "1", "--learning-rate", "1e-4", "--model",
             str(fetch.minilm()), "--precision", precision, "--out", str(answer)]
    most = shared.peak(words)
    found = json.loads(answer.read_text())
    return found["examples_per_s"], most, shared.mebibytes(found["maxrss_imported"])


def imported() -> int:
    """Give the memory in MiB of a process that imported what training does."""
    return shared.peak([sys.executable, "-c", "import keras, tensorflow, matplotlib.pyplot, "
                        "sklearn.metrics, tf_pipeline.callbacks, tf_pipeline.training"])


def without_lazy_rows() -> None:
    """Update every row of the word table in every step, in fused kernels."""
    from tf_pipeline import optimizer

    optimizer.lookup_tables = lambda trainer: []


def without_fused_kernels() -> None:
    """Use Keras's AdamW as it is."""
    import keras

    from tf_pipeline import optimizer

    class Plain(keras.optimizers.AdamW):
        """Takes what LazyAdamW takes."""

        def __init__(self, *args: Any, tables: Any = (), **settings: Any):
            super().__init__(*args, **settings)
            self.tables: set[str] = set()

    without_lazy_rows()
    optimizer.LazyAdamW = Plain  # type: ignore[assignment, misc]


def _random_batches(longest: bool) -> None:
    import tensorflow as tf

    from tf_pipeline import data

    def draw(lengths: Any, batching: data.Batching, epoch: Any) -> tuple[Any, Any]:
        steps = tf.size(lengths) // batching.size
        seed = tf.stack([batching.seed, tf.cast(epoch, tf.int32)])
        order = tf.random.experimental.stateless_shuffle(tf.range(tf.size(lengths)), seed)
        rows = tf.reshape(order[:steps * batching.size], (-1, batching.size))
        needed = tf.reduce_max(tf.gather(lengths, rows), 1)
        return rows, needed if longest else tf.fill(tf.shape(needed), tf.reduce_max(lengths))

    data.draw = draw


def without_equal_lengths() -> None:
    """Make batches of any texts, padded to the longest of the batch."""
    _random_batches(longest=True)


def with_one_length() -> None:
    """Pad all batches to the longest of all texts, as KerasHub's preprocessors do."""
    _random_batches(longest=False)


LEVERS: dict[str, tuple[str, Callable[[], None]]] = {
    "lazy_rows": ("every row of the word table in every step", without_lazy_rows),
    "fused": ("the same in Keras's AdamW", without_fused_kernels),
    "lengths": ("batches of any texts", without_equal_lengths),
    "one_length": ("all texts padded to the longest", with_one_length),
}


def without(lever: str, words: list[str]) -> int:
    """Train in this process without a lever."""
    from tf_pipeline import cli
    from tf_pipeline.quiet import import_tensorflow

    import_tensorflow()
    LEVERS[lever][1]()
    return cli.main(["train", *words])


def compared(kind: Texts, work: Path, precision: str, python: str, turns: int) -> list[str]:
    """Measure both sides in turn and give the lines of the table."""
    found = [(ours(kind, work, precision), theirs(kind, work, precision, python))
             for _ in range(turns)]
    speeds = [statistics.median(side[i][0] for side in found) for i in (0, 1)]
    base, peer_base = imported(), found[0][1][2]
    memory = [statistics.median(side[i][1] for side in found) for i in (0, 1)]
    return [
        f"## {kind.about}", "",
        "| | examples/s, in turn | median | memory after import, MiB | at most | difference |",
        "| --- | --- | --- | --- | --- | --- |",
        *(f"| {name} | {', '.join(f'{side[i][0]:.0f}' for side in found)} | {speeds[i]:.0f} | "
          f"{before:,} | {memory[i]:,.0f} | {memory[i] - before:,.0f} |"
          for i, (name, before) in enumerate((("ours", base), ("peer", peer_base)))),
        "", f"ratio: {speeds[0] / speeds[1]:.2f} (goal {kind.goal})", ""]


def levers(kind: Texts, work: Path, precision: str) -> list[str]:
    """Take each lever away, with a run of everything before and after."""
    before = ours(kind, work, precision)[0]
    rows = [(about, ours(kind, work, precision, name)[0]) for name, (about, _) in LEVERS.items()]
    other, = PRECISIONS.keys() - {precision}
    rows.append((other, ours(kind, work, other)[0]))
    whole = (before + ours(kind, work, precision)[0]) / 2
    return [f"Without one of ours, on {kind.about} (everything: {whole:.0f} examples/s):", "",
            "| instead | examples/s | everything is faster by |", "| --- | --- | --- |",
            *(f"| {about} | {speed:.0f} | {whole / speed:.2f} |" for about, speed in rows), ""]


def main() -> None:
    """Measure and write the page."""
    if sys.argv[1:2] == ["without"] and sys.argv[2] in LEVERS:  # called by `ours`
        sys.exit(without(sys.argv[2], sys.argv[3:]))
    parser = command.Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--peer", metavar="PYTHON", required=True, help="the peer's interpreter")
    parser.add_argument("--examples", type=int, default=6400, help="phrases to train on "
                        "(default: 6400); of the long texts an eighth")
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="bfloat16",
                        help="of both sides (default: bfloat16)")
    parser.add_argument("--levers", action=argparse.BooleanOptionalAction, default=True,
                        help="measure what each lever of ours brings (default: yes)")
    parser.add_argument("--turns", type=int, default=2, help="runs of each side (default: 2)")
    flags = parser.parse_args()
    if flags.turns < 1:
        parser.error(f"--turns is {flags.turns}; it must be 1 or more")
    if flags.examples < 256:
        parser.error(f"--examples is {flags.examples}; it must be 256 or more, for an eighth to "
                     "fill a batch")
    shared.interpreter(flags.peer)
    page = ["# Speed of training", "", "Written by `python -m benchmarks.training`: one epoch of "
            "MiniLM, batches of 32, on the same texts in turn. The peer is transformers with "
            "PyTorch (`benchmarks/peers`) in its best setting, texts grouped by length. Both "
            f"compute in {flags.precision}. Time is from the first step to the last, tracing "
            "included. What the two are worth afterwards stands in quality.md.", ""]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for kind, make in zip(KINDS, (phrases, long), strict=True):
            rows = make(flags.data, int(flags.examples * kind.share) + 64)
            shared.write(work / f"{kind.name}.csv", rows[64:])
            shared.write(work / f"{kind.name}-test.csv", rows[:64])
            page += compared(kind, work, flags.precision, flags.peer, flags.turns)
            print(page[-2], flush=True)
            if flags.levers:
                page += levers(kind, work, flags.precision)
    page.append(f"Commit {shared.commit()}, {shared.today()}.")
    out = HERE / ("training.md" if flags.precision == "bfloat16" else
                  f"training_{flags.precision}.md")
    out.write_text("\n".join(page) + "\n", "utf-8")
    print(f"Wrote {out}")


if __name__ == "__main__":
    main()
