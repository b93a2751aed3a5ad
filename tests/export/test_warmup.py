"""The warm-up file of a SavedModel: few requests, of every signature, and no real text."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from export import warmup
from tf_pipeline.artifact import Manifest
from tf_pipeline.run import Run

MOST = 1000  # requests that TF Serving reads


def prediction_log() -> type:
    """Make TF Serving's message, of those fields that a request to Predict has."""
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    file = descriptor_pb2.FileDescriptorProto(name="log.proto", package="t", syntax="proto3",
                                              dependency=[TensorProto.DESCRIPTOR.file.name])

    def message(title: str, **fields: tuple[int, str | None]) -> None:
        made = file.message_type.add(name=title)
        for field, (number, kind) in fields.items():
            made.field.add(name=field, number=number, type_name=kind, label="LABEL_REPEATED"
                           if field == "inputs" else "LABEL_OPTIONAL",
                           type="TYPE_MESSAGE" if kind else "TYPE_STRING")

    message("Input", key=(1, None), value=(2, ".tensorflow.TensorProto"))  # a map's entry
    message("ModelSpec", name=(1, None), signature_name=(3, None))
    message("Request", model_spec=(1, ".t.ModelSpec"), inputs=(2, ".t.Input"))
    message("PredictLog", request=(1, ".t.Request"))
    message("PredictionLog", predict_log=(6, ".t.PredictLog"))
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.PredictionLog"))


@pytest.fixture(scope="module")
def requests(artifact: Path) -> list:
    import tensorflow as tf

    kind = prediction_log()

    def read() -> Iterator:
        for record in tf.data.TFRecordDataset(str(artifact / "saved_model/1" / warmup.FILE)):
            logged = kind.FromString(record.numpy())
            assert logged.SerializeToString() == record.numpy()  # no field that it does not know
            yield logged.predict_log.request

    return list(read())


def test_each_signature_is_asked_one_text_and_several(artifact: Path, requests: list) -> None:
    import tensorflow as tf

    found: dict[str, list[tuple[int, ...]]] = {}
    for request in requests:
        tensors = {item.key: tf.make_ndarray(item.value) for item in request.inputs}
        name = request.model_spec.signature_name
        assert request.model_spec.name == "classify"
        assert tensors.keys() == Manifest.load(artifact).signatures[name]["inputs"].keys()
        found.setdefault(name, []).append(next(iter(tensors.values())).shape)
        if name == "tokens":
            assert all(values.dtype == np.int32 for values in tensors.values())
    most = warmup.LARGER_BATCH
    assert found["serving_default"] == [(1,), (1,), (most,), (most,)]
    (one, short), (_, whole), (several, _), (_, longest) = found["tokens"]
    assert (one, several) == (1, most)
    assert short < whole == longest == 96
    assert len(requests) < MOST


def test_no_real_text_is_in_it(run_folder: Path, artifact: Path) -> None:
    content = (artifact / "saved_model/1" / warmup.FILE).read_bytes()
    rows = Run.load(run_folder).evaluation("test")
    assert len(rows) > 50
    assert not [row["text"] for row in rows if row["text"].encode() in content]
