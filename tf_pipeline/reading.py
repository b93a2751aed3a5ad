"""What every training begins with: the data, the task that fits them, the checkpoint."""

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any

from . import checkpoints, plugins, splits, tasks
from .config import DataConfig
from .data import Examples, InMemory
from .errors import UserError
from .sources import Split
from .splits import Splits
from .task import Prepared, Task
from .text import TextEncoder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Material:
    """What is trained with."""

    task: Task
    checkpoint: checkpoints.Checkpoint
    examples: Examples
    parts: Splits  # validation and test as they are scored; training texts may be left out
    rows: dict[Split, int]  # how many records each split was read as, or made to


def read(config: DataConfig, options: Any) -> Material:
    """Read and encode the data that the settings name, in memory."""
    parts, task = read_data(config, options)
    checkpoint = read_checkpoint(config, task)
    encoder = checkpoint.encoder
    parts = as_asked(task, parts, encoder)
    targets = task.targets(parts.train)
    encoded = task.encode(parts.train, encoder)
    warn_of_cuts(encoded.cut, len(encoded), config.max_len)
    return Material(task, checkpoint, InMemory(encoded, targets, task.weights(targets)), parts,
                    {name: len(rows) for name, rows in parts.records().items()})


def as_asked(task: Task, parts: Splits, encoder: TextEncoder) -> Splits:
    """Let a task that works on other records than those of the data make them."""
    if not isinstance(task, Prepared):
        return parts
    return dataclasses.replace(parts, train=task.examples(parts.train, encoder),
                               validation=task.questions(parts.validation, encoder),
                               test=task.questions(parts.test, encoder))


def warn_of_cuts(cut: int, texts: int, max_len: int) -> None:
    """Say how many texts were too long, if any."""
    if cut:
        log.warning("%d of %d training texts are longer than --max-len %d and were cut.", cut,
                    texts, max_len)


def read_data(config: DataConfig, options: Any) -> tuple[Splits, Task]:
    """Read and split the data and let the task learn its labels; every target is checked."""
    module = plugins.load(tasks, config.task)
    parts = splits.assemble(config.train, config.validation, config.test)
    for note in parts.notes:
        log.warning("%s", note)
    for name, rows in parts.records().items():
        lacking = [field for field in module.Task.FIELDS if any(field not in r for r in rows)]
        if lacking:
            fields = {other: set(plugins.load(tasks, other).Task.FIELDS)
                      for other in plugins.names(tasks)}
            fields = {other: own for other, own in fields.items() if own <= set(rows[0])}
            # Any text would do for mlm: what reads most of the fields is what is meant.
            most = max(map(len, fields.values()), default=0)
            fitting = [other for other, own in fields.items() if len(own) == most]
            advice = (f"They fit --task {' and '.join(fitting)}." if fitting else
                      f"Name the columns, e.g. ?{lacking[0]}=COLUMN.")
            raise UserError(f"Task {config.task} needs the fields {', '.join(module.Task.FIELDS)}; "
                            f"the {name} data {parts.specs[name]!r} has {', '.join(rows[0])}. "
                            f"{advice}")
    task = module.Task.learn(parts.train, options)
    for name, rows in parts.records().items():
        try:
            task.targets(rows)
        except UserError as error:
            raise UserError(f"The {name} data {parts.specs[name]!r} has {error}") from None
    return parts, task


def read_checkpoint(config: DataConfig, task: Task) -> checkpoints.Checkpoint:
    """Read the checkpoint, with the casing that was asked for or that suits the task."""
    checkpoint = checkpoints.load(config.backbone, config.cased)
    positions = checkpoint.config.max_position_embeddings
    if config.max_len > positions:
        raise UserError(f"--max-len is {config.max_len}; {config.backbone} has only {positions} "
                        "positions.")
    folds = checkpoint.encoder.lower_case and checkpoint.encoder.is_wordpiece
    if config.mark_case or (config.mark_case is None and task.MARKS_CASE and folds):
        checkpoint = checkpoint.mark_case()
    checkpoint.encoder.max_len = config.max_len
    return checkpoint
