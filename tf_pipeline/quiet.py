"""Silence for libraries that write to the terminal unasked."""

import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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

    They go past Python to file descriptor 2; a failed import still raises. oneDNN is on unless the
    environment says otherwise: TensorFlow leaves it off on x86 without AVX-512, where training
    in float32 is 7 % faster with it. A caller that has imported TensorFlow keeps its own setting,
    and so do the processes it starts.
    """
    if platform.machine() == "x86_64" and "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # read once, at the import
    unused = ("sklearn", "matplotlib", *(() if _jax_is_chosen() else ("jax",)))
    with quiet_libraries(), _hidden(*unused):
        import tensorflow  # noqa: F401


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
    """Whether Keras may take JAX for its backend: by its variable or its file."""
    file = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "keras.json"
    written = file.read_text("utf-8") if file.is_file() else ""
    return "jax" in (os.environ.get("KERAS_BACKEND") or written)


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
