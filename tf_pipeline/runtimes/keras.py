"""A model in Keras, on whatever backend it runs: a .keras file, or what was just trained."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..quiet import quiet_libraries
from ..runner import Runner
from ..text import Arrays

if TYPE_CHECKING:
    import keras


def load(path: Path, threads: int | None = None) -> Runner:
    """Load a .keras file. Threads are the backend's and the whole process's: not set here."""
    with quiet_libraries():  # what a backend's libraries write when they are imported
        import keras

    from .. import heads  # noqa: F401  (registers the layers that the file names)

    return wrap(keras.saving.load_model(path, compile=False))


def wrap(model: "keras.Model") -> Runner:
    """Make a Runner of a model in memory; dropout is off."""
    def run(inputs: Arrays) -> Arrays:
        outputs = model.predict_on_batch(inputs)
        # float32 also from mixed precision: numpy has no bfloat16 of its own.
        return {name: np.asarray(values, np.float32) for name, values in outputs.items()}

    return run
