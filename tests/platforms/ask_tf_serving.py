"""Runs where tensorflow-serving-api is installed: `PORT NAME OUT.npz`, a JSON of texts and tokens.

Asks a server with TF Serving's own client and TensorFlow's own tensors. Arrays go to OUT, the rest
to stdout as JSON.
"""

import json
import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

port, name, out = sys.argv[1:]
given = json.load(sys.stdin)
channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[
    ("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1)])
prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
models = model_service_pb2_grpc.ModelServiceStub(channel)


def predict(model: str, signature: str, inputs: dict) -> predict_pb2.PredictResponse:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for key, values in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
    return prediction.Predict(request, timeout=60)


def refusal(call, *words) -> list[str]:
    try:
        call(*words)
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return ["OK", ""]


arrays, specs = {}, []
for group, signature, inputs in (
        ("texts", "", {key: np.array(values, object) for key, values in given["texts"].items()}),
        ("tokens", "tokens", {key: np.array(rows, np.int32)
                              for key, rows in given["tokens"].items()})):
    response = predict(name, signature, inputs)
    specs.append([response.model_spec.name, response.model_spec.version.value,
                  response.model_spec.signature_name])
    for key, tensor in response.outputs.items():
        values = tf.make_ndarray(tensor)
        arrays[f"{group}.{key}"] = (np.char.decode(values.astype(bytes), "utf-8")
                                    if values.dtype == object else values)
np.savez(out, **arrays)

request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
request.model_spec.name = name
signatures = get_model_metadata_pb2.SignatureDefMap()
assert prediction.GetModelMetadata(request).metadata["signature_def"].Unpack(signatures)
request = get_model_status_pb2.GetModelStatusRequest()
request.model_spec.name = name
states = models.GetModelStatus(request).model_version_status
classify = classification_pb2.ClassificationRequest()
classify.model_spec.name = name
classify.input.example_list.examples.add()
print(json.dumps({
    "specs": specs,
    "signatures": {key: {
        "method": signature.method_name,
        **{group: {alias: [tf.as_dtype(info.dtype).name, info.name,
                           [dim.size for dim in info.tensor_shape.dim]]
                   for alias, info in getattr(signature, group).items()}
           for group in ("inputs", "outputs")}}
        for key, signature in signatures.signature_def.items()},
    "states": [[state.version, get_model_status_pb2.ModelVersionStatus.State.Name(state.state),
                state.status.error_code] for state in states],
    "unknown model": refusal(predict, "unknown", "", {"text": ["a"]}),
    "wrong type": refusal(predict, name, "", {"text": [1]}),
    "100 MB": refusal(predict, name, "", {"text": ["a" * 100_000_000]}),
    "classify": refusal(prediction.Classify, classify)}))
