"""The server's token: calls for anything but health must bring it in their metadata."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

OPEN = "/grpc.health.v1.Health/"  # what an orchestrator asks without a token


class Token(grpc.aio.ServerInterceptor):
    """Lets calls pass whose authorization is `Bearer TOKEN`; others are UNAUTHENTICATED."""

    def __init__(self, token: str):
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(
            self, continuation: Callable[[Any], Awaitable[grpc.RpcMethodHandler]],
            handler_call_details: Any) -> grpc.RpcMethodHandler:
        """Give the method that answers a call."""
        given = dict(handler_call_details.invocation_metadata or ()).get("authorization", "")
        if (handler_call_details.method.startswith(OPEN)
                or hmac.compare_digest(given.encode(), self._expected)):
            return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(_refuse)


async def _refuse(body: bytes, context: grpc.aio.ServicerContext) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "The call needs the server's token in its "
                        "metadata: authorization: Bearer TOKEN.")
