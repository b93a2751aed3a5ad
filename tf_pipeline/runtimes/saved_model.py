"""A SavedModel in TensorFlow, as TF Serving runs it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..quiet import import_tensorflow
from ..runner import Runner
from ..text import Arrays


def open_folder(path: Path) -> Any:
    """Load the folder; registers tf-text's operations, which its text signature needs."""
    import_tensorflow()
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    return tf.saved_model.load(str(path))


def load(path: Path, threads: int | None = None) -> Runner:
    """Load the `tokens` signature. TensorFlow's threads are the whole process's: not set here."""
    return tokens_runner(open_folder(path))


def tokens_runner(loaded: Any) -> Runner:
    """Give the `tokens` signature of a loaded SavedModel."""
    function = loaded.signatures["tokens"]

    def run(arrays: Arrays) -> Arrays:
        import tensorflow as tf

        outputs = function(**{k: tf.constant(v, tf.int32) for k, v in arrays.items()})
        return {name: values.numpy() for name, values in outputs.items()}

    return run


def text_runner(loaded: Any) -> Callable[..., dict[str, np.ndarray]]:
    """Give the `serving_default` signature of a loaded SavedModel: strings in, by name."""
    function = loaded.signatures["serving_default"]

    def run(**texts: Sequence[str]) -> dict[str, np.ndarray]:
        import tensorflow as tf

        given = {name: tf.constant(list(column)) for name, column in texts.items()}
        return {k: v.numpy() for k, v in function(**given).items()}

    return run
