"""LiteRT (ai-edge-litert) on the CPU. No TensorFlow."""

import os
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..quiet import quiet_libraries
from ..runner import Runner
from ..text import Arrays

SIGNATURE = "serving_default"


def load(path: Path, threads: int | None = None) -> Runner:
    """Load a .tflite file by its signature; rows run one after the other, as its batch is 1."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet_libraries():  # "Created TensorFlow Lite XNNPACK delegate for CPU."
        interpreter = Interpreter(str(path), num_threads=threads or os.cpu_count())
        interpreter.allocate_tensors()
    signatures = interpreter.get_signature_list()
    if SIGNATURE not in signatures:
        raise UserError(f"{path} has no signature {SIGNATURE!r} (it has: "
                        f"{', '.join(signatures) or 'none'}), so its inputs have no names. "
                        "Export it again.")
    runner = interpreter.get_signature_runner(SIGNATURE)
    inputs = {name: d["dtype"] for name, d in runner.get_input_details().items()}

    def run(arrays: Arrays) -> Arrays:
        rows = []
        for i in range(len(arrays["input_ids"])):
            feed = {name: arrays[name][i:i + 1].astype(kind, copy=False)
                    for name, kind in inputs.items()}
            rows.append(runner(**feed))  # never by position: the converter reverses inputs
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return run
