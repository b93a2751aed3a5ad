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
Track = Literal["files", "wandb"]
DeviceKind = Literal["auto", "cpu", "gpu", "tpu"]
Pooling = Literal["pooler", "mean"]
Settings = TypeVar("Settings")

PREPARED = "prepared:"  # before a folder that `prepare` wrote

BACKBONES = {
    "minilm": "all-MiniLM-L6-v2: 6 layers, hidden 384, 22.7 M weights, English, uncased; "
              "from the Python package index (83 MB, once)",
    "FOLDER": "a Hugging Face layout folder with config.json, model.safetensors and tokenizer.json",
    "runs/NAME": "the backbone of a finished run",
    "hf:REPOSITORY[@REVISION]": "a BERT of the Hugging Face hub",
    "keras:PRESET": "a KerasHub BERT preset or preset folder, e.g. keras:bert_base_en_uncased",
    "new:vocab=FILE&layers=4": "random weights for the task mlm; also hidden=256, heads=4, "
                               "intermediate, positions; FILE is a vocab.txt or tokenizer.json",
    "tiny": "2 layers, hidden 32, random weights: for tests and for trying things out",
}


def option(default: Any = dataclasses.MISSING, *, help: str,  # noqa: A002
           off: str | None = None) -> Any:
    """Declare a field with the sentence that `--help` shows for its flag.

    `off` names a bool's other side, if that is not `--no-FIELD`.
    """
    return dataclasses.field(default=default, metadata={"help": help, "off": off})


def pooling_option() -> Any:
    """Declare what a task that answers for a whole text reads of the encoder."""
    return option("pooler", help="what the head reads: the pooler's output for [CLS], as BERT "
                  "has it, or the mean of all tokens")


@dataclass(frozen=True)
class DataConfig:
    """Which data, and how their texts become token ids."""

    task: str = option(help="what to train, e.g. classify (a file in tf_pipeline/tasks)")
    train: str = option(help="training data, e.g. 'csv:reviews.csv?text=review&label=stars', or "
                             "prepared:FOLDER, what `prepare` wrote")
    out: Path | None = option(None, help="folder to write, e.g. runs/reviews")
    validation: str | None = option(None, help="validation data; cut from --train if not given")
    test: str | None = option(None, help="test data; cut from --train if not given")
    backbone: str = option("minilm", help="checkpoint: see `python -m tf_pipeline backbones`")
    cased: bool | None = option(None, off="--uncased", help="keep capitals, or fold them; "
                                "default: as the checkpoint says")
    mark_case: bool | None = option(None, help="where the checkpoint folds capitals, tell it of "
                                    "them in pieces of their own; default: for the task tag")
    max_len: int = option(128, help="longest text in tokens; longer ones are cut and counted")

    def __post_init__(self) -> None:
        if isinstance(self.out, str):  # as Python users write it
            object.__setattr__(self, "out", Path(self.out))
        if self.max_len < 3:
            raise UserError(f"--max-len is {self.max_len}; it must be >= 3.")

    @property
    def is_prepared(self) -> bool:
        """Whether the training data is what `prepare` wrote."""
        return self.train.startswith(PREPARED)


@dataclass(frozen=True)
class TrainConfig(DataConfig):
    """What every task's training shares; a task's own settings stand in its `Options`."""

    epochs: int = option(3, help="passes over the training data; 0: take the checkpoint as it is, "
                         "where the task adds no weights of its own")
    batch_size: int = option(32, help="examples per step")
    mini_batch_size: int = option(0, help="above 0: hold only so many examples of a batch in "
                                  "memory at once; the step stays that of the whole batch")
    learning_rate: float = option(5e-5, help="highest learning rate, reached after the warm-up")
    warmup: float = option(0.1, help="share of all steps with a rising learning rate")
    weight_decay: float = option(0.01, help="AdamW decay; none on biases and layer norms")
    clip_norm: float = option(1.0, help="largest global norm of a step's gradients")
    word_dropout: float = option(0.0, help="share of the word pieces that training hides, others "
                                 "in each step; 0.1 helps a tagger with names it has not seen")
    patience: int = option(2, help="stop after this many epochs without a better validation score")
    precision: Precision = option("auto", help="number format; auto: what the device is quick in, "
                                  "float32 on a CPU")
    device: DeviceKind = option("auto", help="what to train on; auto: the best that the backend "
                                "finds. TPUs need KERAS_BACKEND=jax")
    devices: int = option(0, help="how many of them share each batch; 0: all GPUs or TPU chips, "
                          "one CPU")
    model_parallel: int = option(1, help="how many devices share each weight matrix, for backbones "
                                 "that one cannot hold; KERAS_BACKEND=jax")
    track: Track = option("files", help="where numbers and pictures go; files: JSON lines and "
                          "TensorBoard's in OUT/logs; wandb: to Weights & Biases as well")
    profile_steps: int = option(0, help="record so many steps, from the 20th on, for TensorBoard's "
                                "profiler")
    checkpoint_steps: int = option(0, help="write a checkpoint after so many steps, too; one is "
                                   "written after each epoch, every 10 minutes and on SIGTERM")
    seed: int = option(0, help="seed of shuffling, dropout and new weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least = {"epochs": 0, "batch_size": 1, "patience": 1, "seed": 0,
                    "checkpoint_steps": 0, "devices": 0, "profile_steps": 0,
                    "mini_batch_size": 0, "model_parallel": 1}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise UserError(f"{flag(name)} is {getattr(self, name)}; it must be >= {least}.")
        if self.mini_batch_size > self.batch_size:
            raise UserError(f"--mini-batch-size is {self.mini_batch_size}; allowed: up to the "
                            f"--batch-size, {self.batch_size}, or 0 for all of it at once.")
        if self.seed >= 2 ** 31:
            raise UserError(f"--seed is {self.seed}; it must be below {2 ** 31}.")
        if not self.learning_rate > 0:
            raise UserError(f"--learning-rate is {self.learning_rate}; it must be above 0.")
        if not 0 <= self.word_dropout < 1:
            raise UserError(f"--word-dropout is {self.word_dropout}; allowed: 0 to below 1.")
        if not 0 <= self.warmup <= 1:
            raise UserError(f"--warmup is {self.warmup}; it is a share, from 0 to 1.")
        if self.clip_norm <= 0 or self.weight_decay < 0:
            raise UserError(f"--clip-norm is {self.clip_norm} and --weight-decay is "
                            f"{self.weight_decay}; allowed: above 0, and 0 or more.")


