"""The gRPC server: TF Serving's PredictionService and ModelService, and gRPC's own Health.

It answers what the HTTP server answers, from the same loaded models. To ask it with TF Serving's
client: `PredictionServiceStub(grpc.insecure_channel("127.0.0.1:8500")).Predict(request)`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from tf_pipeline.errors import UserError

from ..catalogue import Note, Served
from . import messages
from .health import Health
from .models import Models
from .prediction import Prediction
from .status import Act, unary
from .token import Token

PREDICTION, MODELS = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
HEALTH = "grpc.health.v1.Health"
GRACE_S = 10  # for calls under way, as the HTTP server has it


@dataclass(frozen=True)
class Listening:
    """Where a server listens, and to whom."""

    address: str  # host:port; port 0: any free one
    shared: bool = False  # processes at one port get a part of the connections each
    token: str | None = None  # calls for anything but health bring it: authorization: Bearer TOKEN
    credentials: grpc.ServerCredentials | None = None  # with them TLS


@asynccontextmanager
async def running(served: Served, where: Listening) -> AsyncIterator[int]:
    """Serve while the block lasts, and then answer the calls under way; gives the port."""
    ending = asyncio.Event()
    server, port = create(served, where, ending)
    await server.start()
    try:
        yield port
    finally:
        ending.set()
        await server.stop(GRACE_S)


def create(served: Served, where: Listening,
           ending: asyncio.Event | None = None) -> tuple[grpc.aio.Server, int]:
    """Make a server that listens; also gives its port.

    To be called where its event loop runs. `ending` says to those who watch its health that it
    goes. UserError where the address cannot be had.
    """
    server = grpc.aio.server(interceptors=[Token(where.token)] if where.token else [], options=[
        ("grpc.max_receive_message_length", served.limits.max_body_bytes),
        # Else a second server at the same port takes half of the calls, and nobody is told.
        ("grpc.so_reuseport", int(where.shared)),
        # Plain messages only: a small compressed one may hold gigabytes, which are counted late.
        ("grpc.compression_enabled_algorithms_bitset", 1)])
    catalogue, note = served.catalogue, served.note
    prediction = Prediction(catalogue, served.limits)
    models = Models(catalogue, served.reload)
    health = Health(catalogue, (PREDICTION, MODELS), ending or asyncio.Event())
    watch = messages.methods(HEALTH)["Watch"][0]
    server.add_generic_rpc_handlers((
        _handler(PREDICTION, note, {"Predict": prediction.predict, "Classify": prediction.classify,
                              "Regress": prediction.regress,
                              "MultiInference": prediction.multi_inference,
                              "GetModelMetadata": prediction.metadata}),
        _handler(MODELS, note, {"GetModelStatus": models.status,
                          "HandleReloadConfigRequest": models.reload}),
        _handler(HEALTH, note, {"Check": health.check}, {"Watch": health.watch(watch)})))
    try:
        port = (server.add_secure_port(where.address, where.credentials) if where.credentials
                else server.add_insecure_port(where.address))
    except RuntimeError as error:
        raise _cannot_listen(where.address, str(error).partition(";")[0]) from None
    if not port:  # how older versions of grpcio say it
        raise _cannot_listen(where.address, "it is taken, or no address of this computer")
    return server, port


def _handler(service: str, note: Note, acts: Mapping[str, Act],
             streams: Mapping[str, grpc.RpcMethodHandler] | None = None) -> grpc.GenericRpcHandler:
    kinds = messages.methods(service)
    made = {name: unary(f"/{service}/{name}", act, kinds[name][0], note)
            for name, act in acts.items()}
    return grpc.method_handlers_generic_handler(service, {**made, **(streams or {})})


def _cannot_listen(address: str, reason: str) -> UserError:
    return UserError(f"Cannot listen at {address} for gRPC: {reason}. Stop what listens there, or "
                     "choose another port (0: any free one).")
