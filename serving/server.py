"""The HTTP server: TF Serving's routes, `:answer` for decoded answers, and the page at `/`."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tf_pipeline.artifact import Manifest
from tf_pipeline.errors import UserError
from tf_pipeline.predictor import Predictor
from tf_pipeline.text import INPUTS, Arrays

from . import pages, tf_serving
from .bodies import check_keys, parse_json, show
from .graphs import Graphs
from .options import Limits
from .tf_serving import Signature, Tensor

Json = dict[str, Any]
MODEL_PATHS = ("/v1/models/{name}", "/v1/models/{name}/versions/{version}")


class Service:
    """A loaded artifact that answers request bodies: a file one at a time, from any thread."""

    def __init__(self, predictor: Predictor, limits: Limits, threads: int | None = None):
        self.graphs = Graphs(predictor, threads)
        self.predictor, self.limits = predictor, limits
        assert predictor.manifest is not None
        assert predictor.graph is not None
        self.manifest, self.graph = predictor.manifest, predictor.graph
        self.signatures = signatures_of(predictor)
        self._bounds = bounds_of(predictor)
        self._lock = self.graphs.served.lock

    def predict(self, document: Json) -> Json:
        """Answer a body of `:predict` as TF Serving answers it for the SavedModel."""
        request = tf_serving.read_predict(document, self.signatures)
        signature = self.signatures[request.signature]
        if set(signature.inputs) == set(INPUTS):
            outputs = self._run_tokens(request.inputs, request.signature)
        else:
            for texts in request.inputs.values():
                self._check_texts(texts)
            # An input is called as the record's field that it fills.
            records = [dict(zip(request.inputs, row, strict=True))
                       for row in zip(*request.inputs.values(), strict=True)]
            with self._lock:
                outputs = self.predictor.outputs(self.predictor.encode(records).heads())
        named = {name: self._output(name, outputs).tolist() for name in signature.outputs}
        return tf_serving.write_predict(named, request.by_row)

    def answer(self, document: Json) -> Json:
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
        for column in zip(*texts, strict=True):
            self._check_texts(column)
        path = document.get("file", self.graph.path)
        answers, latency_ms = self.graphs.get(path).answer(texts)
        return {"answers": tf_serving.round_floats(answers), "file": path,
                "latency_ms": round(latency_ms, 3)}

    def files(self) -> Json:
        """Say what `:answer` can be asked for: the files, the labels and the limits."""
        files = [{"path": g.path, "runtime": g.runtime, "variant": g.variant, "bytes": g.bytes,
                  "max_tokens": min(self.manifest.max_len, g.length or self.manifest.max_len),
                  "agreement": g.parity.get("agreement")}
                 for g in self.graphs.offered.values()]
        return {"files": files, "labels": self.manifest.labels,
                "fields": self.predictor.task.text_fields,
                "limits": {"texts": self.limits.max_texts,
                           "characters": self.limits.max_characters}}

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

    def _run_tokens(self, inputs: Mapping[str, list[Any]], signature: str) -> Arrays:
        if self.graph.runtime == "tflite":
            raise UserError(f"Signature {signature!r} is not served from {self.graph.path}: a "
                            f"tflite file takes rows of {self.graph.length} tokens only and gives "
                            f"{', '.join(self.graph.outputs)}. Start the server with --runtime "
                            "onnx or saved_model, or send texts.")
        arrays = {name: np.array(rows, np.int32) for name, rows in inputs.items()}
        self._check_rows(len(arrays["input_ids"]), "rows")
        check_tokens(arrays, self._bounds)
        count = len(arrays["input_ids"])
        size = self.graph.batch or count
        parts = []
        for start in range(0, count, size):
            # The file's one batch size stands also at the end: the last row is run again.
            rows = np.minimum(np.arange(start, start + size), count - 1)
            with self._lock:
                outputs = self.predictor.run({k: v[rows] for k, v in arrays.items()})
            parts.append({name: values[:count - start] for name, values in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _output(self, name: str, outputs: Arrays) -> np.ndarray:
        """Give what the SavedModel computes inside and another runtime's file leaves to us."""
        if name in outputs:
            return outputs[name]
        if name in (served := self.predictor.task.served(outputs)):
            return served[name]
        raise UserError(f"Output {name!r} cannot be had from {self.graph.path}, which gives "
                        f"{', '.join(self.graph.outputs)}. Start the server with --runtime "
                        "saved_model.")


