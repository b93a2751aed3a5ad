"""Starts a server: takes the port, loads the models, and runs as many processes as asked."""

import gc
import json
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import uvicorn

from tf_pipeline.artifact import Manifest
from tf_pipeline.errors import UserError
from tf_pipeline.predictor import Predictor

from .access import Access, Journal
from .catalogue import Catalogue, Served, Version, refuse_reload
from .connections import Connection
from .graphs import refuse_weights
from .options import Limits, Queueing, ServeOptions
from .server import application
from .service import Service
from .signatures import takes_text
from .store import Store
from .watching import Watcher

if TYPE_CHECKING:
    from .metrics import Metrics

log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RESTART_S = 1.0  # before another process takes the place of one that ended at once


def serve(folder: Path, options: ServeOptions, limits: Limits, queueing: Queueing) -> None:
    """Serve an artifact, or a folder of models, until Ctrl-C or SIGTERM.

    Then the requests under way are answered.
    """
    token = options.token
    # First the port, which fails at once, then the model, which may take seconds to load.
    with _bind(options) as listener, _reserved(options), _counting(options) as metrics:
        catalogue, load = Catalogue(), Loader(options, limits, queueing, metrics)
        watcher = None
        if (folder / "manifest.json").exists() or not Store(folder).names():
            service = load(folder)
            catalogue.put(service.name, Version(service.version, "AVAILABLE", service))
        else:
            watcher = Watcher(Store(folder), catalogue, load, options.poll_s,
                              partial(os.kill, os.getpid(), signal.SIGHUP))
            watcher.fill()
        journal = Journal(catalogue, metrics, options.log_requests)
        served = Served(catalogue, limits, watcher.reload if watcher else refuse_reload,
                        journal.add)
        inner = application(served, metrics, partial(_alongside, served, options, watcher))
        app = Access(inner, journal, token)
        try:
            listener.listen(1024)
        except OSError as error:
            raise _cannot_listen(options, error) from None
        config = _configure(app, options, limits)
        log.info("%s", _invitation(catalogue, listener, options))
        work = partial(_run, config, listener, watcher)
        if options.workers == 1:
            work()
        else:
            _supervise(options.workers, work)


@dataclass(frozen=True)
class Loader:
    """Loads and warms artifacts; UserError for one that cannot be served."""

    options: ServeOptions
    limits: Limits
    queueing: Queueing
    metrics: "Metrics"

    def __call__(self, folder: Path, name: str | None = None,
                 version: int | None = None) -> Service:
        """Load a folder, as the model and version of its manifest unless others are given."""
        options = self.options
        manifest = Manifest.load(folder)
        graph = manifest.choose(options.runtime, options.variant, options.length)
        refuse_weights(folder, graph)
        if options.workers > 1 and graph.runtime == "saved_model":
            raise UserError(f"--workers is {options.workers}, and {folder / graph.path} is a "
                            "SavedModel, whose runtime cannot be shared among processes. Use "
                            "--workers 1, or --runtime onnx.")
        predictor = Predictor(folder, options.runtime, options.variant, options.length,
                              options.runtime_threads)
        predictor.warm_up()
        name, version = name or manifest.name, version or manifest.version
        service = Service(predictor, self.limits, self.queueing, options.runtime_threads,
                          partial(self.metrics.observe, name),
                          partial(self.metrics.drift, name, version))
        service.name, service.version = name, version
        return service


@contextmanager
def _counting(options: ServeOptions) -> Iterator["Metrics"]:
    """Give what counts; several processes count into files of a folder."""
    if options.workers > 1:
        with TemporaryDirectory(prefix="serving-metrics-") as folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            from .metrics import Metrics  # now, as the library reads that when it is imported

            yield Metrics(shared=True)
    else:
        from .metrics import Metrics

        yield Metrics()


def _configure(app: Any, options: ServeOptions, limits: Limits) -> uvicorn.Config:
    """Give uvicorn's settings; a certificate that cannot be read is a UserError."""
    config = uvicorn.Config(
        app, http=partial(Connection, read_s=limits.read_timeout_ms / 1e3),  # type: ignore[arg-type]
        log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=10,
        timeout_notify=1, proxy_headers=False,  # nobody asks here where a request comes from
        ssl_certfile=options.tls_cert, ssl_keyfile=options.tls_key)
    try:
        config.load()
    except OSError as error:  # ssl.SSLError, too
        raise UserError(f"--tls-cert {options.tls_cert} and --tls-key {options.tls_key} cannot be "
                        f"used: {error}. Both are files in PEM.") from None
    return config


