"""Settings are frozen dataclasses, and the command line's flags come from their fields."""

import argparse
import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from .errors import UserError

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Settings = TypeVar("Settings")


def option(default: Any = dataclasses.MISSING, *, help: str) -> Any:  # noqa: A002
    """Declare a field with the sentence that `--help` shows for its flag."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TrainConfig:
    """What every task's training shares; a task's own settings stand in its `Options`."""

    task: str = option(help="what to train, e.g. classify (a file in tf_pipeline/tasks)")
    train: str = option(help="training data, e.g. csv:reviews.csv?text=review&label=stars")
    out: Path | None = option(None, help="run folder to write, e.g. runs/reviews")
    validation: str | None = option(None, help="validation data; cut from --train if not given")
    test: str | None = option(None, help="test data; cut from --train if not given")
    backbone: str = option("minilm", help="checkpoint: see `python -m tf_pipeline backbones`")
    cased: bool | None = option(None, help="keep or fold capitals; default: as the checkpoint says")
    max_len: int = option(128, help="longest text in tokens; longer ones are cut and counted")
    epochs: int = option(3, help="passes over the training data")
    batch_size: int = option(32, help="examples per step")
    learning_rate: float = option(5e-5, help="highest learning rate, reached after the warm-up")
    warmup: float = option(0.1, help="share of all steps with a rising learning rate")
    weight_decay: float = option(0.01, help="AdamW decay; none on biases and layer norms")
    clip_norm: float = option(1.0, help="largest global norm of a step's gradients")
    patience: int = option(2, help="stop after this many epochs without a better validation score")
    precision: Precision = option("auto", help="number format; auto: float32 on a CPU")
    seed: int = option(0, help="seed of shuffling, dropout and new weights")

    def __post_init__(self) -> None:
        at_least = {"max_len": 3, "epochs": 1, "batch_size": 1, "patience": 1, "seed": 0}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise UserError(f"{_flag(name)} is {getattr(self, name)}; it must be >= {least}.")
        if not self.learning_rate > 0:
            raise UserError(f"--learning-rate is {self.learning_rate}; it must be above 0.")
        if not 0 <= self.warmup <= 1:
            raise UserError(f"--warmup is {self.warmup}; it is a share, from 0 to 1.")
        if self.clip_norm <= 0 or self.weight_decay < 0:
            raise UserError(f"--clip-norm is {self.clip_norm} and --weight-decay is "
                            f"{self.weight_decay}; allowed: above 0, and 0 or more.")


def _flag(field_name: str) -> str:
    return "--" + field_name.replace("_", "-")


def _plain_type(annotation: Any) -> Any:
    """Strip `| None`: a flag that is not given stays None by its default."""
    if isinstance(annotation, types.UnionType):
        return next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation


def add_flags(parser: argparse.ArgumentParser | argparse._ArgumentGroup, settings: type) -> None:
    """Give the parser one flag for each field of a settings dataclass."""
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        kind = _plain_type(hints[field.name])
        required = field.default is dataclasses.MISSING
        text = field.metadata["help"]
        flag: dict[str, Any] = {"default": argparse.SUPPRESS, "required": required}
        if kind is bool:
            flag["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(kind) is Literal:
            flag["choices"] = typing.get_args(kind)
        elif typing.get_origin(kind) is tuple:
            flag["type"] = _comma_list(typing.get_args(kind)[0])
            flag["metavar"] = "A,B"
        else:
            flag["type"] = kind
            flag["metavar"] = field.name.rpartition("_")[2].upper()
        if not required and field.default is not None:
            shown = ",".join(map(str, field.default)) if kind is not bool and isinstance(
                field.default, tuple) else field.default
            text += f" (default: {shown})"
        parser.add_argument(_flag(field.name), help=text.replace("%", "%%"), **flag)


def _comma_list(kind: type) -> Any:
    def parse(text: str) -> tuple[Any, ...]:
        return tuple(kind(part.strip()) for part in text.split(",") if part.strip())

    parse.__name__ = f"comma-separated {kind.__name__}"
    return parse


def from_flags(settings: type[Settings], flags: argparse.Namespace) -> Settings:
    """Build the settings from parsed flags; what was not given keeps its default."""
    given = vars(flags)
    fields = dataclasses.fields(settings)  # type: ignore[arg-type]
    return settings(**{f.name: given[f.name] for f in fields if f.name in given})


def to_flags(settings: Any) -> list[str]:
    """Write settings as the flags that would give them, for a command in another process."""
    words: list[str] = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value == field.default:
            continue
        if isinstance(value, bool):
            words.append(_flag(field.name) if value else _flag("no_" + field.name))
        else:
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words.append(f"{_flag(field.name)}={shown}")
    return words