def signatures_of(predictor: Predictor) -> dict[str, Signature]:
    """Give the SavedModel's signatures, or for an artifact without one those it would have."""
    manifest = predictor.manifest
    if manifest is None:
        return {}
    if manifest.signatures:
        return {name: Signature.from_manifest(s) for name, s in manifest.signatures.items()}
    rows = {"probabilities": Tensor("DT_FLOAT", (-1, len(manifest.labels))),
            "logits": Tensor("DT_FLOAT", (-1, len(manifest.labels))),
            "label": Tensor("DT_STRING", (-1,))}
    default = "text" if "text" in predictor.task.OUTPUTS else "tokens"
    inputs = {"text": {field: Tensor("DT_STRING", (-1,), f"serving_default_{field}:0")
                       for field in predictor.task.text_fields},
              "tokens": {n: Tensor("DT_INT32", (-1, -1), f"tokens_{n}:0") for n in INPUTS}}
    return {name: Signature(inputs[key], {n: rows.get(n, Tensor("DT_FLOAT", None))
                                          for n in predictor.task.OUTPUTS[key]})
            for name, key in ((tf_serving.DEFAULT_SIGNATURE, default), ("tokens", "tokens"))}


def takes_text(predictor: Predictor) -> bool:
    """Whether `:predict` takes texts; a SavedModel of core operations alone takes token ids."""
    default = signatures_of(predictor).get(tf_serving.DEFAULT_SIGNATURE)
    return default is not None and set(default.inputs) != set(INPUTS)


@dataclass(frozen=True)
class Bounds:
    """What a graph's lookup tables hold; a number beyond them gives garbage or a crash."""

    length: int
    largest: dict[str, int]  # input name -> largest value


def bounds_of(predictor: Predictor) -> Bounds:
    """Read the architecture's bounds from config.json, or what the manifest implies of them."""
    path = predictor.folder / "config.json"
    config = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return Bounds(config.get("max_position_embeddings", predictor.encoder.max_len), {
        "input_ids": config.get("vocab_size", len(predictor.encoder.vocabulary)) - 1,
        "attention_mask": 1,
        "token_type_ids": config.get("type_vocab_size", 2) - 1})


def check_tokens(arrays: Arrays, bounds: Bounds) -> None:
    """Refuse token ids that the graph cannot look up."""
    shapes = {name: values.shape for name, values in arrays.items()}
    if len(set(shapes.values())) > 1:
        shown = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise UserError(f"The inputs differ in shape: {shown}. Expecting one shape for all.")
    length = arrays["input_ids"].shape[1]
    if not 1 <= length <= bounds.length:
        raise UserError(f"The rows have {length} tokens; allowed are 1 to {bounds.length}.")
    for name, values in arrays.items():
        wrong = np.argwhere((values < 0) | (values > bounds.largest[name]))
        if len(wrong):
            row, column = map(int, wrong[0])
            raise UserError(f"{name} of row {row} holds {values[row, column]} at position {column};"
                            f" allowed are 0 to {bounds.largest[name]}.")


def create_app(predictor: Predictor, limits: Limits | None = None,
               threads: int | None = None) -> Starlette:
    """Build the ASGI application for a loaded artifact; `threads` is for files loaded later."""
    service = Service(predictor, limits or Limits(), threads)

    async def ask(request: Request) -> Response:
        verb = request.path_params["verb"]
        if verb in tf_serving.OTHER_VERBS:
            _check_model(request, service.manifest)
            raise UserError(tf_serving.not_of_kind(verb))
        if verb not in ("predict", "answer"):
            raise HTTPException(404)
        _check_model(request, service.manifest)
        body = await _read_body(request, service.limits.max_body_bytes)
        act = service.predict if verb == "predict" else service.answer
        return await _in_thread(lambda: act(parse_json(body)))

    app = Starlette(
        routes=[*(Route(path + ":{verb}", ask, methods=["POST"]) for path in MODEL_PATHS),
                *_descriptions(service), *pages.ROUTES],
        exception_handlers={HTTPException: _http_error, UserError: _user_error,
                            ClientDisconnect: _gone, Exception: _internal_error})
    app.router.redirect_slashes = False
    return app


