"""A folder that transformers fine-tuned, to a run that `convert` takes: backbone, head and labels.

`python -m tf_pipeline import FOLDER --out runs/x`
"""

import dataclasses
import hashlib
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import checkpoints, files, huggingface, plugins, run, sources, tasks
from .backbone import build
from .checkpoints import Checkpoint
from .config import ImportConfig
from .errors import UserError
from .run import Run
from .runner import run_all
from .runtimes import keras as keras_runtime
from .task import Imported, Record, Task, create, generated_questions
from .text import Arrays

log = logging.getLogger(__name__)
_GENERATED = 500


def import_folder(folder: Path | str, config: ImportConfig) -> Run:
    """Write a run from a Hugging Face folder with a head; UserError where it is none we know.

    Where `data` has no labels the model's own answers stand in for them: the export gate then
    asks that every file keeps those.
    """
    if config.out is None:
        raise UserError("--out is missing. Name the run folder to write, e.g. --out runs/reviews.")
    run.refuse_existing(config.out)
    return _Import(Path(folder), config).write(config.out)


def _read_head(folder: Path, pairs: bool) -> tuple[str, list[str]]:
    """Give the task and the labels that config.json names, for texts or for pairs."""
    path = folder / "config.json"
    try:
        keys = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} holds no config.json. Give the folder that transformers' "
                        "save_pretrained wrote.") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}). Copy the file again.") from None
    named = keys.get("id2label") or {}
    found = (keys.get("architectures") or ["no architecture"])[0]
    kinds = {name: plugins.load(tasks, name).Task for name in plugins.names(tasks)}
    # Of two tasks with one head, the one that asks for pairs is for those.
    order = sorted((name for name, kind in kinds.items() if issubclass(kind, Imported)),
                   key=lambda name: ("text_b" in kinds[name].FIELDS) == pairs)
    fitting = {kinds[name].PROBLEM_TYPE: name for name in order
               if found == kinds[name].ARCHITECTURE}
    if not fitting:
        known = sorted({kinds[name].ARCHITECTURE for name in order})
        raise UserError(f"{path} names {found}; imported are {', '.join(known)}. As a backbone "
                        f"for training anew, any BERT works: train --backbone {folder}.")
    problem = keys.get("problem_type")
    if problem is None and None not in fitting:  # what transformers assumes
        problem = "regression" if len(named) == 1 else "single_label_classification"
    if problem not in fitting:
        raise UserError(f"{path} has problem_type {problem!r}; imported are "
                        f"{', '.join(map(repr, fitting))}.")
    if problem == "regression" and len(named) != 1:
        raise UserError(f"{path} has problem_type 'regression' with {len(named)} labels; imported "
                        "is one score a text.")
    least = 1 if problem == "regression" else 2
    if len(named) < least or set(named) != {str(i) for i in range(len(named))}:
        raise UserError(f"{path} has id2label {dict(list(named.items())[:5])}; needed are "
                        f"{least} or more labels, numbered from 0 without a gap. Write them there.")
    labels = [named[str(i)] for i in range(len(named))]
    if len(set(labels)) < len(labels):
        double = next(label for label in labels if labels.count(label) > 1)
        raise UserError(f"{path} gives {double!r} to more than one id in id2label. "
                        "Give each id a name of its own.")
    return fitting[problem], labels


def _build(task: Task, checkpoint: Checkpoint) -> Any:
    """Build backbone and head with the folder's weights; the head's are named `classifier`."""
    weights = checkpoint.weights or {}
    model = task.build(build(checkpoint.config))
    kernel, bias = (weights.get(f"classifier.{part}") for part in ("weight", "bias"))
    if kernel is None or bias is None:
        raise UserError(f"{checkpoint.source}/model.safetensors has no classifier.weight and "
                        f"classifier.bias; it holds {len(weights)} other weights. Save the whole "
                        "fine-tuned model, not its encoder alone.")
    if "Sequence" in task.ARCHITECTURE and "pooler.dense.weight" not in weights:
        raise UserError(f"{checkpoint.source}/model.safetensors has no pooler.dense.weight, which "
                        f"{task.ARCHITECTURE} needs. Save the whole fine-tuned model.")
    if kernel.shape != (len(task.labels), checkpoint.config.hidden_size):
        raise UserError(f"{checkpoint.source}: classifier.weight has shape {kernel.shape}, and "
                        f"config.json names {len(task.labels)} labels. They do not belong "
                        "together.")
    huggingface.load(model, task, weights)
    return model


