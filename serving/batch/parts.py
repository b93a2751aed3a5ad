"""What a job has answered so far: a folder beside its --out, a file for each chunk of rows.

    answers.jsonl.parts/job.json               what is answered, by what and how
                        00000007.jsonl         answers of the eighth chunk: it is done
                        00000007.errors.jsonl  its bad rows, if it has some; written before
                        joined.json            written when all are in one file, before its rename
Every file is renamed into its place when it is whole and on the disk.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tf_pipeline import files
from tf_pipeline.errors import UserError

from .options import BatchOptions

_JOB, _JOINED = "job.json", "joined.json"
_ERRORS = ".errors"


@dataclass(frozen=True)
class Summary:
    """How many rows have an answer and how many have none."""

    answers: int
    errors: int


class Parts:
    """The folder of one job, which one process at a time may work on."""

    def __init__(self, options: BatchOptions):
        self.out, self.errors = options.out, options.errors
        self.folder = options.out.with_name(f"{options.out.name}.parts")

    def check(self, resume: bool) -> bool:
        """Say whether the job has begun; UserError where files are in its way."""
        begun = (self.folder / _JOB).exists()
        if not (begun and resume and self.finished()):
            files.refuse_existing(self.out, "--out")
            if not begun:
                files.refuse_existing(self.errors, "The file of errors of --out,")
        if begun and not resume:
            raise UserError(f"{self.folder} holds a job that did not end, with {len(self.done())} "
                            "chunks of answers. Go on with it by --resume, or delete the folder.")
        if not begun and self.folder.exists() and {p.name for p in self.folder.iterdir()} - {
                "lock", f".{_JOB}.partial"}:
            raise UserError(f"{self.folder} exists and holds no {_JOB}, so no job can go on "
                            "there. Delete it, or choose another --out.")
        return begun

    @contextmanager
    def opened(self, job: dict[str, Any], resume: bool) -> Iterator[None]:
        """Begin the job's folder or, with `resume`, go on with it; UserError if it is another's."""
        begun = self.check(resume)
        with files.disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise UserError(f"{self.folder} is being written to by another job. Wait for it, "
                                "or choose another --out.") from None
        try:
            if begun:
                self._compare(job)
                self._sweep()
            else:
                files.write_text(self.folder / _JOB, json.dumps(job, indent=2) + "\n")
            yield
        finally:
            self._sweep()
            lock.release()

    def done(self) -> set[int]:
        """Give the numbers of the chunks that are answered."""
        return {int(path.stem) for path in self.folder.glob("*.jsonl") if path.stem.isdigit()}

    def finished(self) -> Summary | None:
        """Say what was joined, if the job had come so far that only its folder was left."""
        try:
            content = json.loads((self.folder / _JOINED).read_text("utf-8"))
        except FileNotFoundError:
            return None
        if not self.out.exists() or self.out.stat().st_size != content.pop("bytes"):
            return None
        return Summary(**content)

    def join(self, chunks: int) -> Summary:
        """Write the answers of all chunks into one file, the errors into another."""
        kinds = {self.errors: _ERRORS, self.out: ""}
        aside = {target: target.with_name(f".{target.name}.partial") for target in kinds}
        counts = {}
        with files.disk_errors(self.out):
            try:
                for target, kind in kinds.items():
                    counts[target] = self._write(aside[target], kind, chunks)
                summary = Summary(counts[self.out], counts[self.errors])
                files.write_text(self.folder / _JOINED, json.dumps(
                    {**asdict(summary), "bytes": aside[self.out].stat().st_size}))
                for target in kinds:  # the answers last: they mean that all is there
                    os.replace(aside[target], target)
            finally:
                for path in aside.values():
                    path.unlink(missing_ok=True)
            files.sync(self.out.parent)
        return summary

    def remove(self) -> None:
        """Delete the folder; the last thing that a job does."""
        (self.folder / _JOB).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, path: Path, kind: str, chunks: int) -> int:
        """Join the files of one kind and count their lines."""
        count = 0
        with path.open("wb") as whole:
            for number in range(chunks):
                part = part_path(self.folder, number, kind)
                if kind and not part.exists():
                    continue
                content = part.read_bytes()
                count += content.count(b"\n")
                whole.write(content)
            whole.flush()
            os.fsync(whole.fileno())
        return count

    def _sweep(self) -> None:
        """Delete what killed processes were writing."""
        for path in self.folder.glob(".*.partial"):
            path.unlink(missing_ok=True)

    def _compare(self, job: dict[str, Any]) -> None:
        path = self.folder / _JOB
        try:
            before = json.loads(path.read_text("utf-8"))
        except ValueError:
            raise UserError(f"{path} is damaged: not JSON. Delete {self.folder} and start anew."
                            ) from None
        job = json.loads(json.dumps(job))
        for name in (*job, *before):
            if job.get(name) != before.get(name):
                raise UserError(f"--resume goes on with the job in {self.folder}, which has {name} "
                                f"{_shown(before.get(name))}; now it is {_shown(job.get(name))}. "
                                "Give the same artifact, data and settings, or delete the folder "
                                "to start anew.")


def part_path(folder: Path, chunk: int, kind: str = "") -> Path:
    """Name the file of a chunk's answers."""
    return folder / f"{chunk:08}{kind}.jsonl"


def write_part(folder: Path, chunk: int, answers: bytes, errors: bytes) -> None:
    """Write what a chunk gave; the answers last: they mean that the chunk is done."""
    for kind, content in ((_ERRORS, errors), ("", answers)):
        path = part_path(folder, chunk, kind)
        if kind and not content:
            continue
        # By process: one that lost its parent may be writing the same for a moment.
        aside = folder / f".{path.name}.{os.getpid()}.partial"
        with files.disk_errors(path):
            try:
                with aside.open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(aside, path)
            finally:
                aside.unlink(missing_ok=True)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