def _descriptions(service: Service) -> list[Route]:
    """Give the routes on which the server says what it is."""
    manifest, graph = service.manifest, service.graph
    base = f"/v1/models/{manifest.name}"
    self_description = {"model": manifest.name, "version": manifest.version,
                        "task": manifest.task, "file": graph.path, "runtime": graph.runtime,
                        "variant": graph.variant, "drift": manifest.drift}

    async def status(request: Request) -> Response:
        if ":" in request.path_params["name"]:  # a verb's path, asked for with GET
            raise HTTPException(405, headers={"Allow": "POST"})
        _check_model(request, manifest, tf_serving.no_status)
        return JSONResponse(tf_serving.status(manifest.version))

    async def metadata(request: Request) -> Response:
        _check_model(request, manifest)
        return JSONResponse(tf_serving.metadata(manifest.name, manifest.version,
                                                service.signatures))

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", **self_description})

    async def files(request: Request) -> Response:
        _check_model(request, manifest)
        return JSONResponse({**self_description, **service.files()})

    async def index(request: Request) -> Response:
        if pages.wants_page(request):
            return pages.page()
        return JSONResponse({**self_description, "routes": [
            f"POST {base}:predict", f"POST {base}:answer", f"GET {base}",
            f"GET {base}/metadata", f"GET {base}/files", "GET /healthz"]},
            headers={"Vary": "Accept"})

    routes = [Route("/", index), Route("/healthz", health)]
    for path in MODEL_PATHS:
        routes += [Route(path, status), Route(path + "/metadata", metadata),
                   Route(path + "/files", files)]
    return routes


async def _in_thread(act: Callable[[], Json]) -> Response:
    return JSONResponse(await run_in_threadpool(act))


def _check_model(request: Request, manifest: Manifest,
                 sentence: Callable[[str, str | None], str] = tf_serving.not_found) -> None:
    name, version = request.path_params["name"], request.path_params.get("version")
    if version is not None and not (version.isascii() and version.isdigit()):
        raise HTTPException(404)
    if name != manifest.name or version not in (None, str(manifest.version)):
        raise HTTPException(404, sentence(name, version))


async def _read_body(request: Request, limit: int) -> bytes:
    """Read a body of at most `limit` bytes; a longer one is refused before it is all here."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise HTTPException(415, f"Content-Encoding {encoding!r} is not read; send plain JSON.")
    body = bytearray()
    declared = int(request.headers.get("content-length", 0))
    if declared <= limit:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                break
        else:
            return bytes(body)
    size = f"{declared:,} bytes" if declared else f"over {limit:,} bytes"
    raise HTTPException(413, f"The body has {size}; allowed are {limit:,}. Send fewer texts at "
                        "once, or raise --max-body-bytes of the server.")


def _error(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence, path = error.detail, f"{request.method} {request.url.path}"
    if error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
        sentence = f"Method not allowed: {path}. Allowed: {allowed}."
    elif sentence == "Not Found":
        sentence = f"Malformed request: {path}. GET / lists the routes."
    return _error(error.status_code, sentence, error.headers)


async def _user_error(request: Request, error: Exception) -> Response:
    return _error(400, str(error))


async def _gone(request: Request, error: Exception) -> Response:
    # The client hung up while sending: nobody reads this, and the log needs no traceback.
    return _error(400, "The client closed the connection.")


async def _internal_error(request: Request, error: Exception) -> Response:
    # Starlette raises the error again after this answer, and uvicorn logs its traceback.
    return _error(500, "Internal error. The server's log holds the reason.")
