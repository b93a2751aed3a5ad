"""model.keras, for those who go on in Keras: `import tf_pipeline.heads` names its layers."""

from collections.abc import Iterator
from pathlib import Path

from tf_pipeline.artifact import Graph

from ..options import ConvertOptions
from ..twin import Twin

FILE = "model.keras"


def convert(twin: Twin, staging: Path, options: ConvertOptions) -> Iterator[Graph]:
    """Write architecture and float32 weights; the activation stands in the layers' own settings."""
    import keras

    from tf_pipeline import heads

    trained = heads.with_own_table(twin.run.model)
    outputs = twin.task.export_outputs(trained.output)
    names = twin.task.OUTPUTS["tokens"]
    keras.Model(trained.input, {name: outputs[name] for name in names},
                name=twin.run.info["task"]).save(staging / FILE)
    yield Graph(FILE, "keras", "float32", names, (staging / FILE).stat().st_size)
