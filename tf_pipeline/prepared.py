"""`prepare`: texts to token ids once, in a folder that `train --train prepared:FOLDER` reads.

The folder holds TFRecord files (shards.py), validation.jsonl, test.jsonl, tokenizer.json and,
written last, the index prepared.json: what the examples are, and every file's sha256.
"""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from . import files, reading, run, shards, task
from .config import PREPARED, DataConfig, PrepareConfig, TrainConfig, flag
from .data import table_of
from .errors import UserError
from .reading import Material
from .shards import Layout, Shards, Writer
from .sources import Record, Split
from .splits import Splits
from .task import Task
from .text import TextEncoder

INDEX = "prepared.json"
SCHEMA = 1
_CHUNK = 64 * shards.BLOCK  # records that are tokenized at a time
_HELD: tuple[Split, ...] = ("validation", "test")
_FIXED = ("max_len", "cased", "mark_case")  # settings that the token ids follow from


def prepare(config: PrepareConfig, options: Any = None) -> dict[str, Any]:
    """Write the folder `config.out`, whole or not at all, and give its index.

    The training texts themselves are held in memory, their token ids are not. Examples are written
    in one random order, so that what is read together is a fair sample.
    """
    assert config.out is not None
    out, options = config.out, options or task.options_of(config.task)()
    if out.exists():
        raise UserError(f"--out {out} exists and is not overwritten. Choose another folder, or "
                        "delete it first.")
    parts, learned = reading.read_data(config, options)
    encoder = reading.read_checkpoint(config, learned).encoder
    parts = reading.as_asked(learned, parts, encoder)
    part = out.with_name(f".{out.name}.partial")
    shutil.rmtree(part, ignore_errors=True)
    with files.disk_errors(out):
        part.mkdir(parents=True)
        try:
            index = _write(part, config, learned, parts, encoder)
            part.rename(out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return index


def read(config: TrainConfig, options: Any) -> tuple[TrainConfig, Material]:
    """Open a prepared folder; its settings are those of the training.

    UserError where others were asked for, where the checkpoint has another tokenizer, and where a
    file is not as it was written.
    """
    folder = Path(config.train.removeprefix(PREPARED))
    index = _open(folder)
    config = _settled(config, index)
    _refuse_other_options(options, index)
    learned = task.create(index["task"], index["labels"], index["options"])
    checkpoint = reading.read_checkpoint(config, learned)
    if _hash(checkpoint.encoder) != index["files"]["tokenizer.json"]["sha256"]:
        raise UserError(f"{folder} was prepared with the tokenizer of {index['backbone']}, and "
                        f"that of --backbone {config.backbone} is another. Give --backbone "
                        f"{index['backbone']}, or prepare the data with this one.")
    layout = Layout(**index["layout"])
    paths = tuple(str(folder / name) for name in index["files"] if name.endswith(".tfrecord"))
    reading.warn_of_cuts(index["cut"], layout.examples * layout.texts, config.max_len)
    data = index["data"]
    validation, test = (_records(folder / f"{split}.jsonl") for split in _HELD)
    parts = Splits([], validation, test, {split: data[split]["spec"] for split in data}, (),
                   {split: data[split]["sha256"] for split in data}, ())
    return config, Material(learned, checkpoint, Shards(paths, layout), parts,
                            {split: data[split]["rows"] for split in data})


def _write(folder: Path, config: PrepareConfig, learned: Task, parts: Splits,
           encoder: TextEncoder) -> dict[str, Any]:
    from tqdm import tqdm

    targets = learned.targets(parts.train)
    weights = learned.weights(targets)
    order = np.random.default_rng(0).permutation(len(parts.train))
    writer = None
    cut = 0
    with tqdm(total=len(order), unit=" records", disable=None) as bar:
        for begin in range(0, len(order), _CHUNK):
            chosen = order[begin:begin + _CHUNK]
            encoded = learned.encode([parts.train[i] for i in chosen], encoder)
            cut += encoded.cut
            if encoded.groups is not None:  # equal texts of a chunk were held once
                groups = np.arange(encoded.groups.size).reshape(encoded.groups.shape)
                encoded = dataclasses.replace(encoded.take(encoded.groups.ravel()), groups=groups)
            writer = writer or Writer(folder, encoded.pad_id, encoded.words is not None)
            writer.add(table_of(encoded, {name: values[chosen] for name, values
                                               in targets.items()}, weights[chosen]))
            bar.update(len(chosen))
    assert writer is not None  # no split is ever empty
    layout = writer.close()
    files.write_text(folder / "tokenizer.json", encoder.to_json())
    for split in _HELD:
        files.write_text(folder / f"{split}.jsonl", "".join(
            json.dumps(record, ensure_ascii=False) + "\n" for record in parts.records()[split]))
    index = {
        "schema": SCHEMA, "task": config.task, "options": dataclasses.asdict(learned.options),
        "labels": learned.labels, "backbone": config.backbone,
        **{name: getattr(config, name) for name in _FIXED}, "cut": cut,
        "layout": dataclasses.asdict(layout), "versions": run.versions(),
        "data": {split: {"spec": parts.specs[split], "rows": len(rows),
                         "sha256": parts.hashes[split]}
                 for split, rows in parts.records().items()},
        "files": {path.name: files.describe(path) for path in sorted(folder.iterdir())}}
    files.write_last(folder / INDEX, index)
    return index


def _open(folder: Path) -> dict[str, Any]:
    """Read the index and check every file against it."""
    path = folder / INDEX
    if not path.is_file():
        reason = "there is no prepared.json" if folder.is_dir() else "no such folder"
        raise UserError(f"--train {PREPARED}{folder} is not what `prepare` wrote: {reason}. Make "
                        "it with `python -m tf_pipeline prepare`.")
    try:
        index: dict[str, Any] = json.loads(path.read_text("utf-8"))
        schema = index["schema"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error!r}). Copy the folder again.") from None
    if schema != SCHEMA:
        raise UserError(f"{folder} has schema {schema}, and this version of the kit reads "
                        f"{SCHEMA}. Prepare the data again.")
    for name, expected in index["files"].items():
        files.check(folder / name, expected)
    return index


