"""The artifact's files that can answer in this server: each is loaded when first asked for."""

import importlib.util
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from tf_pipeline.artifact import Graph
from tf_pipeline.errors import UserError
from tf_pipeline.predictor import Predictor
from tf_pipeline.task import Answer, Record, question
from tf_pipeline.text import Arrays, Encoded

from .batching import Act, Batcher, Observe, Work
from .bodies import show
from .options import Queueing

# What a runtime imports when it loads a file.
MODULES = {"onnx": ("onnxruntime",), "tflite": ("ai_edge_litert",),
           "saved_model": ("tensorflow", "tensorflow_text")}


See = Callable[[Encoded, Arrays], None]


def ignore(measure: str, value: float) -> None:
    """Measure nothing."""


def unseen(encoded: Encoded, outputs: Arrays) -> None:
    """Look at no text."""


class LoadedGraph:
    """A predictor that answers many requests at a time, from any event loop.

    `see` is given the texts of each call with what the file says of them.
    """

    def __init__(self, predictor: Predictor, queueing: Queueing, observe: Observe = ignore,
                 see: See = unseen):
        assert predictor.graph is not None
        self.predictor, self._graph = predictor, predictor.graph
        self._observe, self._see = observe, see
        self._batcher = Batcher(queueing, self._graph.batch or queueing.batch_size, observe)
        self.close = self._batcher.close

    @property
    def waiting(self) -> int:
        """Texts that wait for the file."""
        return self._batcher.waiting

    async def answer(self, texts: Sequence[Sequence[str]],
                     deadline: float) -> tuple[list[Answer], float]:
        """Answer questions of one text or two.

        Also gives the milliseconds from texts to answers, without the waiting.
        """
        records = [question(self.predictor.task, text) for text in texts]
        return await self._ask(self._answers, records, texts, deadline)

    async def outputs(self, records: Sequence[Record], deadline: float) -> Arrays:
        """Give the outputs for texts, as the SavedModel's text signature has them."""
        return await self._ask(self._outputs, records, [list(r.values()) for r in records],
                               deadline)

    async def run(self, inputs: Arrays, deadline: float) -> Arrays:
        """Run token ids as they are: int (rows, length)."""
        rows, length = inputs["input_ids"].shape
        return await self._batcher.ask(Work(self._run, inputs, rows, (self._run, length), deadline))

    async def _ask(self, act: Act, records: Sequence[Record], texts: Sequence[Sequence[str]],
                   deadline: float) -> Any:
        # Together goes what differs by less than twice in length: a short text would otherwise
        # wait for a long one.
        longest = max(sum(map(len, parts)) for parts in texts)
        return await self._batcher.ask(Work(act, records, len(records),
                                            (act, longest.bit_length()), deadline))

    def _answers(self, asked: list[list[Record]]) -> list[tuple[list[Answer], float]]:
        records = list(chain.from_iterable(asked))
        start = time.perf_counter()
        encoded, outputs = self._infer(records)
        before = time.perf_counter()
        answers = iter(self.predictor.task.decode(outputs, records, encoded))
        found = [list(islice(answers, len(part))) for part in asked]
        end = time.perf_counter()
        self._observe("decode", end - before)
        return [(part, (end - start) * 1e3) for part in found]

    def _outputs(self, asked: list[list[Record]]) -> list[Arrays]:
        encoded, outputs = self._infer(list(chain.from_iterable(asked)), heads=True)
        found, start = [], 0
        for part in asked:
            end = start + len(part)
            # What has a row for each token is as long as the request's own longest text.
            length = None if self._graph.length else encoded.lengths[start:end].max()
            found.append({name: values[start:end, :length] if values.ndim > 2 else values[start:end]
                          for name, values in outputs.items()})
            start = end
        return found

    def _infer(self, records: list[Record], heads: bool = False) -> tuple[Encoded, Arrays]:
        start = time.perf_counter()
        encoded = self.predictor.encode(records)
        encoded = encoded.heads() if heads else encoded
        before = time.perf_counter()
        outputs = self.predictor.outputs(encoded)
        end = time.perf_counter()
        self._observe("tokenize", before - start)
        self._observe("infer", end - before)
        self._see(encoded, outputs)
        return encoded, outputs

    def _run(self, asked: list[Arrays]) -> list[Arrays]:
        start = time.perf_counter()
        arrays = {name: np.concatenate([one[name] for one in asked]) for name in asked[0]}
        count = len(arrays["input_ids"])
        size, parts = self._graph.batch or count, []
        for first in range(0, count, size):
            # The file's one batch size stands also at the end: the last row is run again.
            rows = np.minimum(np.arange(first, first + size), count - 1)
            outputs = self.predictor.run({k: v[rows] for k, v in arrays.items()})
            parts.append({name: values[:count - first] for name, values in outputs.items()})
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        cuts = np.cumsum([len(one["input_ids"]) for one in asked])[:-1]
        pieces = {name: np.split(values, cuts) for name, values in whole.items()}
        self._observe("infer", time.perf_counter() - start)
        return [{name: pieces[name][i] for name in pieces} for i in range(len(asked))]


