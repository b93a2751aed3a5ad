"""The routes of KServe's V2 protocol (the Open Inference Protocol) below /v2, in JSON.

The signature is `serving_default`, or what the request's parameters.signature_name says.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tf_pipeline.errors import UserError

from . import tf_serving
from .bodies import check_keys, show
from .catalogue import Catalogue, Reload, refuse_reload
from .service import Json, Service
from .tf_serving import PredictRequest, Signature, Tensor

ReadJson = Callable[[Request], Awaitable[Json]]
Ask = Callable[[Request, Service, PredictRequest], Awaitable[Mapping[str, Any]]]

MODEL_PATHS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
# The first name of a type is what the answers say. JSON's integers have no width: clients whose
# arrays are int64 by default send that.
DATATYPES = {"DT_STRING": ("BYTES",), "DT_INT32": ("INT32", "INT64"),
             "DT_INT64": ("INT64", "INT32"), "DT_FLOAT": ("FP32",)}
BINARY_HEADER = "inference-header-content-length"


async def _ask(request: Request, service: Service, asked: PredictRequest) -> Mapping[str, Any]:
    return await service.predict(asked)


def routes(catalogue: Catalogue, read_json: ReadJson, ask: Ask = _ask,
           reload: Reload = refuse_reload) -> list[Route]:
    """Give the routes; `read_json` reads and limits a body, `ask` may set a deadline.

    `reload` looks for what is new in the folder of models.

    They raise UserError, NotFound, Busy and Late for the application to answer with
    {"error": ...}.
    """
    async def infer(request: Request) -> Response:
        _find(catalogue, request)  # an unknown model's body is not read
        if BINARY_HEADER in request.headers:
            raise UserError(f"The header {BINARY_HEADER} is {request.headers[BINARY_HEADER]!r}, "
                            "and this server reads no binary tensors. Send the data as JSON "
                            "(binary_data=False).")
        document = await read_json(request)
        service = None
        # Again where another version has come while the document was read.
        while service is not (found := _find(catalogue, request)):
            service = found
            asked, wanted = await run_in_threadpool(read, document, service.signatures)
        outputs = await ask(request, found, asked)
        return JSONResponse(await run_in_threadpool(
            write, document, found, found.signatures[asked.signature],
            {name: outputs[name] for name in wanted}))

    return [*_descriptions(catalogue), *_repository(catalogue, read_json, reload),
            *(Route(f"{path}/infer", infer, methods=["POST"]) for path in MODEL_PATHS)]


def _descriptions(catalogue: Catalogue) -> list[Route]:
    """Give the routes on which the server says what it is."""
    async def server(request: Request) -> Response:
        return JSONResponse({"name": "bert-to-every-device", "version": "2",
                             "extensions": ["model_repository"]})

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        answers = all(any(v.service for v in catalogue.versions(name).values())
                      for name in catalogue.names)
        return JSONResponse({"ready": answers}, 200 if answers else 503)

    async def model(request: Request) -> Response:
        service = _find(catalogue, request)
        versions = [str(v.number) for v in catalogue.statuses(service.name) if v.service]
        return JSONResponse({"name": service.name, "versions": versions,
                             **_describe(service.signatures)})

    async def model_ready(request: Request) -> Response:
        return JSONResponse({"name": _find(catalogue, request).name, "ready": True})

    found = [Route("/v2", server), Route("/v2/health/live", live),
             Route("/v2/health/ready", ready)]
    for path in MODEL_PATHS:
        found += [Route(path, model), Route(f"{path}/ready", model_ready)]
    return found


def _repository(catalogue: Catalogue, read_json: ReadJson, reload: Reload) -> list[Route]:
    """Give the routes of the model repository extension, as far as a folder of models has them."""
    async def asked(request: Request, *keys: str) -> Json:
        # KServe's own clients send no body where they have nothing to say.
        document = await read_json(request) if request.headers.get("content-length", "0") != "0" \
            else {}
        check_keys(document, keys)
        return document

    async def index(request: Request) -> Response:
        only_ready = (await asked(request, "ready")).get("ready", False)
        if not isinstance(only_ready, bool):
            raise UserError(f"ready is {show(only_ready)}; expected true or false.")
        return JSONResponse([
            {"name": name, "version": str(known.number),
             "state": "READY" if known.service else "UNAVAILABLE", "reason": known.error}
            for name in catalogue.names for known in catalogue.statuses(name)
            if known.service or not only_ready])

    async def load(request: Request) -> Response:
        await asked(request)
        await reload()
        catalogue.find(request.path_params["name"])  # NotFound where none of its versions answers
        return JSONResponse({})

    return [Route("/v2/repository/index", index, methods=["POST"]),
            Route("/v2/repository/models/{name}/load", load, methods=["POST"])]


def _find(catalogue: Catalogue, request: Request) -> Service:
    version = request.path_params.get("version")
    if version is None:
        return catalogue.find(request.path_params["name"])
    if not (version.isascii() and version.isdigit() and len(version) < 20):
        raise HTTPException(404)
    return catalogue.find(request.path_params["name"], int(version))


def _describe(signatures: Mapping[str, Signature]) -> Json:
    default = signatures[tf_serving.DEFAULT_SIGNATURE]

    def tensors(group: Mapping[str, Tensor]) -> list[Json]:
        return [{"name": name, "datatype": DATATYPES[t.dtype][0], "shape": list(t.shape or (-1,))}
                for name, t in group.items()]

    return {"platform": "bert-to-every-device", "inputs": tensors(default.inputs),
            "outputs": tensors(default.outputs),
            "parameters": {"signature_names": ",".join(signatures)}}


def read(document: Json, signatures: Mapping[str, Signature]) -> tuple[PredictRequest, list[str]]:
    """Check a body of `/infer`; also gives the names of the outputs to send."""
    # KServe's client repeats the path's model_name here; its server does not read it either.
    check_keys(document, ("id", "model_name", "parameters", "inputs", "outputs"))
    if not isinstance(document.get("id", ""), str):
        raise UserError(f"id is {show(document['id'])}; expected a string.")
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise UserError(f"parameters is {show(parameters)}; expected an object.")
    body: Json = {"inputs": {}}
    if "signature_name" in parameters:
        body["signature_name"] = parameters["signature_name"]
    name = body.get("signature_name") or tf_serving.DEFAULT_SIGNATURE
    # An unknown signature takes nothing here, and read_predict refuses it.
    signature = signatures.get(name, Signature({}, {})) if isinstance(name, str) else Signature(
        {}, {})
    for where, tensor in _objects(document.get("inputs"), "inputs"):
        check_keys(tensor, ("name", "shape", "datatype", "data", "parameters"))
        key = _name(tensor, where, body["inputs"])
        takes = signature.inputs.get(key)
        body["inputs"][key] = (tensor.get("data") if takes is None
                               else _data(tensor, takes, f"{where} ({key})"))
    asked = tf_serving.read_predict(body, signatures)
    return asked, _outputs(document, signatures[asked.signature])


def _objects(value: Any, where: str) -> list[tuple[str, Json]]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} is {show(value)}; expected an array of at least one object.")
    for i, item in enumerate(value):
        if not isinstance(item, dict):
            raise UserError(f"{where}[{i}] is {show(item)}; expected an object.")
    return [(f"{where}[{i}]", item) for i, item in enumerate(value)]


def _name(tensor: Json, where: str, before: Any) -> str:
    name = tensor.get("name")
    if not isinstance(name, str):
        raise UserError(f"{where}.name is {show(name)}; expected a string.")
    if name in before:
        raise UserError(f"{where}.name is {show(name)}, which stands twice. Give each once.")
    return name


def _data(tensor: Json, takes: Tensor, where: str) -> list[Any]:
    """Give a tensor's data nested as its shape says; the client may send it flat or nested."""
    datatype, shape, data = (tensor.get(key) for key in ("datatype", "shape", "data"))
    allowed = DATATYPES[takes.dtype]
    if datatype not in allowed:
        raise UserError(f"{where}: datatype is {show(datatype)}; expected {' or '.join(allowed)}.")
    rank = len(takes.shape or (1,))
    if not (isinstance(shape, list) and len(shape) == rank
            and all(type(size) is int and size >= 0 for size in shape)):
        got = shape if isinstance(shape, list) and len(shape) < 10 else show(shape)
        raise UserError(f"{where}: shape is {got}; expected {rank} sizes of 0 or more.")
    if not isinstance(data, list):
        raise UserError(f"{where}: data is {show(data)}; expected an array.")
    flat = _flatten(data, shape, where) if any(isinstance(item, list) for item in data) else data
    if len(flat) != math.prod(shape):
        raise UserError(f"{where}: data has {len(flat)} values, and the shape {shape} needs "
                        f"{math.prod(shape)}.")
    if rank == 1:
        return flat
    # Objects, so that numbers stay as they were sent and are checked as they are.
    whole = np.empty(len(flat), object)
    whole[:] = flat
    return whole.reshape(shape).tolist()


