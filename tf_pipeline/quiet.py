"""Silence for libraries that write to the terminal unasked."""

import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import wrong_backend


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Send file descriptor 2 to nowhere inside the block; Python exceptions still come out.

    For the whole process, so only around imports and model loading, before threads work.
    """
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def import_tensorflow() -> None:
    """Import TensorFlow without the lines that its libraries write before they can be told not to.

    They go past Python to file descriptor 2; a failed import still raises, a UserError where Keras
    is told to take a backend that it does not know. oneDNN is on unless the environment says
    otherwise: TensorFlow leaves it off on x86 without AVX-512, where training in float32 is 7 %
    faster with it. A caller that has imported TensorFlow keeps its own setting, and so do the
    processes it starts.
    """
    if platform.machine() == "x86_64" and "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # read once, at the import
    unused = ("sklearn", "matplotlib", *(() if _jax_is_chosen() else ("jax",)))
    try:
        with quiet_libraries(), _hidden(*unused):
            import tensorflow  # noqa: F401
    except ValueError as error:
        what, _, backend = str(error).partition(" : ")
        if what != "Unable to import backend":  # Keras's words
            raise
        raise wrong_backend(backend) from None


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Let imports of these fail inside the block, as if they were not installed.

    TensorFlow and Keras import what they find of them, for functions nobody calls here: one and
    a half of the seconds that a command takes to start.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _jax_is_chosen() -> bool:
    """Whether Keras may take JAX for its backend: by its variable or either place of its file."""
    written = os.environ.get("KERAS_BACKEND", "")
    home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    for folder in () if written else (home, "/tmp/.keras"):  # where the home cannot be written
        with suppress(OSError):  # no such file, or in a home of somebody else
            written += Path(folder, "keras.json").read_text("utf-8", "replace")
    return "jax" in written


@contextmanager
def quiet_logger(name: str) -> Iterator[None]:
    """Let a library's logger say errors only inside the block."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
