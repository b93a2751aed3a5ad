"""Runs where tensorflow-serving-api is installed: reads `FOLDER` as TF Serving and others would.

Prints the two text protos as JSON. compose.yaml is held against the Compose specification and
kubernetes.yaml against Kubernetes' own schemas; what does not fit ends the program.
"""

import json
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    text_format,
)
from google.protobuf.wrappers_pb2 import BoolValue
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

folder = Path(sys.argv[1])
KUBERNETES = ("1.30", "1.37")  # an old one that is still about, and the newest known


def batching_parameters() -> type:
    """Make the message, which the package lacks: session_bundle_config.proto of TF Serving."""
    kinds = {"max_batch_size": (1, "Int64Value"), "batch_timeout_micros": (2, "Int64Value"),
             "max_enqueued_batches": (3, "Int64Value"), "num_batch_threads": (4, "Int64Value"),
             "thread_pool_name": (5, "StringValue"),
             "enable_large_batch_splitting": (8, "BoolValue"),
             "max_execution_batch_size": (9, "Int64Value")}
    file = descriptor_pb2.FileDescriptorProto(
        name="batching.proto", package="tensorflow.serving", syntax="proto3",
        dependency=[BoolValue.DESCRIPTOR.file.name])
    message = file.message_type.add(name="BatchingParameters")
    for name, (number, kind) in kinds.items():
        message.field.add(name=name, number=number, label="LABEL_OPTIONAL", type="TYPE_MESSAGE",
                          type_name=f".google.protobuf.{kind}")
    message.field.add(name="allowed_batch_sizes", number=6, label="LABEL_REPEATED",
                      type="TYPE_INT64")
    message.field.add(name="pad_variable_length_inputs", number=7, label="LABEL_OPTIONAL",
                      type="TYPE_BOOL")
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("tensorflow.serving.BatchingParameters"))


def read(path: Path, kind: type) -> dict[str, object]:
    return json_format.MessageToDict(text_format.Parse(path.read_text("utf-8"), kind()),
                                     preserving_proto_field_name=True,
                                     always_print_fields_with_no_presence=True)


subprocess.run([sys.executable, "-m", "check_jsonschema", "--builtin-schema",
                "vendor.compose-spec", folder / "compose.yaml"], check=True,
               stdout=subprocess.DEVNULL)
for document in yaml.safe_load_all((folder / "kubernetes.yaml").read_text("utf-8")):
    for version in KUBERNETES:
        kubernetes_validate.validate(document, version, strict=True)
print(json.dumps({"models": read(folder / "models/models.config", ModelServerConfig),
                  "batching": read(folder / "models/batching.config", batching_parameters())}))
