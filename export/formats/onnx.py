"""ONNX in the layout of the Hugging Face hub: int64 inputs, any batch and length, `logits` out."""

import contextlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_pipeline import run
from tf_pipeline.artifact import Graph
from tf_pipeline.text import Arrays, batches

from .. import outliers
from ..options import ConvertOptions
from ..twin import Twin

OPSET = 17
OUTLIERS_ABOVE = (1.0, 2.0, 4.0)  # times the median of all channels; which one depends on the model
FLOAT32, INT8 = "onnx/model.onnx", "onnx/model_quantized.onnx"  # names that transformers.js opens


def convert(twin: Twin, staging: Path, options: ConvertOptions) -> Iterator[Graph]:
    """Write the float32 file, and the int8 one from it."""
    import onnx
    import tensorflow as tf
    import tf2onnx

    outputs = twin.task.OUTPUTS["onnx"]
    path = staging / FLOAT32
    path.parent.mkdir()
    specs = twin.specs(None, None, "int64")
    with _quiet("tf2onnx"):
        model, _ = tf2onnx.convert.from_function(tf.function(twin.function(outputs)), specs,
                                                 opset=OPSET)
    model.producer_name = "bert-to-every-device"
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in zip(value.type.tensor_type.shape.dim, ("batch_size", "sequence_length"),
                              strict=False):
            if not axis.dim_value:
                axis.dim_param = name
    onnx.save(_stored_once(model), path)
    yield Graph(FLOAT32, "onnx", "float32", outputs, path.stat().st_size)
    if options.quantize == "int8":
        quantize(model, _calibration(twin), staging / INT8)
        size = (staging / INT8).stat().st_size
        # batch 1: activations are scaled by the largest of a batch, so a text's answer would
        # depend on the texts beside it.
        yield Graph(INT8, "onnx", "int8", outputs, size, batch=1)


def _stored_once(model: Any) -> Any:
    """Store a table that is also used turned over (the words', by mlm's head) in one direction.

    onnxruntime turns it when it loads the file. The int8 file keeps both: only stored weights of a
    product are quantized.
    """
    import onnx

    shared = onnx.ModelProto()
    shared.CopyFrom(model)
    graph = shared.graph
    tables = [t for t in graph.initializer if len(t.dims) == 2 and t.dims[0] != t.dims[1]]
    for table, turned in itertools.permutations(tables, 2):
        if (list(table.dims) == list(turned.dims)[::-1] and table.dims[0] > table.dims[1]
                and np.array_equal(onnx.numpy_helper.to_array(table),
                                   onnx.numpy_helper.to_array(turned).T)):
            graph.node.insert(0, onnx.helper.make_node("Transpose", [table.name], [turned.name],
                                                       name=f"{turned.name}/turned", perm=[1, 0]))
            graph.initializer.remove(turned)
    return shared


def _calibration(twin: Twin, most: int = 128) -> list[Arrays]:
    """Real texts that no test row is among: the validation split's, one text a batch."""
    records = run.spread(twin.run.evaluation("validation"), most)
    encoded = twin.task.encode(records, twin.encoder, twin.run.max_len)
    return [inputs for _, inputs in batches(encoded, 1, multiple=1)]


def quantize(model: Any, calibration: Sequence[Arrays], target: Path) -> None:
    """Store weights in 8 bits, one scale a column; activations are scaled as they come.

    How much of the outliers the weights take is chosen by the answers to `calibration`. Unsigned
    weights: the kernels for unsigned times signed overflow on a CPU without VNNI, and answers
    chosen on a CPU that has it would change there.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    expected = _answers(model.SerializeToString(), calibration)
    largest = outliers.largest_values(model, calibration)
    errors = {}
    for most in OUTLIERS_ABOVE:
        part = target.with_suffix(f".{most}")
        with _quiet("root"):
            quantize_dynamic(outliers.move_to_weights(model, largest, most), part,
                             weight_type=QuantType.QUInt8, per_channel=True)
        found = _answers(str(part), calibration)
        errors[part] = float(np.mean([np.abs(a - b).mean()
                                      for a, b in zip(found, expected, strict=True)]))
    best = min(errors, key=errors.__getitem__)
    best.replace(target)
    for part in errors:
        part.unlink(missing_ok=True)


def _answers(model: bytes | str, texts: Iterable[Arrays]) -> list[np.ndarray]:
    """Give the last output for each text."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_outputs()[-1].name
    return [session.run([name], {key: values.astype(np.int64) for key, values in inputs.items()})[0]
            for inputs in texts]


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