def _run(config: uvicorn.Config, listener: socket.socket, watcher: Watcher | None) -> None:
    """Answer until a signal; SIGHUP looks at the folder of models."""
    parent = os.getppid()

    async def end_with_parent() -> None:  # killed, it could not say so
        server.should_exit = server.should_exit or os.getppid() != parent

    config.callback_notify = end_with_parent
    server = uvicorn.Server(config)

    def stop(number: int, frame: Any) -> None:
        server.should_exit = True

    # uvicorn takes the signals over, shuts down, and then raises them again for whoever had
    # them before: without a handler here that would end the process with an error.
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, lambda *_: watcher.ask() if watcher else None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    server.run(sockets=[listener])


def _supervise(count: int, work: Callable[[], None]) -> None:
    """Run processes that share the listening socket and the loaded files' memory.

    One that dies is replaced. SIGINT and SIGTERM end all of them, SIGHUP reaches all.
    """
    # What the collector writes into objects would copy their pages.
    gc.collect()
    gc.freeze()
    from prometheus_client.multiprocess import mark_process_dead

    children: dict[int, float] = {}
    stopping = False

    def start() -> None:
        # Held back until the child has handlers of its own: these would end its siblings.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        process = os.fork()
        if process == 0:
            work()
            os._exit(0)
        children[process] = time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def pass_on(number: int, frame: Any) -> None:
        nonlocal stopping
        stopping = stopping or number != signal.SIGHUP
        for child in children:
            os.kill(child, signal.SIGTERM if number == signal.SIGINT else number)

    for number in _SIGNALS:
        signal.signal(number, pass_on)
    while len(children) < count and not stopping:
        start()
    while children:
        process, status = os.wait()
        began = children.pop(process)
        if not stopping:
            log.error("Process %d ended with %s; another takes its place.", process,
                      os.waitstatus_to_exitcode(status))
            mark_process_dead(process)
            if time.monotonic() - began < _RESTART_S:
                time.sleep(_RESTART_S)
            start()


@contextmanager
def _reserved(options: ServeOptions) -> Iterator[None]:
    """Hold the port for gRPC, at which each process listens for itself."""
    if options.grpc_port is None:
        yield
        return
    where = replace(options, port=options.grpc_port)
    _bind(where).close()  # alone: with SO_REUSEPORT a second server would take half of the calls
    with _bind(where, socket.SO_REUSEPORT):
        yield


@asynccontextmanager
async def _alongside(served: Served, options: ServeOptions,
                     watcher: Watcher | None) -> AsyncIterator[None]:
    """Watch the folder of models and answer over gRPC, in the process that answers over HTTP."""
    async with AsyncExitStack() as stack:
        if watcher:
            await stack.enter_async_context(watcher.watching())
        if options.grpc_port:
            import grpc  # after the fork: its threads would not come along

            from .rpc.server import Listening, running

            credentials = None
            if options.tls_cert and options.tls_key:
                credentials = grpc.ssl_server_credentials([(options.tls_key.read_bytes(),
                                                            options.tls_cert.read_bytes())])
            host = f"[{options.host}]" if ":" in options.host else options.host
            await stack.enter_async_context(running(served, Listening(
                f"{host}:{options.grpc_port}", True, options.token, credentials)))
        yield


def _bind(options: ServeOptions, also: int | None = None) -> socket.socket:
    """Take the address without answering at it yet; `also` is one more option of the socket."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # A server that was just stopped leaves its port blocked for a minute otherwise.
            for option in (socket.SO_REUSEADDR, *([] if also is None else [also])):
                listener.setsockopt(socket.SOL_SOCKET, option, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:  # an unknown host name too
        raise _cannot_listen(options, error) from None
    return listener


def _cannot_listen(options: ServeOptions, error: OSError) -> UserError:
    return UserError(f"Cannot listen at {options.host} port {options.port}: {error.strerror}. "
                     "Stop what listens there, or pass another --port (0: any free one) or "
                     "--host.")


def _invitation(catalogue: Catalogue, listener: socket.socket, options: ServeOptions) -> str:
    """Name the models' files, the address, and a line to paste into a shell."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if options.tls_cert else "http"
    url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    names = ", ".join(service.predictor.name for service in catalogue.services)
    first = catalogue.services[0]
    model = f"{url}/v1/models/{quote(first.name, safe='')}"
    example = dict(zip(first.predictor.task.text_fields, ("a text", "another"), strict=False))
    texts = [list(example.values())] if len(example) > 1 else ["a text"]
    verb, body = (("predict", {"instances": [example] if len(example) > 1 else texts})
                  if takes_text(first.predictor) else ("answer", {"texts": texts}))
    what = f"{model}:{verb} -d '{json.dumps(body)}'"
    rpc = f" and gRPC at {host}:{options.grpc_port}" if options.grpc_port else ""
    shared = "" if options.workers == 1 else (f" in {options.workers} processes of "
                                              f"{options.runtime_threads} thread(s) each")
    return f"Serving {names} at {url}{rpc}{shared} - try: curl {what}"
