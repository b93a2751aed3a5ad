"""Where a training's numbers go: JSON lines and TensorBoard, and Weights & Biases if asked."""

import dataclasses
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from .config import Track, TrainConfig
from .errors import UserError
from .install import pip_install


class Tracker:
    """Takes scalars and pictures by step; `folder` gets scalars.jsonl and TensorBoard's events."""

    def __init__(self, folder: Path, config: TrainConfig):
        import tensorflow as tf

        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "scalars.jsonl"
        self._wandb = _wandb_run(folder, config) if config.track == "wandb" else None
        self._summary = tf.summary
        self._writer = tf.summary.create_file_writer(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._writer.close()
        if self._wandb:
            self._wandb.finish(exit_code=int(error is not None))

    def rewind(self, step: int) -> None:
        """Forget the lines behind a step: a resumed training writes them anew."""
        if self.path.exists():
            lines = self.path.read_text("utf-8").splitlines()
            kept = [line for line in lines if _step(line) <= step]
            self.path.write_text("".join(f"{line}\n" for line in kept), "utf-8")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write numbers of one step."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **values}) + "\n")
        with self._writer.as_default(step=step):
            for name, value in values.items():
                self._summary.scalar(name, value)
        self._writer.flush()
        if self._wandb:
            self._wandb.log(values, step=step)

    def pictures(self, step: int, files: Mapping[str, Path]) -> None:
        """Add PNG files by name."""
        import tensorflow as tf

        with self._writer.as_default(step=step):
            for name, path in files.items():
                self._summary.image(name, tf.io.decode_png(path.read_bytes())[None])
        if self._wandb:
            images = {name: _module().Image(str(path)) for name, path in files.items()}
            self._wandb.log(images, step=step)


def check(track: Track) -> None:
    """Say what is missing before anything takes time."""
    if track == "wandb":
        _module()


def _step(line: str) -> float:
    """Give a line's step; one that was cut off in writing counts as the last."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return float("inf")


def _module() -> ModuleType:
    try:
        import wandb
    except ImportError:
        raise UserError("--track wandb needs the package wandb, which is not installed. Try: "
                        f"{pip_install('wandb')}") from None
    return wandb


def _wandb_run(folder: Path, config: TrainConfig) -> Any:
    """Begin a run of Weights & Biases, or go on with the one that `folder` names."""
    wandb = _module()
    name = folder / "wandb-id.txt"
    if not name.exists():
        name.write_text(secrets.token_hex(8), "utf-8")
    try:
        return wandb.init(id=name.read_text("utf-8"), resume="allow", dir=folder,
                          config=dataclasses.asdict(config),
                          name=config.out.name if config.out else None)
    except wandb.errors.Error as error:
        raise UserError(f"--track wandb: {str(error).splitlines()[0]} Try: wandb login. Or set "
                        "WANDB_MODE=offline and send the run later with wandb sync.") from None
