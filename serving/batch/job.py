"""A whole file answered: what is done stays done, whatever ends the job before its end."""

import importlib.metadata
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tf_pipeline import files, sources
from tf_pipeline.artifact import Graph, Manifest
from tf_pipeline.errors import Preempted, UserError
from tf_pipeline.task import create

from ..graphs import refuse_weights
from .answerer import BatchAnswerer
from .options import BatchOptions
from .parts import Parts, Summary
from .workers import Chunk, Workers

log = logging.getLogger(__name__)

PROGRESS_S = 10.0  # seconds between two lines of progress
# What computes an answer; another version may give other last digits.
PACKAGES = {"onnx": ("onnxruntime",), "tflite": ("ai-edge-litert",),
            "saved_model": ("tensorflow", "tensorflow-text")}


def answer_file(artifact: Path, options: BatchOptions, resume: bool = False) -> Summary:
    """Answer every row of `options.data` into `options.out`, or go on with that.

    A row that cannot be answered stands in `options.errors` with the reason. Preempted where
    SIGTERM, KeyboardInterrupt where Ctrl-C ended it; `resume` then goes on, to the same bytes.
    """
    manifest = Manifest.load(artifact)
    graph = manifest.choose(options.runtime, options.variant, options.length)
    refuse_weights(artifact, graph)
    parts = Parts(options)
    parts.check(resume)
    task = create(manifest.task, manifest.labels, manifest.options)
    rows = sources.rows(options.data, task.text_fields, options.keep)
    chunks = _chunks(rows, options.chunk)
    first = next(chunks, None)  # what is wrong with the file as a whole is said before any work
    path, _ = sources.row_file(options.data)
    if first is None:
        raise UserError(f"{path} has no rows ({path.stat().st_size} bytes). Give a file with at "
                        "least one.")
    before = _state(path)
    with parts.opened(_job(artifact, graph, options), resume):
        summary = parts.finished() if resume else None
        if summary is None:
            answerer = BatchAnswerer(artifact, graph.runtime, graph.variant, graph.length,
                                     max_characters=options.max_characters)
            workers = Workers(answerer, parts.folder, options.processes or _cores())
            with _resumable(parts):
                count = _answer(workers, parts, chain([first], chunks), before[0])
            if _state(path) != before:
                raise UserError(f"{path} was changed while its rows were answered, now "
                                f"{path.stat().st_size:,} bytes. Delete {parts.folder} and "
                                "start anew.")
            with _resumable(parts):
                summary = parts.join(count)
        parts.remove()
    return summary


def _job(artifact: Path, graph: Graph, options: BatchOptions) -> dict[str, Any]:
    """Say all that the answers' bytes follow from; --processes is not among that."""
    path, read_with = sources.row_file(options.data)
    packages = ("numpy", "tokenizers", *PACKAGES[graph.runtime])
    return {"artifact": files.sha256(artifact / "manifest.json"), "file": graph.path,
            "data": {**files.describe(path), **read_with},
            "--chunk": options.chunk, "--keep": ",".join(options.keep),
            "--max-characters": options.max_characters,
            "versions": {name: _version(name) for name in packages}}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # by another name, e.g. onnxruntime-gpu
        return None


def _chunks(rows: Iterator[sources.Row], size: int) -> Iterator[Chunk]:
    number = 0
    while some := list(islice(rows, size)):
        yield Chunk(number, some)
        number += 1


def _answer(workers: Workers, parts: Parts, chunks: Iterator[Chunk], size: int) -> int:
    """Answer the chunks that are not yet answered; gives how many there are in all."""
    done = parts.done()
    seen = 0

    def missing() -> Iterator[Chunk]:
        nonlocal seen
        for chunk in chunks:
            seen += 1
            if chunk.number not in done:
                yield chunk

    if done:
        log.info("Going on: %d chunks of rows are answered.", len(done))
    began = told = time.monotonic()
    rows = errors = 0
    with closing(workers.answer(missing())) as results:
        for result in results:
            rows, errors = rows + result.rows, errors + result.errors
            if (now := time.monotonic()) - told >= PROGRESS_S:
                told = now
                log.info("%s rows done, up to %.0f %% of the file, %s of them bad; %.0f rows a "
                         "second.", f"{rows:,}", 100 * result.end / size, f"{errors:,}",
                         rows / (now - began))
    return seen


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _resumable(parts: Parts) -> Iterator[None]:
    """Say how to go on where the block does not come to its end; SIGTERM ends it as Ctrl-C does."""
    hint = (f"What is answered is kept in {parts.folder}; to go on, give the same command with "
            "--resume.")
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _raise_preempted) if main else None
    try:
        yield
    except Preempted:
        raise Preempted(f"SIGTERM ended the job. {hint}") from None
    except KeyboardInterrupt:
        log.warning("\n%s", hint)
        raise
    except UserError as error:
        raise UserError(f"{error} {hint}") from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _raise_preempted(number: int, frame: Any) -> None:
    raise Preempted(f"signal {number}")