def _settled(config: TrainConfig, index: dict[str, Any]) -> TrainConfig:
    """Give the settings with those of the folder, which others may not contradict."""
    if config.task != index["task"]:
        raise UserError(f"--task is {config.task}, and {config.train} was prepared for "
                        f"{index['task']}. Give --task {index['task']}.")
    for split in _HELD:
        if (given := getattr(config, split)) is not None:
            raise UserError(f"--{split} is {given}, and {config.train} has its own {split} rows. "
                            "Leave it out, or prepare the data with it.")
    usual = {field.name: field.default for field in dataclasses.fields(DataConfig)}
    for name in _FIXED:
        given = getattr(config, name)
        if given not in (usual[name], index[name]):
            raise UserError(f"{flag(name)} is {given}, and {config.train} was prepared with "
                            f"{index[name]}. Leave it out, or prepare the data with it.")
    return dataclasses.replace(config, **{name: index[name] for name in _FIXED})


def _refuse_other_options(options: Any, index: dict[str, Any]) -> None:
    """Raise UserError for a task's setting that was given and is not the folder's."""
    for field in dataclasses.fields(options):
        given = getattr(options, field.name)
        kept = index["options"].get(field.name)
        if given != field.default and json.dumps(given) != json.dumps(kept):
            raise UserError(f"{flag(field.name)} is {given}, and the data were prepared with "
                            f"{kept}. Leave it out, or prepare the data with it.")


def _records(path: Path) -> list[Record]:
    with path.open(encoding="utf-8") as stream:  # splitlines() would cut at more than newlines
        return [json.loads(line) for line in stream]


def _hash(encoder: TextEncoder) -> str:
    return hashlib.sha256(encoder.to_json().encode()).hexdigest()