@dataclass(frozen=True)
class PrepareConfig(DataConfig):
    """Settings of one `prepare`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out is None:
            raise UserError("--out is missing. Name the folder to write, e.g. --out "
                            "prepared/reviews.")
        if self.is_prepared:
            raise UserError(f"--train is {self.train}, which is prepared. Give texts.")


@dataclass(frozen=True)
class ImportConfig:
    """Settings of one import."""

    out: Path | None = option(None, help="run folder to write, e.g. runs/reviews")
    data: str | None = option(None, help="texts that parity is judged on, e.g. csv:test.csv; "
                              "labels are optional. Default: generated texts")
    max_len: int = option(128, help="longest text in tokens; longer ones are cut")
    cased: bool | None = option(None, off="--uncased", help="keep capitals, or fold them; "
                                "default: as the folder's own tokenizer says")

    def __post_init__(self) -> None:
        if isinstance(self.out, str):
            object.__setattr__(self, "out", Path(self.out))


@dataclass(frozen=True)
class VocabularyConfig:
    """Settings of one vocabulary."""

    train: str = option(help="texts, e.g. lines:corpus.txt")
    out: Path = option(help="file to write, one piece a line, e.g. vocab.txt")
    size: int = option(8000, help="pieces, special ones included")
    cased: bool | None = option(None, off="--uncased", help="keep capitals, or fold them; training "
                                "on the vocabulary needs the same flag")

    def __post_init__(self) -> None:
        if self.cased is None:
            raise UserError(f"{self.out} would not say whether capitals count. Pass --cased to "
                            "keep them or --uncased to fold them.")
        from .text import SPECIAL_TOKENS  # not for `--help`: it imports numpy

        if self.size <= len(SPECIAL_TOKENS):
            raise UserError(f"--size is {self.size}; it must be above the {len(SPECIAL_TOKENS)} "
                            "special pieces.")


@dataclass(frozen=True)
class TrimConfig:
    """Settings of one trimming."""

    texts: str = option(help="texts as the model will read them, e.g. csv:reviews.csv")
    pieces: int | None = option(None, help="most pieces to keep (default: all that texts use)")
    out: Path | None = option(None, help="run folder to write, e.g. runs/small")

    def __post_init__(self) -> None:
        if isinstance(self.out, str):
            object.__setattr__(self, "out", Path(self.out))


def flag(field_name: str) -> str:
    """Give the flag of a field."""
    return "--" + field_name.replace("_", "-")


def _plain_type(annotation: Any) -> Any:
    """Strip `| None`: a flag that is not given stays None by its default."""
    if isinstance(annotation, types.UnionType):
        return next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation


def add_flags(parser: argparse.ArgumentParser | argparse._ArgumentGroup, settings: type) -> None:
    """Give the parser one flag for each field of a settings dataclass that `option` declares."""
    hints = typing.get_type_hints(settings)
    for field in (f for f in dataclasses.fields(settings) if "help" in f.metadata):
        name, text = flag(field.name), field.metadata["help"].replace("%", "%%")
        if field.default not in (dataclasses.MISSING, None, ()):
            shown = ",".join(map(str, field.default)) if isinstance(
                field.default, tuple) else field.default
            text += f" (default: {shown})"
        kind = _plain_type(hints[field.name])
        if kind is bool:
            common: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
            parser.add_argument(name, action="store_true", help=text, **common)
            parser.add_argument(_off(field), action="store_false", help=f"the opposite of {name}",
                                **common)
            continue
        parser.add_argument(name, help=text, default=argparse.SUPPRESS,
                            required=field.default is dataclasses.MISSING,
                            **_value(kind, field.name))


def _value(kind: Any, field_name: str) -> dict[str, Any]:
    """Say how argparse reads a value of this type."""
    if typing.get_origin(kind) is Literal:
        return {"choices": typing.get_args(kind)}
    if typing.get_origin(kind) is tuple:
        return {"type": _comma_list(typing.get_args(kind)[0]), "metavar": "A,B"}
    return {"type": kind, "metavar": field_name.rpartition("_")[2].upper()}


def _off(field: dataclasses.Field) -> str:
    return field.metadata["off"] or flag("no_" + field.name)


def _comma_list(kind: type) -> Any:
    def parse(text: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part.strip()) for part in text.split(",") if part.strip())
        except ValueError:
            noun = {int: "whole numbers", float: "numbers"}.get(kind, "values")
            raise argparse.ArgumentTypeError(
                f"{text!r} is not what it takes: {noun} with a comma between, e.g. 0,5") from None

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
            words.append(flag(field.name) if value else _off(field))
        else:
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words.append(f"{flag(field.name)}={shown}")
    return words
