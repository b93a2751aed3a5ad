"""grpc.health.v1.Health: of the server, of each service, and of each model by its name."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import grpc

from tf_pipeline.errors import UserError

from ..catalogue import Catalogue
from ..errors import NotFound
from . import messages
from .status import abort, parse, serialize

LOOK_EVERY_S = 1.0


class Health:
    """The methods of grpc.health.v1.Health."""

    def __init__(self, catalogue: Catalogue, services: Sequence[str], ending: asyncio.Event):
        self.catalogue, self.ending = catalogue, ending
        self.services = {"", *services}

    def _state(self, service: str) -> str:
        if self.ending.is_set():
            return "NOT_SERVING"
        if service in self.services:
            return "SERVING"
        versions = self.catalogue.statuses(service)
        return "SERVING" if any(v.service for v in versions) else "NOT_SERVING"

    async def check(self, request: Any, deadline: float | None) -> Any:
        """Say whether a service or a model answers; raises NotFound where there is none."""
        return _response(self._state(request.service))

    def watch(self, kind: Any) -> grpc.RpcMethodHandler:
        """Make the method that sends the state at once, and again with each change."""
        async def answer(body: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            try:
                service = parse(kind, body).service
            except UserError as error:
                await abort(error, context)
            before, ended = None, False
            while not ended:
                ended = self.ending.is_set()
                try:
                    state = self._state(service)
                except NotFound:  # one that is not there yet may still come
                    state = "SERVICE_UNKNOWN"
                if state != before:
                    yield _response(state)
                before = state
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.ending.wait(), LOOK_EVERY_S)

        return grpc.unary_stream_rpc_method_handler(answer, response_serializer=serialize)


def _response(state: str) -> Any:
    return messages.HealthCheckResponse(status=state)
