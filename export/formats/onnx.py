"""ONNX in the layout of the Hugging Face hub: int64 inputs, any batch and length, `logits` out."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_pipeline import backbone
from tf_pipeline.artifact import Graph
from tf_pipeline.quiet import quiet_logger

from .. import bert_graph, quantization
from ..options import ConvertOptions
from ..twin import Twin

# Names that transformers.js opens.
FLOAT32, FLOAT16, INT8 = "onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_quantized.onnx"


def convert(twin: Twin, staging: Path, options: ConvertOptions) -> Iterator[Graph]:
    """Write the float32 file, and the smaller ones from it."""
    import onnx

    outputs = twin.task.OUTPUTS["onnx"]
    path = staging / FLOAT32
    path.parent.mkdir()
    model = whole(twin, outputs)
    shared = _stored_once(model)
    onnx.save(shared, path)
    yield Graph(FLOAT32, "onnx", "float32", outputs, path.stat().st_size)
    if "float16" in options.smaller:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        half = convert_float_to_float16(shared, keep_io_types=True)
        onnx.save(half, staging / FLOAT16)
        yield Graph(FLOAT16, "onnx", "float16", outputs, (staging / FLOAT16).stat().st_size)
    if "int8" in options.smaller:
        candidates = quantization.quantize(twin, model, staging / INT8)
        size = (staging / INT8).stat().st_size
        # batch 1: activations are scaled by the largest of a batch, so a text's answer would
        # depend on the texts beside it.
        yield Graph(INT8, "onnx", "int8", outputs, size, batch=1, candidates=candidates)


def whole(twin: Twin, outputs: Sequence[str]) -> Any:
    """Give the `onnx.ModelProto` of encoder and head."""
    import onnx

    model = _head(twin, outputs)
    head = onnx.compose.add_prefix_graph(model.graph, "head/", rename_inputs=False,
                                         rename_outputs=False)
    pooled = any(bert_graph.POOLED in node.input for node in head.node)
    weights = backbone.get_weights(twin.model.get_layer("backbone"))
    graph = bert_graph.encoder(twin.run.config, weights, pooled)
    graph.node.extend(head.node)
    graph.initializer.extend(head.initializer)
    del graph.output[:]
    graph.output.extend(head.output)
    for value in graph.output:
        for axis, name in zip(value.type.tensor_type.shape.dim, ("batch_size", "sequence_length"),
                              strict=False):
            if not axis.dim_value:
                axis.dim_param = name
    model.graph.CopyFrom(graph)
    model.producer_name = "bert-to-every-device"
    onnx.checker.check_model(model)
    return model


def _head(twin: Twin, outputs: Sequence[str]) -> Any:
    """Trace what the task put on the backbone: any task's, so a new one needs nothing here."""
    import tensorflow as tf
    import tf2onnx

    head, hidden = twin.head, twin.run.config.hidden_size
    specs = [tf.TensorSpec((None, hidden), tf.float32, name=bert_graph.POOLED),
             tf.TensorSpec((None, None, hidden), tf.float32, name=bert_graph.SEQUENCE),
             tf.TensorSpec((None, None), tf.int64, name="attention_mask")]

    def call(pooled: Any, sequence: Any, mask: Any) -> dict[str, Any]:
        values = head([pooled, sequence, tf.cast(mask, tf.int32)], training=False)
        return {name: tf.identity(values[name], name=name) for name in outputs}

    with quiet_logger("tf2onnx"):
        return tf2onnx.convert.from_function(tf.function(call), specs, opset=bert_graph.OPSET)[0]


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
