"""What MediaPipe's TextClassifier wants of a .tflite file, and what its tokenizer makes of texts.

Metadata is a flatbuffer of its own in a buffer of the model (tflite-support's metadata_schema.fbs);
vocabulary and labels are a zip archive behind it. MediaPipe's own writer imports modules that its
package lacks since 0.10.30.
"""

import io
import json
import string
import unicodedata
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_pipeline.runner import run_all
from tf_pipeline.task import Record, text_of
from tf_pipeline.text import Encoded, TextEncoder

from .twin import Twin

NAME = "TFLITE_METADATA"  # of the buffer
_PARSER = "1.1.0"  # least version that knows a BERT tokenizer
_ROLES = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "segment_ids"}
# Numbers of metadata_schema.fbs.
_FEATURE_PROPERTIES, _TENSOR_AXIS_LABELS, _VOCABULARY, _BERT_TOKENIZER = 1, 2, 5, 4
_LEFT_OUT, _KEPT = ("Mn", "Cc", "Cf", "Co"), "\t\n\r"  # of BERT's normalizer
_ASCII = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def refusal(twin: Twin) -> str | None:
    """Say why MediaPipe cannot classify with this model; None where it can."""
    if twin.task.OUTPUTS["tflite"] != ("probabilities",):
        return "its TextClassifier expects a score of each label for a whole text"
    if twin.task.text_fields != ("text",):
        return "its TextClassifier takes one text, and this model takes two"
    if not twin.encoder.is_wordpiece:
        return "its TextClassifier knows WordPiece only"
    if not twin.encoder.lower_case or twin.encoder.marks_case:
        return "its TextClassifier folds the capitals that this model tells apart"
    if json.loads(twin.encoder.to_json())["normalizer"]["type"] != "BertNormalizer":
        return "what its tokenizer makes of texts is known beside BERT's own normalizer only"
    return None


def describe(content: bytes, vocabulary: Sequence[str], labels: Sequence[str]) -> bytes:
    """Give the .tflite file with metadata, vocabulary and labels: the same bytes each time."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    graph = model.subgraphs[0]
    names = [graph.tensors[number].name.decode() for number in graph.inputs]
    roles = [next(role for part, role in _ROLES.items() if part in name) for name in names]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(_metadata(roles), np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content) + 65536)
    builder.Finish(model.Pack(builder), b"TFL3")
    described = io.BytesIO()
    described.write(builder.Output())
    with zipfile.ZipFile(described, "a") as archive:
        for name, lines in (("vocab.txt", vocabulary), ("labels.txt", labels)):
            archive.writestr(zipfile.ZipInfo(name), "".join(f"{line}\n" for line in lines))
    return described.getvalue()


def compare(twin: Twin, records: Sequence[Record], max_len: int) -> dict[str, Any]:
    """Say how many texts get other ids from MediaPipe's tokenizer, and what that costs.

    `metric` is the trained model's on those ids; `mismatches_folded` counts again after `fold`.
    """
    expected = twin.task.encode(records, twin.encoder, max_len)
    texts = [text_of(record) for record in records]
    found = _encode(twin.encoder, texts, max_len)
    folded = _encode(twin.encoder, [fold(text) for text in texts], max_len)
    scores = twin.task.score(run_all(twin.runner, found), records)
    return {"texts": len(texts), "mismatches": _differing(found, expected),
            "metric": scores[twin.task.METRIC], "mismatches_folded": _differing(folded, expected)}


def _encode(encoder: TextEncoder, texts: Sequence[str], max_len: int) -> Encoded:
    """Encode texts as MediaPipe does: only ASCII is lower-cased, and nothing is left out."""
    spec = json.loads(encoder.to_json())
    spec["normalizer"] |= {"clean_text": False, "lowercase": False, "strip_accents": False}
    device = TextEncoder(json.dumps(spec), max_len, encoder.pad_id)
    return device.encode([text.translate(_ASCII) for text in texts])


def _differing(found: Encoded, expected: Encoded) -> int:
    rows = (np.split(encoded.ids, encoded.splits[1:-1]) for encoded in (found, expected))
    return sum(not np.array_equal(one, other) for one, other in zip(*rows, strict=True))


def fold(text: str) -> str:
    """Do before MediaPipe's tokenizer what it leaves out of BERT's: then its ids are BERT's."""
    bare = (char for char in unicodedata.normalize("NFD", text)
            if char in _KEPT or unicodedata.category(char) not in _LEFT_OUT and char != "\ufffd")
    # One by one: at a word's end Python makes another letter of a capital sigma, and BERT does not.
    return "".join(" " if char.isspace() else char.lower() for char in bare)


def _metadata(roles: Sequence[str]) -> bytes:
    """Write ModelMetadata for inputs of these roles, in the file's order, and one output."""
    import flatbuffers

    build = flatbuffers.Builder(1024)
    inputs = _vector(build, [_tensor(build, role) for role in roles])
    limits = [_floats(build, value) for value in (1.0, 0.0)]
    outputs = _vector(build, [_tensor(build, "score", {
        5: _table(build, 2, dict(enumerate(limits))),
        6: _vector(build, [_file(build, "labels.txt", _TENSOR_AXIS_LABELS)])})])
    files = _vector(build, [_file(build, "vocab.txt", _VOCABULARY)])
    tokenizer = _table(build, 1, {0: files})
    units = _vector(build, [_table(build, 2, {1: tokenizer}, {0: _BERT_TOKENIZER})])
    graphs = _vector(build, [_table(build, 10, {2: inputs, 3: outputs, 5: units})])
    name, version = build.CreateString("TextClassifier"), build.CreateString(_PARSER)
    build.Finish(_table(build, 8, {0: name, 3: graphs, 7: version}), b"M001")
    return bytes(build.Output())


def _tensor(build: Any, name: str, more: dict[int, int] | None = None) -> int:
    """Write a TensorMetadata of plain features."""
    title = build.CreateString(name)
    content = _table(build, 3, {1: _table(build, 0, {})}, {0: _FEATURE_PROPERTIES})
    return _table(build, 7, {0: title, 3: content, **(more or {})})


def _file(build: Any, name: str, kind: int) -> int:
    """Write an AssociatedFile."""
    title = build.CreateString(name)
    return _table(build, 5, {0: title}, {2: kind})


def _table(build: Any, slots: int, offsets: dict[int, int],
           numbers: dict[int, int] | None = None) -> int:
    """Write a table of so many slots; what it refers to is written before."""
    build.StartObject(slots)
    for slot, offset in offsets.items():
        build.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, number in (numbers or {}).items():
        build.PrependUint8Slot(slot, number, 0)
    return build.EndObject()


def _vector(build: Any, offsets: Sequence[int]) -> int:
    build.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        build.PrependUOffsetTRelative(offset)
    return build.EndVector()


def _floats(build: Any, value: float) -> int:
    build.StartVector(4, 1, 4)
    build.PrependFloat32(value)
    return build.EndVector()
