"""The HTTP server: TF Serving's routes, `:answer` for decoded answers, and the page at `/`."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tf_pipeline.errors import UserError
from tf_pipeline.predictor import Predictor

from . import openapi, pages, tf_serving, v2
from .bodies import parse_json
from .catalogue import Catalogue, Served
from .errors import GONE, Busy, Late, NotFound
from .options import Limits, Queueing
from .service import Json, Service
from .tf_serving import PredictRequest

if TYPE_CHECKING:
    from .metrics import Metrics

Alongside = Callable[[], AbstractAsyncContextManager[None]]
MODEL_PATHS = tuple("/v1/models/{name}" + which
                    for which in ("", "/versions/{version}", "/labels/{label}"))
TIMEOUT = "x-request-timeout-ms"  # header: how long the client waits for the answer
_LONG_BODY = 50_000  # bytes; takes milliseconds to parse, and other requests wait meanwhile


def create_app(predictor: Predictor, limits: Limits | None = None, threads: int | None = None,
               queueing: Queueing | None = None) -> Starlette:
    """Build the ASGI application for a loaded artifact; `threads` are for its other files."""
    service = Service(predictor, limits, queueing, threads)
    return application(Served(Catalogue.of(service), service.limits))


def application(served: Served, metrics: "Metrics | None" = None,
                alongside: Alongside = nullcontext) -> Starlette:
    """Build the ASGI application for several models.

    `metrics` are given at /metrics; `alongside` is entered while the application runs.
    """
    catalogue, limits = served.catalogue, served.limits

    async def ask(request: Request) -> Response:
        verb = request.path_params["verb"]
        if verb in tf_serving.OTHER_VERBS:
            _find(catalogue, request)
            raise UserError(tf_serving.not_of_kind(verb))
        if verb not in ("predict", "answer"):
            raise HTTPException(404)
        _find(catalogue, request)  # an unknown model's body is not read
        deadline = _deadline(request)
        document = await _read_json(request, limits)
        service = _find(catalogue, request)
        act = service.predict_json if verb == "predict" else service.answer_json
        return JSONResponse(await _while_connected(request, service, act(document, deadline)))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with alongside():
            yield

    app = Starlette(
        lifespan=lifespan,
        routes=[*(Route(path + ":{verb}", ask, methods=["POST"]) for path in MODEL_PATHS),
                *_descriptions(catalogue), *_monitoring(catalogue, metrics),
                *_v2_routes(served), *pages.ROUTES],
        exception_handlers={HTTPException: _http_error, UserError: _user_error,
                            NotFound: _not_found, Busy: _busy, Late: _late,
                            ClientDisconnect: _gone, Exception: _internal_error})
    app.router.redirect_slashes = False
    return app


def _descriptions(catalogue: Catalogue) -> list[Route]:
    """Give the routes on which the server says what it is."""
    async def status(request: Request) -> Response:
        if ":" in request.path_params["name"]:  # a verb's path, asked for with GET
            raise HTTPException(405, headers={"Allow": "POST"})
        version = _version(request)
        if label := request.path_params.get("label"):
            version = catalogue.find(request.path_params["name"], label=label).version
        found = catalogue.statuses(request.path_params["name"], version)
        return JSONResponse(tf_serving.status((v.number, v.state, v.error) for v in found))

    async def metadata(request: Request) -> Response:
        service = _find(catalogue, request)
        return JSONResponse(tf_serving.metadata(service.name, service.version,
                                                service.signatures))

    async def files(request: Request) -> Response:
        service = _find(catalogue, request)
        return JSONResponse({**service.describe(), **service.files()})

    async def drift(request: Request) -> Response:
        return JSONResponse(_find(catalogue, request).drift())

    async def index(request: Request) -> Response:
        if pages.wants_page(request):
            return pages.page()
        routes = [f"{route[0]} /v1/models/{service.name}{route[1]}" for service in
                  catalogue.services for route in (("POST", ":predict"), ("POST", ":answer"),
                                                   ("GET", ""), ("GET", "/metadata"),
                                                   ("GET", "/files"), ("GET", "/drift"))]
        routes += [f"GET {path}" for path in ("/healthz", "/readyz", "/v2", "/openapi.json")]
        return JSONResponse({**_overview(catalogue), "routes": routes}, headers={"Vary": "Accept"})

    routes = [Route("/", index)]
    for path in MODEL_PATHS:
        routes += [Route(path, status), Route(path + "/metadata", metadata),
                   Route(path + "/files", files), Route(path + "/drift", drift)]
    return routes


def _monitoring(catalogue: Catalogue, metrics: "Metrics | None") -> list[Route]:
    """Give the routes that orchestrators and Prometheus ask."""
    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", **_overview(catalogue)})

    async def ready(request: Request) -> Response:
        waiting = [name for name in catalogue.names
                   if not any(v.service for v in catalogue.versions(name).values())]
        return JSONResponse({"ready": not waiting, "not_loaded": waiting}, 503 if waiting else 200)

    async def described(request: Request) -> Response:
        return JSONResponse(openapi.document(catalogue))

    async def measured(request: Request) -> Response:
        assert metrics is not None
        text = await run_in_threadpool(metrics.text, catalogue)
        return Response(text, media_type="text/plain; version=0.0.4")

    paths = ("/metrics", "/monitoring/prometheus/metrics") if metrics else ()  # also TF Serving's
    return [Route("/healthz", health), Route("/readyz", ready), Route("/openapi.json", described),
            *(Route(path, measured) for path in paths)]


def _v2_routes(served: Served) -> list[Route]:
    """Give KServe's routes, with the same limits and deadlines."""
    async def read_json(request: Request) -> Json:
        return await _read_json(request, served.limits)

    async def ask(request: Request, service: Service, asked: PredictRequest) -> Any:
        return await _while_connected(request, service,
                                      service.predict(asked, _deadline(request)))

    return v2.routes(served.catalogue, read_json, ask, served.reload)


