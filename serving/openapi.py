"""What the HTTP server takes and gives, as an OpenAPI 3.1 document: `GET /openapi.json`."""

from collections.abc import Mapping
from typing import Any

from .catalogue import Catalogue

Json = dict[str, Any]
_TEXT = {"type": "string", "minLength": 0, "maxLength": 1000}
_TEXTS = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 16}
_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"],
          "additionalProperties": False}
# What any request may meet, and what one that is to be answered may meet besides.
_ALWAYS = {"401": "The server asks for a token.", "404": "No such model, version or label."}
_ANSWERING = {"400": "The request cannot be answered as it is.", "408": "The body was too slow.",
              "413": "The body is too long.", "415": "The body is compressed.",
              "429": "Too much waits; Retry-After says how long.", "504": "The deadline passed."}
_WHICH = {"": (), "/versions/{version}": ("version",), "/labels/{label}": ("label",)}
_VERBS: dict[str, tuple[str, Json, Json]] = {
    "predict": ("Raw outputs, as TF Serving gives them.", {"anyOf": [
        {"type": "object", "required": ["instances"], "additionalProperties": False,
         "properties": {"instances": {"type": "array", "minItems": 1},
                        "signature_name": {"type": "string"}}},
        {"type": "object", "required": ["inputs"], "additionalProperties": False,
         "properties": {"inputs": {"type": ["array", "object"]},
                        "signature_name": {"type": "string"}}}]},
        {"anyOf": [{"type": "object", "required": [key], "properties": {key: {}}}
                   for key in ("predictions", "outputs")]}),
    "answer": ("Decoded answers.", {"anyOf": [
        {"type": "object", "required": ["texts"], "additionalProperties": False,
         "properties": {"texts": {"anyOf": [_TEXTS, {"type": "array", "items": _TEXTS}]},
                        "file": {"type": "string"}}},
        {"type": "object", "required": ["text"], "additionalProperties": False,
         "properties": {"text": _TEXT, "text_b": _TEXT, "file": {"type": "string"}}}]},
        {"type": "object", "required": ["answers", "file", "latency_ms"], "properties": {
            "answers": {"type": "array", "items": {"type": "object"}}, "file": {"type": "string"},
            "latency_ms": {"type": "number"}}})}
_READS = {
    "": ("Which versions there are, and what became of them.", "model_version_status"),
    "/metadata": ("The signatures of :predict.", "metadata"),
    "/files": ("The files, labels and limits of :answer.", "files"),
    "/drift": ("How unlike the latest texts are to those of the model's test.", "measures")}


def document(catalogue: Catalogue) -> Json:
    """Build the document for the models that are served now.

    KServe's V2 protocol has a document of its own, published with it.
    """
    known: dict[str, list[Any]] = {"model": catalogue.names, "label": catalogue.labels,
             "version": sorted({n for name in catalogue.names for n in catalogue.versions(name)})}
    paths: Json = {}
    for which, names in _WHICH.items():
        if not all(known[name] for name in names):
            continue
        base, given = f"/v1/models/{{model}}{which}", ("model", *names)
        for verb, (about, body, answer) in _VERBS.items():
            paths[f"{base}:{verb}"] = {"post": {
                **_operation(f"{verb}{''.join(names)}", about, answer, {**_ALWAYS, **_ANSWERING}),
                "parameters": [*_path(given, known), _DEADLINE],
                "requestBody": {"required": True, "content": {"application/json":
                                                              {"schema": body}}}}}
        for part, (about, key) in _READS.items():
            name = f"{part.strip('/') or 'status'}{''.join(names)}"
            paths[base + part] = {"get": {
                **_operation(name, about, {"type": "object", "required": [key]}, _ALWAYS),
                "parameters": _path(given, known)}}
    paths["/healthz"] = {"get": _operation("health", "Whether the server is well.",
                                           {"type": "object", "required": ["status"]}, {})}
    paths["/readyz"] = {"get": _operation(
        "ready", "Whether every model has a version that answers.",
        {"type": "object", "required": ["ready"]}, {"503": "One has none."},
        {"type": "object", "required": ["ready", "not_loaded"]})}
    return {"openapi": "3.1.0", "info": {"title": "python -m serving", "version": "1"},
            "paths": paths, "components": {"securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"}}}, "security": [{}, {"token": []}]}


_DEADLINE = {"name": "X-Request-Timeout-Ms", "in": "header", "required": False,
             "description": "How long the client waits for the answer.",
             "schema": {"type": "integer", "minimum": 1, "maximum": 600_000}}


def _path(names: tuple[str, ...], known: Mapping[str, list[Any]]) -> list[Json]:
    return [{"name": name, "in": "path", "required": True, "schema": {"enum": known[name]}}
            for name in names]


def _operation(name: str, about: str, answer: Json, errors: Mapping[str, str],
               error: Json = _ERROR) -> Json:
    content = {"application/json": {"schema": error}}
    return {"operationId": name, "summary": about, "responses": {
        "200": {"description": about, "content": {"application/json": {"schema": answer}}},
        **{status: {"description": said, "content": content} for status, said in errors.items()}}}
