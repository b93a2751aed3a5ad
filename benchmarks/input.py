"""Speed and memory of prepared data: writes benchmarks/input.md.

    python -m benchmarks.input --data DIR [--texts 5000000]

Phrases of SST-2, again and again until there are enough, are prepared; then batches are read as
training reads them (shuffled, of like length) without a model, and 300 steps are taken, in a
process of its own. The memory of the many is held beside that of a few.
"""

import json
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks import shared
from benchmarks.shared import HERE
from tf_pipeline import command


def write_phrases(data: Path, out: Path, count: int) -> None:
    """Write so many phrases."""
    lines = shared.text(data / "sst2/train.tsv").splitlines()[1:]
    with out.open("w", encoding="utf-8") as stream:
        stream.write("text\tlabel\n")
        stream.writelines(f"{line}\n" for line in islice(cycle(lines), count))


def read(folder: str, backbone: str, batches: int) -> dict[str, Any]:
    """Read batches in this process, the first ones untimed: tokens a second, and real positions."""
    from tf_pipeline.config import TrainConfig
    from tf_pipeline.data import Batching
    from tf_pipeline.prepared import read
    from tf_pipeline.task import options_of

    config = TrainConfig("classify", f"prepared:{folder}", backbone=backbone)
    _, material = read(config, options_of("classify")())
    found = iter(material.examples.batches(Batching(32, 0)))
    for _ in range(100):
        next(found)
    speeds, share = [], 0.0
    for _ in range(3):
        begin = time.perf_counter()
        masks = [next(found)[0]["attention_mask"] for _ in range(batches)]
        seconds = time.perf_counter() - begin
        tokens = sum(int(mask.numpy().sum()) for mask in masks)
        share = tokens / sum(mask.numpy().size for mask in masks)
        speeds.append(tokens / seconds)
    return {"speeds": sorted(speeds), "real": share}


def few_steps(steps: int, words: list[str]) -> int:
    """Train in this process, with so many steps for an epoch."""
    from tf_pipeline import cli, shards
    from tf_pipeline.quiet import import_tensorflow

    import_tensorflow()
    shards.Shards.steps = lambda self, size: steps  # type: ignore[method-assign]
    return cli.main(["train", *words])


def measure(data: Path, work: Path, texts: int, steps: int,
            backbone: str) -> tuple[int, float]:
    """Prepare so many texts and train on them: peak memory in MiB, seconds of preparing."""
    phrases, rest, folder = (work / name for name in (f"{texts}.tsv", "rest.tsv", str(texts)))
    write_phrases(data, phrases, texts)
    write_phrases(data, rest, 64)
    begin = time.time()
    shared.call([*shared.KIT, "prepare", "--task", "classify", "--train", f"tsv:{phrases}",
                 "--validation", f"tsv:{rest}", "--test", f"tsv:{rest}", "--max-len", "64",
                 "--backbone", backbone, "--out", str(folder)])
    seconds = time.time() - begin
    phrases.unlink()
    most = shared.peak([sys.executable, "-m", "benchmarks.input", "steps", str(steps),
                        "--task", "classify", "--train", f"prepared:{folder}", "--backbone",
                        backbone, "--epochs", "1", "--precision", "mixed_bfloat16", "--out",
                        str(work / f"run{texts}")])
    return most, seconds


def main() -> None:
    """Measure and write the page."""
    if sys.argv[1:2] == ["steps"]:  # called by `measure`
        sys.exit(few_steps(int(sys.argv[2]), sys.argv[3:]))
    if sys.argv[1:2] == ["read"]:  # called below
        print(json.dumps(read(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
        return
    parser = command.Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--work", type=Path, help="folder for what is prepared (default: a "
                        "temporary one)")
    parser.add_argument("--texts", type=int, default=5_000_000, help="how many are many (default: "
                        "5000000)")
    parser.add_argument("--few", type=int, default=50_000, help="how many are few (default: "
                        "50000)")
    parser.add_argument("--steps", type=int, default=300, help="steps to take (default: 300)")
    parser.add_argument("--backbone", default="minilm", help="checkpoint (default: minilm)")
    parser.add_argument("--batches", type=int, default=20_000, help="batches to read (default: "
                        "20000)")
    flags = parser.parse_args()
    if not 0 < flags.few <= flags.texts or min(flags.steps, flags.batches) < 1:
        parser.error(f"--few is {flags.few}, --texts {flags.texts}, --steps {flags.steps}, "
                     f"--batches {flags.batches}; all must be above 0, --texts at least --few")
    with tempfile.TemporaryDirectory(dir=flags.work) as folder:
        work = Path(folder)
        few, _ = measure(flags.data, work, flags.few, flags.steps, flags.backbone)
        many, seconds = measure(flags.data, work, flags.texts, flags.steps, flags.backbone)
        found = json.loads(shared.call([sys.executable, "-m", "benchmarks.input", "read",
                                        str(work / str(flags.texts)), flags.backbone,
                                        str(flags.batches)]))
    slowest, median, fastest = (speed / 1e6 for speed in found["speeds"])
    page = f"""# Prepared data

Written by `python -m benchmarks.input`: phrases of SST-2, again and again, batches of 32.

Reading {flags.batches:,} batches of {flags.texts:,} texts, shuffled and of like length, cache warm,
no model: {median:.2f} million real tokens a second (median of 3; {slowest:.2f} to
{fastest:.2f}); {found['real']:.1%} of the positions are real. Goal: 1 million on 2 cores.

Peak memory of a process that takes {flags.steps} steps of {flags.backbone}:

| prepared texts | MiB |
| --- | --- |
| {flags.few:,} | {few:,} |
| {flags.texts:,} | {many:,} |

ratio: {many / few:.3f} (goal 1.1)

Preparing took {seconds:.0f} s for {flags.texts:,} texts, reading and checking them included.

Commit {shared.commit()}, {shared.today()}.
"""
    (HERE / "input.md").write_text(page, "utf-8")
    print(f"{median:.2f} million tokens a second; ratio: {many / few:.3f}\n"
          f"Wrote {HERE / 'input.md'}")


if __name__ == "__main__":
    main()
