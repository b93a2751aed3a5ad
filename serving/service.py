"""One loaded version of a model: requests in, answers out, whatever protocol brought them."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool

from tf_pipeline.errors import UserError
from tf_pipeline.predictor import Predictor
from tf_pipeline.task import Answer
from tf_pipeline.text import INPUTS, Arrays

from . import tf_serving
from .batching import Observe
from .bodies import check_keys, show
from .drift import DriftWatch
from .graphs import Graphs, ignore
from .options import Limits, Queueing
from .signatures import bounds_of, check_tokens, signatures_of
from .tf_serving import PredictRequest

Json = dict[str, Any]


class Service:
    """Checks requests, lets the artifact's files answer, and lays the answers out."""

    def __init__(self, predictor: Predictor, limits: Limits | None = None,
                 queueing: Queueing | None = None, threads: int | None = None,
                 observe: Observe = ignore, drifted: Observe = ignore):
        self.limits, self.queueing = limits or Limits(), queueing or Queueing()
        self._drift = DriftWatch(predictor, drifted)
        self.graphs = Graphs(predictor, self.queueing, threads, observe, self._drift.see)
        self.predictor = predictor
        assert predictor.manifest is not None
        assert predictor.graph is not None
        self.manifest, self.graph = predictor.manifest, predictor.graph
        self.name, self.version = self.manifest.name, self.manifest.version
        self.signatures = signatures_of(predictor)
        self._bounds = bounds_of(predictor)
        self._under_way = 0
        self._retired = False

    async def predict(self, request: PredictRequest,
                      deadline: float | None = None) -> Arrays:
        """Give a signature's outputs, each (rows, ...).

        `deadline` is in time.monotonic(). Raises Busy and Late.
        """
        signature = self.signatures[request.signature]
        with self.in_use():
            if set(signature.inputs) == set(INPUTS):
                outputs = await self._run_tokens(request, self._by(deadline))
            else:
                for texts in request.inputs.values():
                    self._check_texts(texts)
                # An input is called as the record's field that it fills.
                records = [dict(zip(request.inputs, row, strict=True))
                           for row in zip(*request.inputs.values(), strict=True)]
                outputs = await self.graphs.served.outputs(records, self._by(deadline))
            return {name: self._output(name, outputs) for name in signature.outputs}

    async def predict_json(self, document: Json, deadline: float | None = None) -> Json:
        """Answer a body of `:predict` as TF Serving answers it for the SavedModel."""
        request = tf_serving.read_predict(document, self.signatures)
        outputs = await self.predict(request, deadline)
        return await _off_loop(sum(values.size for values in outputs.values()),
                               tf_serving.write_predict,
                               {name: values.tolist() for name, values in outputs.items()},
                               request.by_row)

    async def answer_json(self, document: Json, deadline: float | None = None) -> Json:
        """Decode the answers of {"texts": [...]} or {"text": "..."}, maybe of another "file".

        For pairs, `texts` holds arrays of two, and `text_b` stands beside `text`.
        """
        fields = self.predictor.task.text_fields
        check_keys(document, ("texts", *fields, "file"))
        given = {key for key in document if key != "file"}
        if given != {"texts"} and given != set(fields):
            rows, one = (("an array of strings", "a string") if len(fields) == 1 else
                         ("an array of arrays of two strings", "strings, both"))
            raise UserError(f"The request is {show(document)}; expected either 'texts' ({rows}) "
                            f"or {' and '.join(map(repr, fields))} ({one}).")
        if "texts" in given:
            texts = tf_serving.read_texts(document["texts"], "texts", len(fields))
        else:
            texts = [[tf_serving.read_text(document[field], field) for field in fields]]
        path = document.get("file", self.graph.path)
        answers, latency_ms = await self.answer(texts, path, deadline)
        rounded = await _off_loop(len(texts) * len(self.manifest.labels or range(384)),
                                  tf_serving.round_floats, answers)
        return {"answers": rounded, "file": path, "latency_ms": round(latency_ms, 3)}

    async def answer(self, texts: Sequence[Sequence[str]], path: str,
                     deadline: float | None = None) -> tuple[list[Answer], float]:
        """Give decoded answers of a file, and the milliseconds that it took.

        `deadline` is in time.monotonic(). Raises Busy and Late.
        """
        for column in zip(*texts, strict=True):
            self._check_texts(column)
        with self.in_use():
            if not self.graphs.is_loaded(path):
                await run_in_threadpool(self.graphs.get, path)
            return await self.graphs.get(path).answer(texts, self._by(deadline))

    def files(self) -> Json:
        """Say what `:answer` can be asked for: the files, the labels and the limits."""
        files = [{"path": g.path, "runtime": g.runtime, "variant": g.variant, "bytes": g.bytes,
                  "max_tokens": min(self.manifest.max_len, g.length or self.manifest.max_len),
                  "agreement": g.parity.get("agreement")}
                 for g in self.graphs.offered.values()]
        return {"files": files, "labels": self.manifest.labels,
                "fields": self.predictor.task.text_fields,
                "limits": {"texts": self.limits.max_texts,
                           "characters": self.limits.max_characters,
                           "bytes": self.limits.max_body_bytes}}

    def describe(self) -> Json:
        """Say what answers."""
        return {"model": self.name, "version": self.version, "task": self.manifest.task,
                "file": self.graph.path, "runtime": self.graph.runtime,
                "variant": self.graph.variant, "drift": self.manifest.drift}

    def drift(self) -> Json:
        """Say how the latest texts differ from those that the model was tested on."""
        return {"model": self.name, "version": self.version, **self._drift.describe()}

    @property
    def waiting(self) -> int:
        """Texts that wait to be answered."""
        return self.graphs.waiting

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the files while the block lasts, though the version be retired meanwhile."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if self._retired and not self._under_way:
                self.graphs.close()

    def retire(self) -> None:
        """Let the files go once the requests under way are answered. No new one may come."""
        self._retired = True
        if not self._under_way:
            self.graphs.close()

    def _by(self, deadline: float | None) -> float:
        """Give the earlier of a request's own deadline and the server's."""
        latest = time.monotonic() + self.queueing.timeout_ms / 1e3
        return latest if deadline is None else min(deadline, latest)

    def _check_texts(self, texts: Sequence[str]) -> None:
        self._check_rows(len(texts), "texts")
        for i, text in enumerate(texts):
            if len(text) > self.limits.max_characters:
                raise UserError(f"Text {i} has {len(text):,} characters; allowed are "
                                f"{self.limits.max_characters:,}. Cut it, or raise "
                                "--max-characters of the server.")

    def _check_rows(self, count: int, noun: str) -> None:
        if count > self.limits.max_texts:
            raise UserError(f"The request holds {count} {noun}; allowed are "
                            f"{self.limits.max_texts}. Send several requests, or raise "
                            "--max-texts of the server.")

    async def _run_tokens(self, request: PredictRequest, deadline: float) -> Arrays:
        if self.graph.runtime == "tflite":
            raise UserError(f"Signature {request.signature!r} is not served from "
                            f"{self.graph.path}: a tflite file takes rows of {self.graph.length} "
                            f"tokens only and gives {', '.join(self.graph.outputs)}. Start the "
                            "server with --runtime onnx or saved_model, or send texts.")
        arrays = {name: np.array(rows, np.int32) for name, rows in request.inputs.items()}
        self._check_rows(len(arrays["input_ids"]), "rows")
        check_tokens(arrays, self._bounds)
        return await self.graphs.served.run(arrays, deadline)

    def _output(self, name: str, outputs: Arrays) -> np.ndarray:
        """Give what the SavedModel computes inside and another runtime's file leaves to us."""
        if name in outputs:
            return outputs[name]
        if name in (served := self.predictor.task.served(outputs)):
            return served[name]
        raise UserError(f"Output {name!r} cannot be had from {self.graph.path}, which gives "
                        f"{', '.join(self.graph.outputs)}. Start the server with --runtime "
                        "saved_model.")


async def _off_loop(values: int, act: Any, *given: Any) -> Any:
    """Lay many values out in another thread, so that other requests need not wait for it."""
    return act(*given) if values < 2_000 else await run_in_threadpool(act, *given)
