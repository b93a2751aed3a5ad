"""model.safetensors of an artifact, read back into Keras."""

import json
from pathlib import Path

from ..quiet import quiet_libraries
from ..runner import Runner

ABOUT = "tf_pipeline"  # key of the file's metadata: architecture, task, labels, options


def load(path: Path, threads: int | None = None) -> Runner:
    """Build the model that the file's metadata describes, with the file's weights."""
    with quiet_libraries():  # what a backend's libraries write when they are imported
        import keras
    from safetensors import safe_open

    from .. import huggingface
    from ..backbone import BertConfig, build
    from ..task import create
    from .keras import wrap

    with safe_open(path, "numpy") as stored:
        about = json.loads(stored.metadata()[ABOUT])
        weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    task = create(about["task"], about["labels"], about["options"])
    model = task.build(build(BertConfig.from_json(about["bert"], str(path))))
    huggingface.load(model, task, weights)
    outputs = task.export_outputs(model.output)
    return wrap(keras.Model(model.input, {name: outputs[name] for name in task.OUTPUTS["onnx"]}))
