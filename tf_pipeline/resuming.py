"""What a training needs to go on where it was cut off: written aside, renamed, checked when read.

A checkpoint holds every variable (weights, optimizer, random state, running means) and how far
training was; what a step reads follows from the seed and the step's number.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import files
from .errors import UserError

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

SETTINGS = "training.json"
KEPT = 2  # the last one, and the one before in case the disk lost it
_FORMAT = {"bool": "BOOL", "uint32": "U32", "int32": "I32", "int64": "I64", "float16": "F16",
           "float32": "F32", "float64": "F64"}  # safetensors's names of types


class Checkpoints:
    """The checkpoints of one training: `checkpoints/step-00000500.safetensors`."""

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, trainer: "keras.Model", step: int, progress: dict[str, Any]) -> None:
        """Write one, whole or not at all, and delete all but the last ones."""
        path = self.folder / f"step-{step:08}.safetensors"
        part = path.with_suffix(".partial")
        with files.disk_errors(path):
            try:
                _write(part, _variables(trainer), json.dumps({"step": step, **progress}))
                files.sync(part)
                part.replace(path)
                files.sync(self.folder)
            finally:
                part.unlink(missing_ok=True)
        for old in self._paths()[KEPT:]:
            old.unlink()

    def load(self, trainer: "keras.Model") -> dict[str, Any] | None:
        """Set the trainer's variables from the newest checkpoint that is whole: its progress."""
        for path in self._paths():
            found = _read(path)
            if found is None:
                log.warning("%s is damaged and is passed over.", path)
                continue
            arrays, progress = found
            variables = _variables(trainer)
            if {n: a.shape for n, a in arrays.items()} != {
                    n: tuple(v.shape) for n, v in variables.items()}:
                raise UserError(f"{path} holds other variables than this training has: it was "
                                "written by another version. Delete the folder and start anew.")
            for name, variable in variables.items():
                variable.assign(arrays[name])
            return progress
        return None

    def _paths(self) -> list[Path]:
        """Give the checkpoints, the newest first."""
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True)


def begin(out: Path, settings: dict[str, Any], resume: bool) -> None:
    """Write what is going to be trained; on `resume` compare it with what was written before.

    UserError where the two differ: going on with other settings would be neither of the trainings.
    """
    path = out / "checkpoints" / SETTINGS
    settings = json.loads(json.dumps(settings, default=str))
    if not (resume and path.exists()):
        files.write_text(path, json.dumps(settings, indent=2) + "\n")
        return
    try:
        before = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged: not JSON. Delete {out} and start anew.") from None
    for name in sorted({*settings, *before}):
        if settings.get(name) != before.get(name):
            raise UserError(f"--resume goes on with the training in {out}, which has {name} "
                            f"{before.get(name)}; given is {settings.get(name)}. Give the same "
                            "settings and data, or another --out.")


def can_resume(out: Path) -> bool:
    """Tell whether a training began there."""
    return (out / "checkpoints" / SETTINGS).exists()


def _variables(trainer: "keras.Model") -> "dict[str, keras.Variable]":
    """Number every variable of a compiled model, in an order that the same code repeats."""
    groups: Iterable[list[keras.Variable]] = (trainer.variables, trainer.optimizer.variables,
                                              trainer.metrics_variables)
    found = {id(variable): variable for group in groups for variable in group}
    return {f"{number:05}": variable for number, variable in enumerate(found.values())}


def _write(path: Path, variables: "dict[str, keras.Variable]", progress: str) -> None:
    """Write a safetensors file, one variable in memory at a time.

    The library asks for all arrays at once and copies them: as much memory again as training takes
    for weights and optimizer. The format: https://github.com/huggingface/safetensors#format
    """
    header: dict[str, Any] = {"__metadata__": {
        "progress": progress, "sha256": _hash(_arrays(variables), progress)}}
    end = 0
    for name, variable in variables.items():
        shape = tuple(variable.shape)
        start, end = end, end + math.prod(shape) * np.dtype(variable.dtype).itemsize
        header[name] = {"dtype": _FORMAT[variable.dtype], "shape": shape,
                        "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _, array in _arrays(variables):
            stream.write(_bytes(array))


def _arrays(variables: "dict[str, keras.Variable]") -> Iterator[tuple[str, np.ndarray]]:
    return ((name, np.asarray(variable)) for name, variable in variables.items())


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Read a checkpoint; None where its bytes are not those that were written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as stored:
            arrays = {name: stored.get_tensor(name) for name in sorted(stored.keys())}
            about = stored.metadata()
        whole = about["sha256"] == _hash(arrays.items(), about["progress"])
        return (arrays, json.loads(about["progress"])) if whole else None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None


def _hash(arrays: Iterable[tuple[str, np.ndarray]], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for _, array in arrays:
        digest.update(_bytes(array))
    return digest.hexdigest()


def _bytes(array: np.ndarray) -> memoryview:
    return np.atleast_1d(array).view(np.uint8).data
