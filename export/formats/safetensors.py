"""model.safetensors under the names of transformers: its PyTorch classes open the folder."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from tf_pipeline import huggingface
from tf_pipeline.artifact import Graph
from tf_pipeline.errors import ParityError
from tf_pipeline.runtimes.safetensors import ABOUT

from ..options import ConvertOptions
from ..twin import Twin

FILE = "model.safetensors"


def convert(twin: Twin, staging: Path, options: ConvertOptions) -> Iterator[Graph]:
    """Write the float32 weights; what they belong to stands in the file's own metadata."""
    from safetensors.numpy import save_file

    task = twin.task
    if getattr(task.options, "pooling", "pooler") != "pooler":
        raise ParityError(f"transformers' {task.ARCHITECTURE} reads the pooler, and this model was "
                          "trained with --pooling mean")
    about = {"bert": twin.run.config.to_json(), "task": twin.run.info["task"],
             "labels": task.labels, "options": dataclasses.asdict(task.options)}
    save_file(huggingface.weights_of(twin.run.model, task), staging / FILE,
              {"format": "pt", ABOUT: json.dumps(about)})
    yield Graph(FILE, "safetensors", "float32", task.OUTPUTS["onnx"],
                (staging / FILE).stat().st_size)
