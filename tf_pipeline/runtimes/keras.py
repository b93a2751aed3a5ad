"""The trained model itself, on whatever backend Keras runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..runner import Runner
from ..text import Arrays

if TYPE_CHECKING:
    import keras


def load(path: Path) -> Runner:
    """Load a run folder."""
    from ..run import Run

    return wrap(Run.load(path).model)


def wrap(model: "keras.Model") -> Runner:
    """Make a Runner of a model in memory; dropout is off."""
    def run(inputs: Arrays) -> Arrays:
        outputs = model.predict_on_batch(inputs)
        # float32 also from mixed precision: numpy has no bfloat16 of its own.
        return {name: np.asarray(values, np.float32) for name, values in outputs.items()}

    return run
