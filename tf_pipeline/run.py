"""The run folder: what training leaves, and all that export needs, on any machine.

backbone.json tokenizer.json labels.json model.weights.h5 evaluation.jsonl metrics.json
confusion.png logs/ (TensorBoard events and the other plots) and, written last, run.json: its
presence means complete. While training there is checkpoints/.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from . import files, resuming
from .errors import UserError
from .task import Record, Task, create
from .text import TextEncoder

if TYPE_CHECKING:
    import keras

    from .backbone import BertConfig

T = TypeVar("T")
SCHEMA = 1
EVALUATION_ROWS = 5000
_VERSIONS = ("tensorflow", "keras", "tokenizers", "numpy", "jax")
_HASHED = ("backbone.json", "tokenizer.json", "labels.json", "model.weights.h5",
           "evaluation.jsonl", "metrics.json")


def versions(packages: tuple[str, ...] = _VERSIONS) -> dict[str, str]:
    """Name the installed versions without importing anything."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def refuse_existing(out: Path) -> None:
    """Raise UserError when `out` exists, saying what stands there."""
    if not out.exists():
        return
    advice = "Choose another --out, or delete it first."
    if (out / "run.json").exists():
        raise UserError(f"--out {out} already holds a finished run. {advice}")
    if resuming.can_resume(out):
        raise UserError(f"--out {out} holds a training that was cut off. Go on with --resume; or "
                        "choose another --out, or delete it.")
    raise UserError(f"--out {out} exists and is not a run. {advice}")


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run. Loading it checks every file's hash; the model is built when asked for."""

    path: Path
    info: dict[str, Any]  # run.json

    @classmethod
    def load(cls, path: Path | str) -> "Run":
        """Open a run folder; UserError where it is none, unfinished, too new or damaged."""
        path = Path(path)
        index = path / "run.json"
        if not index.exists():
            reason = ("its training was cut off before the end" if (path / "checkpoints").exists()
                      else "there is no run.json" if path.exists() else "no such folder")
            raise UserError(f"{path} is not a finished run: {reason}. Give a folder that "
                            "`python -m tf_pipeline train --out` wrote.")
        try:
            info = json.loads(index.read_text("utf-8"))
            schema = info["schema"]
        except (ValueError, KeyError) as error:
            raise UserError(f"{index} cannot be read ({error!r}). Copy the run again.") from None
        if schema > SCHEMA:
            raise UserError(f"{path} was made by a newer version of this kit (schema {schema}; "
                            f"this one reads up to {SCHEMA}). Update the kit.")
        for name, expected in info["files"].items():
            files.check(path / name, expected)
        return cls(path, info)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def max_len(self) -> int:
        """Longest text in tokens that the model was trained on."""
        return self.info["config"]["max_len"]

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """History, scores of validation and test, and of the test rows that the run keeps."""
        return json.loads((self.path / "metrics.json").read_text("utf-8"))

    @cached_property
    def task(self) -> Task:
        """The task with its labels."""
        labels = json.loads((self.path / "labels.json").read_text("utf-8"))
        return create(self.info["task"], labels, self.info["options"])

    @cached_property
    def config(self) -> "BertConfig":
        """The backbone's architecture."""
        from .backbone import BertConfig

        file = self.path / "backbone.json"
        return BertConfig.from_json(file.read_text("utf-8"), str(file))

    @cached_property
    def encoder(self) -> TextEncoder:
        """The tokenizer."""
        keys = json.loads((self.path / "backbone.json").read_text("utf-8"))
        return TextEncoder.load(self.path / "tokenizer.json", self.max_len, keys["pad_token_id"])

    @cached_property
    def model(self) -> "keras.Model":
        """The trained model in float32: the three inputs to the task's outputs."""
        from .backbone import build

        model = self.task.build(build(self.config))
        model.load_weights(self.path / "model.weights.h5")
        return model

    @property
    def backbone(self) -> "keras.Model":
        """The trained backbone without its head."""
        return self.model.get_layer("backbone")

    def evaluation(self, split: str = "test") -> list[Record]:
        """Read the kept rows of a split: texts and targets."""
        with (self.path / "evaluation.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return [{k: v for k, v in row.items() if k != "split"}
                for row in rows if row["split"] == split]


def save_weights(model: "keras.Model", path: Path) -> None:
    """Write a model's weights whole or not at all; `model` must not be compiled.

    From a compiled model the file would also hold the optimizer's slots, three times the size.
    """
    part = path.with_name(f"part.{path.name}")
    # HDF5 adds about 1.5 KB of tables for each array.
    files.reserve(part, 4 * model.count_params() + 2048 * len(model.variables))
    model.save_weights(part)
    os.replace(part, path)


def write(out: Path, parts: dict[str, str], info: dict[str, Any]) -> Run:
    """Write the text files, then run.json over everything that lies there. Weights came before."""
    for name, content in parts.items():
        (out / name).write_text(content, "utf-8")
    hashes = {name: files.describe(out / name) for name in _HASHED}
    files.write_last(out / "run.json", {"schema": SCHEMA, **info, "files": hashes})
    return Run.load(out)


def choose_evaluation(validation: list[Record], test: list[Record],
                      most: int = EVALUATION_ROWS) -> dict[str, list[Record]]:
    """Choose the rows that travel with the run: test first, a fifth left for validation.

    Export chooses quantization settings on validation rows and reports on test rows.
    """
    share = min(len(validation), max(most // 5, most - len(test)))
    return {"test": spread(test, most - share),
            "validation": spread(validation, share)}


def evaluation_lines(rows: dict[str, list[Record]]) -> str:
    """Write evaluation.jsonl."""
    return "".join(json.dumps({**record, "split": split}, ensure_ascii=False) + "\n"
                   for split, records in rows.items() for record in records)


def spread(rows: Sequence[T], most: int) -> list[T]:
    """Take evenly over all of them: files are often sorted by label."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i * len(rows) // most] for i in range(most)]