class Graphs:
    """The files of an artifact by their path; the one that is served is there from the start."""

    def __init__(self, served: Predictor, queueing: Queueing, threads: int | None = None,
                 observe: Observe = ignore, see: See = unseen):
        if served.manifest is None or served.graph is None:
            raise UserError(f"{served.folder} is a run, not an artifact. Convert it first: "
                            "python -m export convert.")
        refuse_weights(served.folder, served.graph)
        self._make = partial(LoadedGraph, queueing=queueing, observe=observe, see=see)
        self.served = self._make(served)
        self._folder, self._threads = served.folder, threads
        # Weights for training frameworks are no file to answer with.
        self._listed = {g.path: g for g in served.manifest.graphs if g.runtime in MODULES}
        # Another runtime's file is offered where its runtime is installed; nothing is imported.
        self.offered: dict[str, Graph] = {path: g for path, g in self._listed.items()
                                          if g == served.graph or _installed(g.runtime)}
        self._loaded = {served.graph.path: self.served}
        # One for all files: runtimes silence the process's stderr while they load.
        self._loading = threading.Lock()

    def is_loaded(self, path: Any) -> bool:
        """Whether `get` answers at once; refusals do, too."""
        return not isinstance(path, str) or path in self._loaded or path not in self.offered

    def get(self, path: Any) -> LoadedGraph:
        """Give the file at a path of the manifest, loading it once; UserError for any other."""
        if not isinstance(path, str) or path not in self.offered:
            raise UserError(self._refusal(path))
        if path not in self._loaded:
            with self._loading:
                if path not in self._loaded:
                    self._loaded[path] = self._load(self.offered[path])
        return self._loaded[path]

    def _refusal(self, path: Any) -> str:
        known = f"Known: {', '.join(self.offered)}."
        if not isinstance(path, str):
            return f"file is {show(path)}; expected a string. {known}"
        if path in self._listed:
            modules = " and ".join(MODULES[self._listed[path].runtime])
            return (f"file is {show(path)}, and this server has no {modules} to run it with. "
                    f"{known} Or install {modules} and start the server again.")
        return f"file is {show(path)}, which the artifact does not offer. {known}"

    def _load(self, graph: Graph) -> LoadedGraph:
        predictor = Predictor(self._folder, graph.runtime, graph.variant, graph.length,
                              self._threads)
        predictor.warm_up()
        return self._make(predictor)

    @property
    def waiting(self) -> int:
        """Texts that wait for any of the files."""
        return sum(loaded.waiting for loaded in list(self._loaded.values()))

    def close(self) -> None:
        """Let go of the files. Nothing may be asked any more."""
        for loaded in self._loaded.values():
            loaded.close()


def refuse_weights(folder: Path, graph: Graph) -> None:
    """Raise UserError for a file that no runtime answers with."""
    if graph.runtime not in MODULES:
        raise UserError(f"{folder} holds {graph.path} alone, which is for training frameworks. "
                        "Convert the run with --formats onnx as well.")


def _installed(runtime: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in MODULES[runtime])
