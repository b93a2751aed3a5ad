"""gRPC's status for what went wrong, and the call around each method."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from tf_pipeline.errors import UserError

from ..catalogue import Note
from ..errors import Busy, Late, NotFound

log = logging.getLogger(__name__)

# The client's limit for all that comes behind an answer is 8 KB, and one character may take 12.
LONGEST_SENTENCE = 500
CODES = {NotFound: grpc.StatusCode.NOT_FOUND, Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
         Late: grpc.StatusCode.DEADLINE_EXCEEDED}

Act = Callable[[Any, float | None], Awaitable[Any]]


class Refusal(UserError):
    """What TF Serving answers with another status than INVALID_ARGUMENT."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code


def unary(path: str, act: Act, kind: Any, note: Note) -> grpc.RpcMethodHandler:
    """Make the method at `path` of `act(request, deadline)`; `kind` is the request's class."""
    async def answer(body: bytes, context: grpc.aio.ServicerContext) -> Any:
        start, left_s = time.monotonic(), context.time_remaining()
        deadline = None if left_s is None else start + left_s
        request: Any = None
        status = grpc.StatusCode.CANCELLED  # unless it comes to an end here

        async def work() -> Any:
            nonlocal request
            request = parse(kind, body)
            return await act(request, deadline)

        try:
            # Collected, not caught: a client that goes away or is late still cancels the work.
            found = (await asyncio.gather(work(), return_exceptions=True))[0]
            status = _status(found)
            if isinstance(found, BaseException):
                await abort(found, context)
            return found
        finally:
            model = request.model_spec.name if hasattr(request, "model_spec") else ""
            note("gRPC", path, model, path.rpartition("/")[2], status.name,
                 time.monotonic() - start)

    return grpc.unary_unary_rpc_method_handler(answer, response_serializer=serialize)


def parse(kind: Any, body: bytes) -> Any:
    """Read a message; UserError for bytes that are none."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise UserError(f"The {len(body)} bytes of the request are no {kind.DESCRIPTOR.full_name}: "
                        f"{error}.") from None


def serialize(message: Any) -> bytes:
    """Write a message of any kind."""
    return message.SerializeToString()


async def abort(error: BaseException, context: grpc.aio.ServicerContext) -> None:
    """End a call with the error's status; what no client caused goes to the log alone."""
    if not isinstance(error, UserError):
        log.error("Internal error", exc_info=error)
        await context.abort(_status(error), "Internal error. The server's log holds the reason.")
    # Clients with a retry policy wait as long as this says.
    wait = ((("grpc-retry-pushback-ms", str(int(error.retry_after_s * 1000))),)
            if isinstance(error, Busy) else ())
    sentence = str(error)
    if len(sentence) > LONGEST_SENTENCE:
        sentence = f"{sentence[:LONGEST_SENTENCE]}..."
    await context.abort(_status(error), sentence, wait)


def _status(found: Any) -> grpc.StatusCode:
    """Give the status of what came of a call: an answer or an error."""
    if isinstance(found, Refusal):
        return found.code
    if isinstance(found, UserError):
        return next((CODES[kind] for kind in type(found).__mro__ if kind in CODES),
                    grpc.StatusCode.INVALID_ARGUMENT)
    return (grpc.StatusCode.INTERNAL if isinstance(found, BaseException) else
            grpc.StatusCode.OK)
