"""Runs where tensorflow-serving-api is installed: `VERSION_FOLDER OUT.npz`.

Sends every warm-up request of a SavedModel over gRPC, between TF Serving's own client stub and its
own servicer, which runs the signature. Inputs and outputs go to OUT, signature names to stdout.
"""

import json
import sys
from concurrent import futures

import grpc
import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers its operations)
from tensorflow_serving.apis import (
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

folder, out = sys.argv[1:]
loaded = tf.saved_model.load(folder)


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers Predict alone."""

    def Predict(self, request: predict_pb2.PredictRequest,  # noqa: N802
                context: grpc.ServicerContext) -> predict_pb2.PredictResponse:
        inputs = {name: tf.constant(tf.make_ndarray(t)) for name, t in request.inputs.items()}
        response = predict_pb2.PredictResponse(model_spec=request.model_spec)
        for name, values in loaded.signatures[request.model_spec.signature_name](**inputs).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
        return response


server = grpc.server(futures.ThreadPoolExecutor(1))
prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
stub = prediction_service_pb2_grpc.PredictionServiceStub(
    grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]))
requests, arrays = [], {}
file = f"{folder}/assets.extra/tf_serving_warmup_requests"
for i, record in enumerate(tf.data.TFRecordDataset(file).as_numpy_iterator()):
    logged = prediction_log_pb2.PredictionLog.FromString(record)
    assert logged.WhichOneof("log_type") == "predict_log"
    request = logged.predict_log.request
    response = stub.Predict(request)
    requests.append({"model": request.model_spec.name,
                     "signature": request.model_spec.signature_name,
                     "inputs": sorted(request.inputs), "outputs": sorted(response.outputs)})
    for group, tensors in (("in", request.inputs), ("out", response.outputs)):
        for name, tensor in tensors.items():
            values = tf.make_ndarray(tensor)
            arrays[f"{group}{i}.{name}"] = (np.char.decode(values.astype(bytes), "utf-8")
                                            if values.dtype == object else values)
server.stop(None)
np.savez(out, **arrays)
print(json.dumps(requests))