class _Import:
    """One import: the model as it was saved, and the rows that its exports are judged on."""

    def __init__(self, folder: Path, config: ImportConfig):
        self.folder, self.config = folder, config
        rows = self._read_rows()
        pairs = bool(rows) and "text_b" in rows[0]
        self.name, labels = _read_head(folder, pairs)
        self.checkpoint = checkpoints.from_folder(folder, config.cased)
        most = self.checkpoint.config.max_position_embeddings
        if not 3 <= config.max_len <= most:
            raise UserError(f"--max-len is {config.max_len}; allowed: 3 to {most}, the positions "
                            f"that {folder} has.")
        self.checkpoint.encoder.max_len = config.max_len
        self.task: Task = plugins.load(tasks, self.name).Task.imported(labels)
        if pairs and hasattr(self.task.options, "pairs"):
            self.task = create(self.name, labels,
                               dataclasses.asdict(self.task.options) | {"pairs": True})
        self.rows = rows or generated_questions(self.task, self.checkpoint.encoder, _GENERATED)
        self.model = _build(self.task, self.checkpoint)

    def write(self, out: Path) -> Run:
        """Judge the model as it came, and write the run folder."""
        rows = self.rows
        own = any(field not in row for row in rows for field in self.task.FIELDS)
        if own:
            rows = self._own_answers(rows)
        # Settings are chosen on a fifth, files are judged on the rest.
        kept = {"validation": rows[::5], "test": [r for i, r in enumerate(rows) if i % 5]}
        scores = {split: self.task.score(self._outputs(part), part)
                  for split, part in kept.items()}
        with files.disk_errors(out):
            out.mkdir(parents=True)
            run.save_weights(self.model, out / "model.weights.h5")
            return run.write(out, {
                "backbone.json": self.checkpoint.config.to_json(),
                "tokenizer.json": self.checkpoint.encoder.to_json(),
                "labels.json": json.dumps(self.task.labels, ensure_ascii=False),
                "evaluation.jsonl": run.evaluation_lines(kept),
                "metrics.json": json.dumps({"history": [], **scores, "kept": scores["test"]},
                                           indent=2),
            }, {**self._origin(), "own_answers": own, "data": {
                split: {"spec": self.config.data or "generated texts", "rows": len(part),
                        "sha256": hashlib.sha256(
                            run.evaluation_lines({split: part}).encode()).hexdigest()}
                for split, part in kept.items()}})

    def _own_answers(self, rows: list[Record]) -> list[Record]:
        encoded = self.task.encode(rows, self.checkpoint.encoder)
        outputs = run_all(keras_runtime.wrap(self.model), encoded)
        assert isinstance(self.task, Imported)
        return self.task.answered(rows, outputs, encoded)

    def _outputs(self, rows: list[Record]) -> Arrays:
        return run_all(keras_runtime.wrap(self.model),
                       self.task.encode(rows, self.checkpoint.encoder))

    def _read_rows(self) -> list[Record]:
        """Read the data; without any, none: generated ones need the tokenizer."""
        data = self.config.data
        if data is None:
            log.warning("No --data: every file will be compared on %d generated texts. A few "
                        "hundred texts of your own say more, e.g. --data csv:test.csv.",
                        _GENERATED)
            return []
        rows = list(sources.read(data))
        if lacking := next((r for r in rows if not {"text", "tokens"} & set(r)), None):
            raise UserError(f"--data {data} has records without text, with {', '.join(lacking)}. "
                            "Name the column, e.g. ?text=COLUMN.")
        if len(rows) < 10:
            raise UserError(f"--data {data} has {len(rows)} texts; at least 10 are needed to "
                            "judge by.")
        return run.spread(rows, run.EVALUATION_ROWS)

    def _origin(self) -> dict[str, Any]:
        settings = {k: str(v) if isinstance(v, Path) else v
                    for k, v in dataclasses.asdict(self.config).items()}
        return {"created": datetime.now(UTC).isoformat(timespec="seconds"), "task": self.name,
                "options": dataclasses.asdict(self.task.options), "metric": self.task.METRIC,
                "config": {**settings, "backbone": self.folder.resolve().name},
                "imported": files.describe(self.folder / "model.safetensors"),
                "stopped": None, "versions": run.versions()}
