"""The messages of the .proto files beside this one, read from the compiled messages.binpb.

After a change of a .proto, with grpcio-tools of requirements-dev.txt:

    cd serving/rpc && python -m grpc_tools.protoc --proto_path=. \
        --descriptor_set_out=messages.binpb tensorflow.proto serving.proto health.proto
"""

from pathlib import Path
from typing import Any

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    wrappers_pb2,
)

COMPILED = Path(__file__).with_name("messages.binpb")


def _pool() -> descriptor_pool.DescriptorPool:
    # A pool of our own: TensorFlow and tensorflow-serving-api register the same names in the
    # default one. Descriptors, unlike generated code, load under every protobuf.
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(COMPILED.read_bytes()).file
    for module in (any_pb2, wrappers_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in files:
        pool.Add(file)
    return pool


_POOL = _pool()


def message(name: str) -> Any:
    """Give a message's class by its full name, e.g. tensorflow.serving.PredictRequest."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


def methods(service: str) -> dict[str, tuple[Any, Any]]:
    """Give the classes of request and answer of each method of a service."""
    found = _POOL.FindServiceByName(service).methods
    return {method.name: (message_factory.GetMessageClass(method.input_type),
                          message_factory.GetMessageClass(method.output_type))
            for method in found}


DataType = _POOL.FindEnumTypeByName("tensorflow.DataType")
State = _POOL.FindEnumTypeByName("tensorflow.serving.ModelVersionStatus.State")
TensorProto = message("tensorflow.TensorProto")
PredictResponse = message("tensorflow.serving.PredictResponse")
SignatureDefMap = message("tensorflow.serving.SignatureDefMap")
GetModelMetadataResponse = message("tensorflow.serving.GetModelMetadataResponse")
ReloadConfigResponse = message("tensorflow.serving.ReloadConfigResponse")
GetModelStatusResponse = message("tensorflow.serving.GetModelStatusResponse")
HealthCheckResponse = message("grpc.health.v1.HealthCheckResponse")
