"""What the benchmarks share: places, data files that may be missing, the commit."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benchmarks"
KIT = (sys.executable, "-m", "tf_pipeline")


def read(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a CSV with a header, or of a file with a JSON object a line."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text(path).splitlines()]
    return list(csv.DictReader(text(path).splitlines(keepends=True)))


def text(path: Path) -> str:
    """Read a data file; a missing one ends the program with the reason."""
    if not path.is_file():
        raise SystemExit(f"error: --data lacks {path}. benchmarks/data.md says where it is from.")
    return path.read_text("utf-8")


def write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write rows as a CSV with the header of the first."""
    first, *others = rows
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(first))
        writer.writeheader()
        writer.writerows([first, *others])


def interpreter(python: str) -> str:
    """Check the peer's interpreter."""
    if not shutil.which(python):
        raise SystemExit(f"error: --peer {python} is no program. Give the python of an environment "
                         "with benchmarks/peers/requirements.txt.")
    return python


def call(words: list[str], given: str | None = None) -> str:
    """Run a command to its end and give what it printed; a failure ends this program too."""
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, input=given)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(words)}\n{done.stderr[-3000:]}")
    return done.stdout


def peak(words: list[str]) -> int:
    """Run a command to its end and give its peak memory in MiB; a failure ends this program."""
    return mebibytes(int(call([sys.executable, "-m", "benchmarks.peak", *words]).splitlines()[-1]))


def mebibytes(maxrss: int) -> int:
    """Read ru_maxrss, which is KiB on Linux and bytes on macOS."""
    return maxrss // (1 << 20 if sys.platform == "darwin" else 1 << 10)


def commit() -> str:
    """Name the code that is measured."""
    return call(["git", "rev-parse", "--short", "HEAD"]).strip()


def today() -> str:
    """Give the date as YYYY-MM-DD."""
    return datetime.now(UTC).date().isoformat()
