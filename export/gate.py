"""What a .tflite file must not be: the traps that load, run, and answer wrong."""

from pathlib import Path
from typing import Any

# Variables are never initialized outside TensorFlow: such a file answers NaN.
_STATE_OPS = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"}
# int8 weights take a quarter of float32; scales and tables come on top.
_LEAST_SHARE = {"float32": 0.95, "float16": 0.48, "int8": 0.23}


def tflite_faults(path: Path, variant: str, weights_bytes: int) -> list[str]:
    """List what is wrong with the file's structure; empty for a sound one."""
    from ai_edge_litert import schema_py_generated as schema

    content = path.read_bytes()
    least = int(weights_bytes * _LEAST_SHARE.get(variant, 0))
    faults = []
    if len(content) < least:
        faults.append(f"the file has {len(content):,} bytes, too few to hold the weights "
                      f"(at least {least:,} for {variant})")
    model = schema.Model.GetRootAsModel(content, 0)
    if not model.SignatureDefsLength():
        faults.append("the file has no signature, so its inputs have no names")
    faults += _foreign_operations(model, schema)
    return faults


def _foreign_operations(model: Any, schema: Any) -> list[str]:
    """Name each operation that is no plain builtin, with the layer that its output belongs to."""
    builtin_names = {number: name for name, number in vars(schema.BuiltinOperator).items()
                     if isinstance(number, int)}
    faults = []
    for s in range(model.SubgraphsLength()):
        graph = model.Subgraphs(s)
        for o in range(graph.OperatorsLength()):
            operator = graph.Operators(o)
            code = model.OperatorCodes(operator.OpcodeIndex())
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            name = builtin_names.get(number, str(number))
            custom = code.CustomCode()
            where = ""
            if operator.OutputsLength():
                tensor = graph.Tensors(operator.Outputs(0)).Name() or b""
                where = f" at {tensor.decode(errors='replace').split(';')[0]}"
            if custom:
                kind = custom.decode(errors="replace")
                why = ("needs the Flex delegate, which adds over 100 MB to an app"
                       if kind.startswith("Flex") else "is a custom operation")
                faults.append(f"operation {kind}{where} {why}")
            elif name in _STATE_OPS:
                faults.append(f"operation {name}{where} reads a variable that nothing initializes")
    return faults


