"""Requests that TF Serving runs on a version before that version answers anybody.

`VERSION/assets.extra/tf_serving_warmup_requests` is a TFRecord of `PredictionLog` messages, as
tensorflow_serving/apis/prediction_log.proto, predict.proto and model.proto number their fields.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_pipeline.task import Record, generated_questions
from tf_pipeline.text import generated_texts

from .twin import Twin

FILE = "assets.extra/tf_serving_warmup_requests"
LARGER_BATCH = 8  # a server that batches must allow as many: a refused request stops the loading


def write(folder: Path, twin: Twin, name: str, signatures: Mapping[str, Sequence[str]]) -> None:
    """Write the requests for each signature; `signatures` gives the inputs' names.

    Texts are random words: what the run was trained on stays private.
    """
    import tensorflow as tf

    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as records:
        for signature, inputs in signatures.items():
            takes_text = set(inputs) == set(twin.task.text_fields)
            for batch in _batches(twin):
                given = _texts(twin, batch) if takes_text else _tokens(twin, batch)
                records.write(_prediction_log(name, signature, given))


def _batches(twin: Twin) -> Iterator[list[Record]]:
    """One text and several, short ones and as long as the model reads."""
    short = generated_questions(twin.task, twin.encoder, LARGER_BATCH)
    words = " ".join(generated_texts(twin.encoder, 40)).split()[:twin.run.max_len]
    long = {field: " ".join(words) for field in twin.task.text_fields}
    yield short[:1]
    yield [long]
    yield short
    yield [long, *short[1:]]


def _texts(twin: Twin, batch: list[Record]) -> dict[str, list[str]]:
    return {field: [record[field] for record in batch] for field in twin.task.text_fields}


def _tokens(twin: Twin, batch: list[Record]) -> dict[str, Any]:
    first, *second = _texts(twin, batch).values()
    encoded = twin.encoder.encode(first, second[0] if second else None, twin.run.max_len)
    return dict(encoded.padded(range(len(encoded)), int(encoded.lengths.max())))


def _prediction_log(name: str, signature: str, inputs: Mapping[str, Any]) -> bytes:
    """Encode PredictionLog(predict_log=PredictLog(request=PredictRequest(...)))."""
    import tensorflow as tf

    model_spec = _field(1, name.encode()) + _field(3, signature.encode())
    request = _field(1, model_spec)
    for key, values in inputs.items():
        tensor = tf.make_tensor_proto(values).SerializeToString()
        request += _field(2, _field(1, key.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))


def _field(number: int, content: bytes) -> bytes:
    """Encode a protobuf field whose content has a length: a message, or a string."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low = []
    while value > 0x7F:
        low.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*low, value])
