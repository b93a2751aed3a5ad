"""A run with a smaller vocabulary: half of a small BERT's bytes are words that its texts never use.

`python -m tf_pipeline trim runs/reviews --texts csv:reviews.csv --pieces 3000 --out runs/small`
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import files, run, sources
from .config import TrimConfig
from .errors import UserError
from .run import Run
from .runner import run_all
from .runtimes import keras as keras_runtime
from .task import Ranked, Record, Scores
from .text import TextEncoder

if TYPE_CHECKING:
    import keras

_PREFIX = "##"  # of a piece that goes on with a word


def trim(folder: Path | str, config: TrimConfig) -> Run:
    """Write a run with the pieces that the texts use most; it exports as any other.

    A word without its own piece is then spelled in shorter ones. The new run's metrics are those of
    the rows that the old one kept, and `trimmed` in run.json has both runs' beside each other.
    UserError where the task answers in pieces, or the tokenizer is not WordPiece.
    """
    if config.out is None:
        raise UserError("--out is missing. Name the run folder to write, e.g. --out runs/small.")
    run.refuse_existing(config.out)
    old = Run.load(folder)
    _refuse_kind(old)
    kept = choose(old.encoder, _texts(config.texts), config.pieces)
    encoder = old.encoder.trim(kept)
    shape = dataclasses.replace(old.config, vocab_size=len(kept), pad_token_id=encoder.pad_id)
    model = _rebuilt(old, shape, kept)
    rows = {split: old.evaluation(split) for split in ("validation", "test")}
    scores = {split: _score(old, model, encoder, records) for split, records in rows.items()}
    metric = old.task.METRIC
    report = {"run": old.name, "texts": config.texts, "pieces": len(kept),
              "of": old.config.vocab_size, "rows": len(rows["test"]),
              "otherwise": _otherwise(old, encoder, kept, rows["test"]),
              metric: [old.metrics["kept"][metric], scores["test"][metric]]}
    with files.disk_errors(config.out):
        config.out.mkdir(parents=True)
        run.save_weights(model, config.out / "model.weights.h5")
        return run.write(config.out, {
            "backbone.json": shape.to_json(), "tokenizer.json": encoder.to_json(),
            "labels.json": json.dumps(old.task.labels, ensure_ascii=False),
            "evaluation.jsonl": (old.path / "evaluation.jsonl").read_text("utf-8"),
            "metrics.json": json.dumps({**old.metrics, **scores, "kept": scores["test"]}, indent=2),
        }, {**{k: v for k, v in old.info.items() if k not in ("schema", "files")},
            "created": datetime.now(UTC).isoformat(timespec="seconds"), "trimmed": report})


def choose(encoder: TextEncoder, texts: Sequence[str], most: int | None) -> list[int]:
    """Give the ids to keep, in order: special pieces, letters of the texts, then by frequency."""
    used = Counter(number for encoding in encoder.whole(texts) for number in encoding.ids)
    special = set(encoder.special_ids.values()) | {encoder.pad_id}
    letters = {letter for number in used
               for letter in encoder.piece(number).removeprefix(_PREFIX)}
    # Any word of these letters can then be spelled.
    spelling = {number for number, piece in enumerate(encoder.vocabulary)
                if piece.removeprefix(_PREFIX) in letters}
    least = special | spelling
    if most is not None and most < len(least):
        raise UserError(f"--pieces is {most}; special pieces and the letters of the texts alone "
                        f"are {len(least)}. Give at least {len(least)}, and more for words.")
    words = [number for number, _ in used.most_common() if number not in least]
    return sorted(least | set(words if most is None else words[:most - len(least)]))


def _texts(spec: str) -> list[str]:
    found = [text for record in sources.read(spec) for text in _fields(record)]
    if not found:
        raise UserError(f"--texts {spec} has 0 rows. Name texts as the model will read them.")
    return found


def _fields(record: Record) -> list[str]:
    if "tokens" in record:
        return [" ".join(record["tokens"])]
    return [record[field] for field in ("text", "text_b") if field in record]


def _refuse_kind(old: Run) -> None:
    if isinstance(old.task, Ranked):
        raise UserError(f"{old.path} is a run of task {old.info['task']!r}, whose answers are "
                        "pieces of the vocabulary. Train a task on it first, then trim that run.")
    if not old.encoder.is_wordpiece:
        raise UserError(f"{old.path}/tokenizer.json is no WordPiece tokenizer; only those are "
                        "trimmed. Convert the run as it is.")


def _rebuilt(old: Run, shape: Any, kept: Sequence[int]) -> "keras.Model":
    """Build the same model around a shorter word table."""
    from .backbone import build

    model = old.task.build(build(shape))
    for new, trained in zip(model.weights, old.model.weights, strict=True):
        values = np.asarray(trained)
        new.assign(values if new.shape == trained.shape else values[list(kept)])
    return model


def _score(old: Run, model: "keras.Model", encoder: TextEncoder, records: list[Record]) -> Scores:
    encoded = old.task.encode(records, encoder, old.max_len)
    return old.task.score(run_all(keras_runtime.wrap(model), encoded), records)


def _otherwise(old: Run, encoder: TextEncoder, kept: Sequence[int], records: list[Record]) -> int:
    """Count the rows that are cut into other pieces than before."""
    before, after = (old.task.encode(records, e, old.max_len) for e in (old.encoder, encoder))
    numbers = np.array(kept)
    return sum(before.ids[before.splits[i]:before.splits[i + 1]].tolist()
               != numbers[after.ids[after.splits[i]:after.splits[i + 1]]].tolist()
               for i in range(min(len(before.splits), len(after.splits)) - 1))