def _flatten(data: list[Any], shape: list[int], where: str) -> list[Any]:
    """Check nested data against its shape, level by level."""
    for depth, size in enumerate(shape):
        if depth:
            data = [value for part in data for value in part]
        inner = depth + 1 < len(shape)
        if any(isinstance(item, list) != inner for item in data) or any(
                inner and len(item) != shape[depth + 1] for item in data) or (
                not depth and len(data) != size):
            raise UserError(f"{where}: data is nested otherwise than its shape {shape} says. Nest "
                            "it so, or send it flat.")
    return data


def _outputs(document: Json, signature: Signature) -> list[str]:
    """Give the outputs that are asked for, or all."""
    if "outputs" not in document:
        return list(signature.outputs)
    names: list[str] = []
    for where, wanted in _objects(document["outputs"], "outputs"):
        check_keys(wanted, ("name", "parameters"))
        name = _name(wanted, where, names)
        if name not in signature.outputs:
            raise UserError(f"{where}.name is {show(name)}; the signature gives "
                            f"{', '.join(signature.outputs)}.")
        names.append(name)
    return names


def write(document: Json, service: Service, signature: Signature,
          outputs: Mapping[str, Any]) -> Json:
    """Lay an answer out: each output flat, row after row."""
    written = []
    for name, values in outputs.items():
        dtype = signature.outputs[name].dtype
        array = np.asarray(values, object if dtype == "DT_STRING" else None)
        written.append({"name": name, "shape": list(array.shape), "datatype": DATATYPES[dtype][0],
                        "data": tf_serving.round_floats(array.ravel().tolist())})
    answer: Json = {"model_name": service.name, "model_version": str(service.version),
                    "outputs": written}
    return answer | ({"id": document["id"]} if "id" in document else {})
