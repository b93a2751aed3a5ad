"""What every task is: the contract between training, export and serving.

A file in tasks/ declares `Options` (a frozen dataclass, its fields become flags) and its `Task`.
Keras is imported inside `build`, `compile_args` and `export_outputs` only: decoding an artifact's
answers needs none of it.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from . import plugins, tasks
from .errors import UserError
from .text import Arrays, Encoded, TextEncoder, generated_texts

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Record = dict[str, Any]
Answer = dict[str, Any]
Scores = dict[str, Any]

PAIR = ("text", "text_b")
PAIR_MARK = "|||"  # between the two texts of a pair where they stand on one line


class Task(ABC):
    """One kind of model, from records to answers. What is not abstract suits most tasks."""

    FIELDS: ClassVar[tuple[str, ...]]  # what a training record must hold
    # Which outputs each exported graph gives; the scale is in the name, decoding never guesses.
    OUTPUTS: ClassVar[dict[str, tuple[str, ...]]]

    ARCHITECTURE: ClassVar[str]  # the class of transformers that has this head
    PROBLEM_TYPE: ClassVar[str | None] = None  # what its config.json says beside, if anything
    COMPARES: ClassVar[bool] = False  # whether the loss compares a batch's records with each other
    MARKS_CASE: ClassVar[bool] = False  # whether capitals are worth a piece where they are folded

    def __init__(self, labels: Sequence[str], options: Any):
        self.labels = tuple(labels)
        self.options = options

    @property
    @abstractmethod
    def METRIC(self) -> str:  # noqa: N802
        """The score that early stopping and the export gate watch; more is better."""

    @property
    def unit(self) -> float:
        """What one is in the outputs: parity's tolerances are multiples of it."""
        return 1.0

    @property
    def text_fields(self) -> tuple[str, ...]:
        """Name the texts that a question to this task holds."""
        return PAIR if getattr(self.options, "pairs", False) else ("text",)

    @classmethod
    @abstractmethod
    def learn(cls, records: Sequence[Record], options: Any) -> "Task":
        """Make the task for these training records; UserError where they cannot teach it."""

    def encode(self, records: Sequence[Record], encoder: TextEncoder,
               max_len: int | None = None) -> Encoded:
        """Turn records into token ids: texts, or pairs of them where training had such."""
        columns = []
        for field in self.text_fields:
            if lacking := next((record for record in records if field not in record), None):
                raise UserError("The model takes pairs, and a record has "
                                f"{', '.join(lacking)} but no {field}. Name the column, e.g. "
                                f"?{field}=COLUMN.")
            columns.append([record[field] for record in records])
        return encoder.encode(columns[0], columns[1] if len(columns) > 1 else None, max_len)

    @abstractmethod
    def targets(self, records: Sequence[Record]) -> Arrays:
        """Give, by output name, what the loss compares with; UserError for an unknown label.

        A row for each record; where `encode` asks for words, a column for each of those.
        """

    def weights(self, targets: Arrays) -> np.ndarray:
        """Weigh each training record: float32 (records,)."""
        return np.ones(len(next(iter(targets.values()))), np.float32)

    @abstractmethod
    def build(self, backbone: "keras.Model") -> "keras.Model":
        """Put the head on: a functional model with named outputs."""

    @abstractmethod
    def compile_args(self) -> dict[str, Any]:
        """Give loss and metrics for `model.compile`."""

    def finish(self, model: "keras.Model", outputs: Arrays,
               records: Sequence[Record]) -> "Task":
        """Choose what validation data decides, fold it into `model` and give the task to keep.

        `outputs` are the model's for these validation records.
        """
        return self

    def export_outputs(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compute, in Keras operations, every tensor that OUTPUTS names."""
        return dict(outputs)

    def served(self, outputs: Arrays) -> Arrays:
        """Add what OUTPUTS names and a file left out, as far as it can be had; numpy only."""
        return outputs

    @abstractmethod
    def decode(self, outputs: Arrays, records: Sequence[Record],
               encoded: Encoded) -> list[Answer]:
        """Turn a runtime's outputs for these records into answers; numpy only."""

    @abstractmethod
    def decisions(self, outputs: Arrays) -> tuple[list[set[Any]], np.ndarray]:
        """Give what parity compares: each record's labels or spans, and by how much they were made.

        The margin is in probability; below 1e-4 it is a tie, and either side is right. Records of
        several texts may give as many, one after the other.
        """

    @abstractmethod
    def score(self, outputs: Arrays, records: Sequence[Record]) -> Scores:
        """Compare outputs with the records' targets; holds METRIC."""


def text_of(record: Record) -> str:
    """Give a record's text on one line: tokens joined by blanks, a pair by its mark."""
    if "tokens" in record and "text" not in record:
        return " ".join(record["tokens"])
    return f" {PAIR_MARK} ".join(record[field] for field in PAIR if field in record)


def question(task: Task, asked: str | Sequence[str]) -> Record:
    """Make a record of a text, or of the two texts of a pair, on one line or apart."""
    fields = task.text_fields
    if isinstance(asked, str):
        parts = [part.strip() for part in asked.split(PAIR_MARK)] if len(fields) > 1 else [asked]
    else:
        parts = list(asked)
    if len(parts) != len(fields):
        needed = f"two texts with {PAIR_MARK} between" if len(fields) > 1 else "one text"
        raise UserError(f"The model takes {needed} and was given {len(parts)}: "
                        f"{str(asked)[:80]!r}.")
    return dict(zip(fields, parts, strict=True))


def generated_questions(task: Task, encoder: TextEncoder, count: int) -> list[Record]:
    """Make questions of random words, where no real text is at hand or wanted."""
    fields = task.text_fields
    texts = generated_texts(encoder, count * len(fields))
    return [dict(zip(fields, texts[i::count], strict=True)) for i in range(count)]


@dataclass(frozen=True)
class Judgement:
    """One answer beside its target, as people read them."""

    text: str
    true: str
    predicted: str
    score: float  # the answer's probability
    correct: bool


@runtime_checkable
class Confident(Protocol):
    """What a task adds whose answers can be too unsure to give."""

    def confidence(self, outputs: Arrays) -> np.ndarray:
        """Say how sure each answer is: a probability, (records,)."""


@runtime_checkable
class Trained(Protocol):
    """What a task adds whose loss reads another graph than the one that answers."""

    def trainer(self, model: "keras.Model") -> "keras.Model":
        """Give the model to fit, over the layers of what `build` gave."""


@runtime_checkable
class Imported(Protocol):
    """What a task adds whose head transformers saves: `import` makes a run of such a model."""

    @classmethod
    def imported(cls, labels: Sequence[str]) -> "Task":
        """Make the task of a model that was trained elsewhere."""

    def answered(self, records: Sequence[Record], outputs: Arrays,
                 encoded: Encoded) -> list[Record]:
        """Give unlabelled records the model's own answers as targets."""


@runtime_checkable
class Prepared(Protocol):
    """What a task adds whose examples are not the records as they are read."""

    KEPT_ROWS: ClassVar[int]  # how many evaluation rows a run keeps

    def examples(self, records: Sequence[Record], encoder: TextEncoder) -> list[Record]:
        """Make what is trained on."""

    def questions(self, records: Sequence[Record], encoder: TextEncoder,
                  max_len: int | None = None) -> list[Record]:
        """Make what is scored, targets included; rows that were made before come back."""


@runtime_checkable
class Corrupting(Protocol):
    """What a task adds that changes training batches as they come, targets among them."""

    def mask(self, batches: "tf.data.Dataset", encoder: TextEncoder, seed: int,
             start: int = 0) -> "tf.data.Dataset":
        """Give batches for the model of `trainer`; `start` is the first one's step."""


@runtime_checkable
class Pretrained(Protocol):
    """What a task adds whose head checkpoints have too."""

    def restore(self, model: "keras.Model", weights: dict[str, np.ndarray]) -> None:
        """Load the head from a checkpoint's weights, if they hold one."""

    def head_weights(self, model: "keras.Model") -> dict[str, np.ndarray]:
        """Give the head under the names that `restore` reads."""


@runtime_checkable
class Ranked(Protocol):
    """What a task adds whose answers are many candidates in order: the first is a close call.

    Its METRIC is a mean over values, not a share of right answers.
    """

    MOST_LOST: ClassVar[float]  # by how much METRIC may fall where weights are rounded
    LEAST_EQUAL: ClassVar[float]  # share of first candidates that stay first


@runtime_checkable
class Judge(Protocol):
    """What a task adds whose answers are right or wrong: plots of errors and a list of them.

    Regression and embeddings leave it out.
    """

    def judge(self, outputs: Arrays, records: Sequence[Record]) -> list[Judgement]:
        """Lay each answer beside its record's target, in order; numpy only."""


def refuse_unknown(found: Iterable[str], known: Sequence[str], noun: str) -> None:
    """Raise UserError for labels or tags that training never saw."""
    unknown = Counter(found)
    for name in known:
        unknown.pop(name, None)
    if unknown:
        shown = ", ".join(f"{name!r} ({count}x)" for name, count in unknown.most_common(5))
        raise UserError(f"{len(unknown)} {noun}(s) that training never saw: {shown}. "
                        f"Known: {', '.join(map(repr, known[:20]))}. Add examples of them to the "
                        f"training data, or correct the {noun} column.")


def natural(label: str) -> tuple[int, str]:
    """Sort "2" before "10": labels that are numbers keep their order as ids."""
    return (int(label), "") if label.isascii() and label.isdigit() else (1 << 62, label)


def options_of(name: str) -> type:
    """Give a task's Options class."""
    return plugins.load(tasks, name).Options


def create(name: str, labels: Sequence[str], options: dict[str, Any]) -> Task:
    """Make a task again from what a run or an artifact stores."""
    module = plugins.load(tasks, name)
    known = {field.name for field in fields(module.Options)}
    if unknown := sorted(options.keys() - known):
        raise UserError(f"The model has the setting {unknown[0]} of another version of this kit, "
                        f"and task {name} has {', '.join(sorted(known))}. Train it again, or use "
                        "the version that wrote it.")
    return module.Task(labels, module.Options(**options))
