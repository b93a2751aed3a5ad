"""A gRPC server in a thread, and a client for the messages of our own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from serving.catalogue import Catalogue, Served
from serving.options import Limits
from serving.rpc import messages
from serving.rpc.server import Listening, running


@contextmanager
def grpc_server(catalogue: Catalogue, limits: Limits | None = None,
                **how: Any) -> Iterator[int]:
    """Serve until the block ends; gives the port."""
    ready, ports, stop = threading.Event(), [], asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        where = Listening("127.0.0.1:0", **how)
        async with running(Served(catalogue, limits or Limits()), where) as port:
            ports.append(port)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


class Client:
    """Calls methods by their names, with messages given as keyword arguments."""

    def __init__(self, port: int):
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}",
                                             options=[("grpc.enable_http_proxy", 0)])

    def call(self, method: str, timeout: float | None = 20, metadata: Any = None,
             **fields: Any) -> Any:
        return self.future(method, timeout, metadata, **fields).result()

    def future(self, method: str, timeout: float | None = 20, metadata: Any = None,
               **fields: Any) -> Any:
        service, name = method.rsplit("/", 1)
        kind, answer = messages.methods(service)[name]
        ask = self.channel.unary_unary(f"/{method}", request_serializer=kind.SerializeToString,
                                       response_deserializer=answer.FromString)
        return ask.future(kind(**fields), timeout=timeout, metadata=metadata)
