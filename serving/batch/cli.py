"""Answer a file of rows.

    python -m serving batch artifacts/reviews --data csv:rows.csv?text=review --out answers.jsonl
"""

import argparse
from pathlib import Path

from tf_pipeline import command
from tf_pipeline.config import add_flags, from_flags

from .options import BatchOptions


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    described = command.Parser(
        prog="python -m serving batch", description="Answer a file of rows, of any size: a line "
        "of JSON for each row, in their order, with the answer that the server's :answer gives.")
    described.add_argument("artifact", type=Path,
                           help="folder that `python -m export convert` wrote")
    add_flags(described, BatchOptions)
    described.add_argument("--resume", action="store_true", help="go on with the job of --out that "
                           "was killed; without one, begin it")
    described.set_defaults(command=_batch)
    return described


def _batch(flags: argparse.Namespace) -> None:
    from .job import answer_file

    options = from_flags(BatchOptions, flags)
    summary = answer_file(flags.artifact, options, flags.resume)
    print(f"Wrote {options.out} with {summary.answers:,} answers, and {options.errors} with "
          f"{summary.errors:,} rows that have none.")
