"""Move outlier channels from activations into weights, so that both fit into 8 bits.

A few channels of a BERT's hidden states are ten times larger than the others, and one scale for all
of them leaves the others a handful of steps. Such a channel is divided before its product and the
weights that meet it are multiplied: the float answers stay, the int8 answers come nearer (after
SmoothQuant, Xiao et al. 2022, which folds the factors into the layer norm; here a residual path
reads that one as well).
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from tf_pipeline.text import Arrays

Products = dict[str, list[Any]]  # activation -> the products of it with weights


def move_to_weights(model: Any, largest: Arrays, most: float) -> Any:
    """Give an `onnx.ModelProto` with outlier channels evened out.

    `largest` is what `largest_values` found; outliers are above `most` times the median of it.
    """
    import onnx

    evened = onnx.ModelProto()
    evened.CopyFrom(model)
    products = _weighted_products(evened)
    weights = {tensor.name: tensor for tensor in evened.graph.initializer}
    scalings = {}
    for activation, nodes in products.items():
        usual = most * float(np.median(largest[activation]))
        factors = np.maximum(largest[activation] / max(usual, 1e-6), 1).astype(np.float32)
        scalings[activation] = _scaling(evened, activation, factors)
        for node in nodes:
            weight = weights[node.input[1]]
            values = onnx.numpy_helper.to_array(weight) * factors[:, None]
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
            node.input[0] = scalings[activation].output[0]
    _insert(evened, scalings)
    return evened


def _weighted_products(model: Any) -> Products:
    """Find each MatMul whose second factor is a weight that nothing else reads."""
    readers: dict[str, int] = defaultdict(int)
    for node in model.graph.node:
        for name in node.input:
            readers[name] += 1
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    found: Products = defaultdict(list)
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights and readers[node.input[1]] == 1:
            found[node.input[0]].append(node)
    return found


def largest_values(model: Any, batches: Iterable[Arrays]) -> Arrays:
    """Run real batches and give, of what meets weights, each channel's largest absolute value."""
    import onnx
    import onnxruntime

    names = list(_weighted_products(model))
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(probe.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    largest: Arrays = {}
    for inputs in batches:
        typed = {name: values.astype(np.int64) for name, values in inputs.items()}
        for name, value in zip(names, session.run(names, typed), strict=True):
            peak = np.abs(value).max(axis=tuple(range(value.ndim - 1)))
            largest[name] = np.maximum(largest.get(name, peak), peak)
    return largest


def _scaling(model: Any, activation: str, factors: np.ndarray) -> Any:
    """Make the node that divides an activation by its channels' factors."""
    import onnx

    name = f"{activation}/evened"
    model.graph.initializer.append(onnx.numpy_helper.from_array(1 / factors, f"{name}/factors"))
    return onnx.helper.make_node("Mul", [activation, f"{name}/factors"], [name], name=name)


def _insert(model: Any, scalings: dict[str, Any]) -> None:
    """Put each scaling before the first node that reads it: ONNX wants nodes in order."""
    waiting = {node.output[0]: node for node in scalings.values()}
    ordered = []
    for node in model.graph.node:
        ordered += [waiting.pop(name) for name in list(node.input) if name in waiting]
        ordered.append(node)
    del model.graph.node[:]
    model.graph.node.extend(ordered)