def _overview(catalogue: Catalogue) -> Json:
    """Describe all models; a single one without another level."""
    models = [service.describe() for service in catalogue.services]
    return {**(models[0] if len(models) == 1 else {}), "models": models}


def _version(request: Request) -> int | None:
    version = request.path_params.get("version")
    if version is None:
        return None
    if not (version.isascii() and version.isdigit() and len(version) < 20):
        raise HTTPException(404)
    return int(version)


def _find(catalogue: Catalogue, request: Request) -> Service:
    return catalogue.find(request.path_params["name"], _version(request),
                          request.path_params.get("label"))


def _deadline(request: Request) -> float | None:
    """Read the client's deadline, counted from now: in time.monotonic()."""
    given = request.headers.get(TIMEOUT)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and int(given[:12]) > 0):
        raise UserError(f"{TIMEOUT} is {given[:40]!r}; expected milliseconds, a whole number above "
                        "0.")
    return time.monotonic() + int(given[:12]) / 1e3


async def _while_connected(request: Request, service: Service,
                           work: Coroutine[Any, Any, Any]) -> Any:
    """Let the service answer, or stop at once where the client hangs up: nobody reads it then."""
    task, working = asyncio.current_task(), True
    assert task is not None

    def hang_up(_: Any) -> None:
        if working:
            task.cancel()

    gone = asyncio.ensure_future(request.receive())  # behind the body nothing comes but the end
    gone.add_done_callback(hang_up)
    try:
        with service.in_use():
            return await work
    except asyncio.CancelledError:
        if gone.done() and not task.uncancel():  # nobody else wants it to stop
            raise ClientDisconnect from None
        raise
    finally:
        working = False
        gone.cancel()


async def _read_json(request: Request, limits: Limits) -> Json:
    body = await _read_body(request, limits)
    return parse_json(body) if len(body) < _LONG_BODY else await run_in_threadpool(parse_json, body)


async def _read_body(request: Request, limits: Limits) -> bytes:
    """Read a body; one that is too long is refused before it is all here."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise HTTPException(415, f"Content-Encoding {encoding!r} is not read; send plain JSON.")
    body = bytearray()
    declared = int(request.headers.get("content-length", 0))
    limit = limits.max_body_bytes
    if declared <= limit and await _fill(body, request, limits):
        return bytes(body)
    size = f"{declared:,} bytes" if declared else f"over {limit:,} bytes"
    raise HTTPException(413, f"The body has {size}; allowed are {limit:,}. Send fewer texts at "
                        "once, or raise --max-body-bytes of the server.")


async def _fill(body: bytearray, request: Request, limits: Limits) -> bool:
    """Read a body to its end; False where it is too long, 408 where it takes too long."""
    try:
        async with asyncio.timeout(limits.read_timeout_ms / 1e3):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.max_body_bytes:
                    return False
    except TimeoutError:
        raise HTTPException(408, f"After {limits.read_timeout_ms:,} ms {len(body):,} bytes of the "
                            "body were here. Send it faster, or fewer texts at once; or raise "
                            "--read-timeout-ms of the server.") from None
    return True


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


async def _not_found(request: Request, error: Exception) -> Response:
    return _error(404, str(error))


async def _busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, Busy)
    return _error(429, str(error), {"Retry-After": str(error.retry_after_s)})


async def _late(request: Request, error: Exception) -> Response:
    return _error(504, str(error))


async def _gone(request: Request, error: Exception) -> Response:
    # The client hung up: nobody reads this, it is counted, and the log needs no traceback.
    return _error(GONE, "The client closed the connection.")


async def _internal_error(request: Request, error: Exception) -> Response:
    # Starlette raises the error again after this answer, and uvicorn logs its traceback.
    return _error(500, "Internal error. The server's log holds the reason.")
