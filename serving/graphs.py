"""The artifact's files that can answer in this server: each is loaded when first asked for."""

import importlib.util
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_pipeline.artifact import Graph
from tf_pipeline.errors import UserError
from tf_pipeline.predictor import Predictor
from tf_pipeline.task import Answer

from .bodies import show

# What a runtime imports when it loads a file.
MODULES = {"onnx": ("onnxruntime",), "tflite": ("ai_edge_litert",),
           "saved_model": ("tensorflow", "tensorflow_text")}


class LoadedGraph:
    """A predictor that answers one request at a time, from any thread."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        # A TFLite interpreter and the tokenizer hold state of the call under way.
        self.lock = threading.Lock()

    def answer(self, texts: Sequence[Sequence[str]]) -> tuple[list[Answer], float]:
        """Answer questions of one text or two.

        Also gives the milliseconds from texts to answers, without the waiting.
        """
        with self.lock:
            start = time.perf_counter()
            answers = self.predictor(texts)
            return answers, (time.perf_counter() - start) * 1e3


class Graphs:
    """The files of an artifact by their path; the one that is served is there from the start."""

    def __init__(self, served: Predictor, threads: int | None = None):
        if served.manifest is None or served.graph is None:
            raise UserError(f"{served.folder} is a run, and only artifacts are served. Convert "
                            "it first: python -m export convert.")
        refuse_weights(served.folder, served.graph)
        self.served = LoadedGraph(served)
        self._folder, self._threads = served.folder, threads
        # Weights for training frameworks are no file to answer with.
        self._listed = {g.path: g for g in served.manifest.graphs if g.runtime in MODULES}
        # Another runtime's file is offered where its runtime is installed; nothing is imported.
        self.offered: dict[str, Graph] = {path: g for path, g in self._listed.items()
                                          if g == served.graph or _installed(g.runtime)}
        self._loaded = {served.graph.path: self.served}
        # One for all files: runtimes silence the process's stderr while they load.
        self._loading = threading.Lock()

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
        return LoadedGraph(predictor)


def refuse_weights(folder: Path, graph: Graph) -> None:
    """Raise UserError for a file that no runtime answers with."""
    if graph.runtime not in MODULES:
        raise UserError(f"{folder} holds {graph.path} alone, which is for training frameworks. "
                        "Convert the run with --formats onnx as well.")


def _installed(runtime: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in MODULES[runtime])
