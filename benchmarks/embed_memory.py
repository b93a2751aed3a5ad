"""Peak memory of `embed` with cached gradients: writes benchmarks/embed_memory.md.

    python -m benchmarks.embed_memory

Trains a few steps in processes of their own, once with a plain batch of 32 pairs and once with a
batch of 1,024 in parts of 32. Texts are made of random words, 32 tokens each, so that every part
of every batch has the same shape.
"""

import random
import tempfile
from pathlib import Path

from benchmarks import shared
from benchmarks.shared import HERE
from tf_pipeline import command

TOKENS = 32
STEPS = 3
SENTENCE = ("the city bank of a new house was under water in old time and people from every small "
            "town came by train to see what there is left of their long white road")


def write_pairs(path: Path, count: int) -> None:
    """Write pairs of texts that are TOKENS long, [CLS] and [SEP] included."""
    choose = random.Random(0)
    shared.write(path, [{field: " ".join(choose.choices(SENTENCE.split(), k=TOKENS - 2))
                         for field in ("text", "text_b")} for _ in range(count)])


def main() -> None:
    """Measure and write the page."""
    parser = command.Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", default="minilm", help="checkpoint (default: minilm)")
    parser.add_argument("--batch", type=int, default=1024, help="the large batch (default: 1024)")
    parser.add_argument("--part", type=int, default=32, help="the small batch (default: 32)")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        rest = Path(work) / "rest.csv"
        write_pairs(rest, flags.part)
        found = {}
        for batch, mini in ((flags.part, 0), (flags.batch, flags.part)):
            train = Path(work) / f"{batch}.csv"
            write_pairs(train, batch * STEPS)
            found[batch] = shared.peak([
                *shared.KIT, "train", "--task", "embed", "--train", f"csv:{train}",
                "--validation", f"csv:{rest}", "--test", f"csv:{rest}",
                "--backbone", flags.backbone, "--max-len", str(TOKENS),
                "--epochs", "1", "--batch-size", str(batch), "--mini-batch-size", str(mini),
                "--out", str(Path(work) / f"run{batch}")])
    small, large = found[flags.part], found[flags.batch]
    page = f"""# Memory of `embed`

Written by `python -m benchmarks.embed_memory`: peak resident memory of a whole training process,
{STEPS} steps on pairs of {TOKENS} tokens, AdamW, float32. Backbone {flags.backbone}.

| batch | in parts of | MiB |
| --- | --- | --- |
| {flags.part} | - | {small:,} |
| {flags.batch:,} | {flags.part} | {large:,} |

ratio: {large / small:.2f}

Commit {shared.commit()}, {shared.today()}.
"""
    (HERE / "embed_memory.md").write_text(page, "utf-8")
    print(f"ratio: {large / small:.2f}\nWrote {HERE / 'embed_memory.md'}")


if __name__ == "__main__":
    main()
