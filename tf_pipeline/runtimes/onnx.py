"""onnxruntime on the CPU. No TensorFlow."""

from pathlib import Path

import numpy as np

from ..runner import Runner
from ..text import Arrays


def load(path: Path, threads: int | None = None) -> Runner:
    """Load an .onnx file; `threads` None leaves the choice to onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    if threads:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options,
                                           providers=["CPUExecutionProvider"])
    types = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
    inputs = {i.name: types[i.type] for i in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]

    def run(arrays: Arrays) -> Arrays:
        feed = {name: arrays[name].astype(kind, copy=False) for name, kind in inputs.items()}
        return dict(zip(names, session.run(names, feed), strict=True))

    return run
