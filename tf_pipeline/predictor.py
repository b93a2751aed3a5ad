"""Texts to answers, from a run or from any file of an artifact: one class for all of them.

`Predictor("artifacts/reviews")(["what a film"])`. TFLite and ONNX need no TensorFlow.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import plugins, runtimes
from .artifact import Graph, Manifest
from .errors import UserError
from .runner import Runner, by_length, run_all, shapes_of
from .task import (
    Answer,
    Confident,
    Judge,
    Prepared,
    Record,
    Scores,
    Task,
    create,
    question,
)
from .text import Arrays, Encoded, Shapes, TextEncoder

log = logging.getLogger(__name__)


class Predictor:
    """A loaded model with its tokenizer and its decoding. The files' hashes are checked.

    Of TFLite files for several lengths, all are loaded, and each text goes to the shortest that
    holds it; with `length`, one.
    """

    manifest: Manifest | None = None
    graph: Graph | None = None
    task: Task
    encoder: TextEncoder
    history: Sequence[dict[str, Any]] = ()  # of a run's training, a row an epoch
    best_epoch: int | None = None

    def __init__(self, folder: Path | str, runtime: str | None = None, variant: str | None = None,
                 length: int | None = None, threads: int | None = None):
        self.folder = Path(folder)
        if (self.folder / "manifest.json").exists() or not (self.folder / "run.json").exists():
            self._open_artifact(runtime, variant, length, threads)
        elif runtime or variant or length:
            raise UserError(f"{self.folder} is a run, which answers with Keras only. Leave out "
                            "--runtime, --variant and --length, or give an artifact.")
        else:
            self._open_run()

    def _open_artifact(self, runtime: str | None, variant: str | None, length: int | None,
                       threads: int | None) -> None:
        manifest = Manifest.load(self.folder)
        graph = manifest.choose(runtime, variant, length)
        graphs = [graph, *(manifest.shorter(graph) if length is None else ())]
        for path in ("tokenizer.json", *(g.path for g in graphs)):
            manifest.check_files(self.folder, path)
        if manifest.drift:
            log.warning("Artifact %s was published with --accept-drift: at least one of its files "
                        "does not give the trained model's answers.", manifest.name)
        self.manifest, self.graph = manifest, graph
        self.task = create(manifest.task, manifest.labels, manifest.options)
        self.encoder = TextEncoder.load(self.folder / "tokenizer.json", manifest.max_len,
                                        manifest.tokenizer["pad_id"])
        load = plugins.load(runtimes, graph.runtime).load
        runners: dict[int, Runner] = {g.length or 0: load(self.folder / g.path, threads)
                                      for g in graphs}
        self._lengths = sorted(runners)
        self._runner: Runner = (by_length(runners) if len(runners) > 1
                                else runners[graph.length or 0])

    def _open_run(self) -> None:
        from .run import Run
        from .runtimes import keras

        run = Run.load(self.folder)
        self.task, self.encoder = run.task, run.encoder
        self.history = run.metrics.get("history", ())
        self.best_epoch = run.metrics.get("best_epoch")
        self._runner = keras.wrap(run.model)

    @property
    def name(self) -> str:
        """What answers, in words."""
        if self.graph is None:
            return f"{self.folder} (keras)"
        shorter = ", ".join(map(str, self._lengths[:-1]))
        return (f"{self.folder / self.graph.path} ({self.graph.runtime} {self.graph.variant}"
                f"{shorter and f'; shorter texts: length {shorter}'})")

    def run(self, inputs: Arrays) -> Arrays:
        """Run token ids as they are: int (batch, length)."""
        return self._runner(inputs)

    @property
    def limit(self) -> int:
        """Longest text in tokens; longer ones are cut."""
        length = self.graph.length if self.graph else None
        return min(self.encoder.max_len, length or self.encoder.max_len)

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Encode records to the length that the model takes."""
        return self.task.encode(records, self.encoder, self.limit)

    def outputs(self, encoded: Encoded) -> Arrays:
        """Run each text once, in batches that the file allows; outputs in the texts' order."""
        return run_all(self._runner, encoded, shapes_of(self.graph) if self.graph else Shapes())

    def __call__(self, texts: Sequence[str | Sequence[str] | Record]) -> list[Answer]:
        """Answer texts, pairs of them, or records, in order."""
        if not texts:
            return []
        records = [text if isinstance(text, dict) else question(self.task, text)
                   for text in texts]
        encoded = self.encode(records)
        return self.task.decode(self.outputs(encoded), records, encoded)

    def warm_up(self) -> None:
        """Answer once: a runtime's first call allocates and compiles."""
        self([["warm-up"] * len(self.task.text_fields)])

    def evaluate(self, records: Sequence[Record]) -> Scores:
        """Score records against their targets."""
        return self.examine(self.prepare(records))[0]

    def prepare(self, records: Sequence[Record]) -> Sequence[Record]:
        """Make the rows that are scored, where a task scores others than it reads."""
        if isinstance(self.task, Prepared):
            return self.task.questions(records, self.encoder, self.limit)
        return records

    def examine(self, records: Sequence[Record]) -> tuple[Scores, Arrays]:
        """Score records against their targets, and give the outputs that were scored."""
        self.task.targets(records)  # an unknown label is named before minutes of work
        outputs = self.outputs(self.encode(records))
        return self.task.score(outputs, records), outputs

    def out_of_scope(self, records: Sequence[Record], outputs: Arrays,
                     outside: Sequence[Record]) -> Scores:
        """Say how well confidence tells scored records from texts that no label fits.

        `outputs` are what `examine` gave for `records`.
        """
        task = self.task
        if not isinstance(task, Confident) or not isinstance(task, Judge):
            raise UserError(f"--out-of-scope is {len(outside)} texts, and the answers of "
                            f"{self.folder} have no confidence; those of classify and multilabel "
                            "have one. Leave it out.")
        if lacking := next((record for record in outside if "text" not in record), None):
            raise UserError(f"--out-of-scope has records with {', '.join(lacking)} and without "
                            "text. Name the column, e.g. ?text=COLUMN.")
        from . import metrics

        correct = np.array([j.correct for j in task.judge(outputs, records)], bool)
        found = task.confidence(self.outputs(self.encode(outside)))
        return metrics.out_of_scope(task.confidence(outputs), correct, found)


def describe(predictor: Predictor) -> dict[str, Any]:
    """Name model, runtime and variant for `--json`."""
    graph = predictor.graph
    return {"model": str(predictor.folder), "runtime": graph.runtime if graph else "keras",
            "variant": graph.variant if graph else "float32"}
