"""Data that were tokenized once: the same examples, in an order of their own, on any machine."""

import errno
import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import command, write_conll, write_csv
from tf_pipeline import callbacks, cli, prepared, reading, shards
from tf_pipeline.config import PrepareConfig, TrainConfig
from tf_pipeline.data import Batching, InMemory, buckets
from tf_pipeline.errors import UserError
from tf_pipeline.prepared import prepare
from tf_pipeline.task import options_of
from tf_pipeline.text import INPUTS
from tf_pipeline.training import fit

WORDS = ["the", "garden", "was", "lovely", "and", "late", "trains", "came", "to", "town"]
ROWS = [{"text": " ".join(itertools.islice(itertools.cycle(WORDS), i % 15, i % 15 + 2 + i % 23))
         + f" {i}", "label": ("no", "yes")[i % 3 == 0]} for i in range(700)]
TAGGED = [(row["text"].split(), ["B-PLACE" if word in ("garden", "town") else "O"
                                 for word in row["text"].split()]) for row in ROWS]
ANSWERS = [{"text": row["text"], "text_b": f"{row['text'][::-1]}", "negative": f"no {i}"}
           for i, row in enumerate(ROWS)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small data fill several files and windows."""
    monkeypatch.setattr(shards, "BLOCK", 16)
    monkeypatch.setattr(shards, "FILE", 3)
    monkeypatch.setattr(shards, "WINDOW", 8)
    monkeypatch.setattr(prepared, "_CHUNK", 100)


def settings(task: str, folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    spec = (f"conll:{write_conll(folder / 'data.txt', TAGGED)}" if task == "tag" else
            f"csv:{write_csv(folder / 'data.csv', ANSWERS if task == 'embed' else ROWS)}")
    return {"task": task, "train": spec, "backbone": "tiny", "max_len": 60, "mark_case": False}


def first(batches: tf.data.Dataset, count: int) -> list[tuple]:
    return list(itertools.islice(batches.as_numpy_iterator(), count))


def examples(batches: list[tuple], by_token: bool) -> Counter:
    """Count examples by what is in them, however they are padded."""
    found: Counter = Counter()
    for inputs, targets, weights in batches:
        shape = (len(weights), -1, inputs["input_ids"].shape[1])
        ids, mask, types = (inputs[name].reshape(shape) for name in INPUTS)
        (goals,) = targets.values()
        for i, real in enumerate(mask == 1):
            goal = goals[i][real[0]] if by_token else goals[i]
            found[ids[i][real].tobytes(), types[i][real].tobytes(), goal.tobytes(),
                  float(weights[i])] += 1
    return found


@pytest.mark.parametrize("task", ["classify", "tag", "embed", "mlm"])
@pytest.mark.parametrize("size", [4, 7])
def test_an_epoch_has_the_examples_of_the_texts(task: str, size: int, tmp_path: Path,
                                                small: None) -> None:
    given = settings(task, tmp_path / "data")
    options = options_of(task)(**{"classify": {"class_weights": "balanced"},
                                  "mlm": {"pack": False}}.get(task, {}))
    prepare(PrepareConfig(**given, out=tmp_path / "out"), options)
    config = TrainConfig(task, f"prepared:{tmp_path / 'out'}", backbone="tiny", out=tmp_path / "r")
    settled, found = prepared.read(config, options_of(task)())
    texts = reading.read(TrainConfig(**given), options)
    assert isinstance(texts.examples, InMemory)
    assert settled.max_len == 60
    assert found.rows == texts.rows
    assert (found.parts.hashes, found.parts.test) == (texts.parts.hashes, texts.parts.test)
    assert found.examples.count == texts.examples.count > 400
    assert found.examples.longest == texts.examples.longest
    steps = found.examples.steps(size)
    windows = -(-found.examples.count // (shards.BLOCK * shards.WINDOW))
    assert windows > 3
    assert texts.examples.steps(size) - windows <= steps <= texts.examples.steps(size)

    texts_once = first(texts.examples.batches(Batching(1, 0)), texts.examples.count)
    everything = examples(texts_once, task in ("tag", "mlm"))
    batches = first(found.examples.batches(Batching(size, 1)), 2 * steps)
    for epoch in (batches[:steps], batches[steps:]):
        counted = examples(epoch, task in ("tag", "mlm"))
        assert counted <= everything
        assert counted.total() == steps * size
    assert [b["input_ids"].tolist() for b, *_ in batches[:9]] != [
        b["input_ids"].tolist() for b, *_ in batches[steps:steps + 9]]


@pytest.fixture
def folder(tmp_path: Path, small: None) -> Path:
    prepare(PrepareConfig(**settings("classify", tmp_path / "data"), out=tmp_path / "prepared"))
    return tmp_path / "prepared"


def opened(folder: Path, **changes: Any) -> reading.Material:
    config = TrainConfig(**{"task": "classify", "train": f"prepared:{folder}", "backbone": "tiny",
                            **changes})
    return prepared.read(config, options_of(config.task)())[1]


def test_batches_are_of_like_length_and_begin_anywhere(folder: Path) -> None:
    shards = opened(folder).examples
    whole = first(shards.batches(Batching(4, 3)), 300)
    real = sum(int(inputs["attention_mask"].sum()) for inputs, *_ in whole)
    assert real / sum(inputs["input_ids"].size for inputs, *_ in whole) > 0.85
    for start in (0, 5, shards.steps(4), 160):
        for (inputs, targets, _), (others, goals, _) in zip(
                first(shards.batches(Batching(4, 3), start), 40), whole[start:], strict=False):
            np.testing.assert_array_equal(inputs["input_ids"], others["input_ids"])
            np.testing.assert_array_equal(targets["logits"], goals["logits"])
    lengths = buckets(shards.longest)
    assert {inputs["input_ids"].shape[1] for inputs, *_ in first(
        shards.batches(Batching(4, 3, lengths)), 100)} <= set(lengths)


@pytest.mark.slow
def test_what_was_cut_off_goes_on_to_the_same_weights(folder: Path, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig("classify", f"prepared:{folder}", tmp_path / "whole", backbone="tiny",
                         epochs=2, checkpoint_steps=5, learning_rate=1e-3)
    whole = fit(config)
    assert whole.info["config"]["max_len"] == 60
    assert whole.info["data"]["train"]["rows"] == 541
    assert whole.metrics["test"]["examples"] == whole.info["data"]["test"]["rows"]

    def cut_off(self: callbacks.Progress, batch: int, logs: dict[str, float]) -> None:
        if self.bar.n == 24:
            raise ConnectionError
        look(self, batch, logs)

    look = callbacks.Progress.on_train_batch_end
    monkeypatch.setattr(callbacks.Progress, "on_train_batch_end", cut_off)
    parted = replace(config, out=tmp_path / "parted")
    with pytest.raises(ConnectionError):
        fit(parted)
    monkeypatch.setattr(callbacks.Progress, "on_train_batch_end", look)
    texts = TrainConfig(**settings("classify", tmp_path / "data"), out=tmp_path / "parted",
                        epochs=2, checkpoint_steps=5, learning_rate=1e-3)
    with pytest.raises(UserError, match="--train prepared; given is None"):
        fit(texts, resume=True)
    for a, b in zip(whole.model.get_weights(), fit(parted, resume=True).model.get_weights(),
                    strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("changes", "message"), [
    ({"task": "tag"}, "--task is tag, and .* was prepared for classify"),
    ({"max_len": 64}, "--max-len is 64, and .* was prepared with 60"),
    ({"cased": True}, "--cased is True, and .* was prepared with None"),
    ({"test": "csv:test.csv"}, "--test is csv:test.csv, and .* has its own test rows"),
    ({"backbone": "minilm"}, "was prepared with the tokenizer of tiny, and that of --backbone "
                             "minilm is another. Give --backbone tiny"),
    ({"train": "prepared:nowhere"}, "is not what `prepare` wrote: no such folder")])
def test_what_does_not_fit_the_folder_is_named(changes: dict[str, Any], message: str,
                                               folder: Path) -> None:
    with pytest.raises(UserError, match=message):
        opened(folder, **changes)


def test_texts_are_wanted_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--task", "classify", "--train", "prepared:x", "--data-report"]) == 2
    assert "holds token ids, which `train --train` alone reads" in capsys.readouterr().err
    assert cli.main(["prepare", "--task", "classify", "--train", "csv:x.csv"]) == 2
    assert "--out is missing. Name the folder to write" in capsys.readouterr().err


def test_other_options_are_refused(folder: Path) -> None:
    config = TrainConfig("classify", f"prepared:{folder}", backbone="tiny")
    with pytest.raises(UserError, match="--class-weights is balanced, and the data were prepared "
                                        "with none"):
        prepared.read(config, options_of("classify")(class_weights="balanced"))


@pytest.mark.parametrize(("damage", "message"), [
    (lambda path: path.unlink(), "is missing. Copy the whole folder again"),
    (lambda path: path.write_bytes(path.read_bytes()[:-9]), "it is cut short or was changed"),
    (lambda path: path.write_bytes(path.read_bytes()[:-9] + b"123456789"), "changed or damaged")])
def test_damaged_files_are_named(damage: Callable[[Path], None], message: str,
                                 folder: Path) -> None:
    damage(folder / "examples-00001.tfrecord")
    with pytest.raises(UserError, match=f"examples-00001.tfrecord.*{message}"):
        opened(folder)


def test_a_damaged_or_foreign_index_is_named(folder: Path) -> None:
    index = json.loads((folder / "prepared.json").read_text())
    (folder / "prepared.json").write_text(json.dumps({**index, "schema": 9}))
    with pytest.raises(UserError, match="has schema 9, and this version of the kit reads 1"):
        opened(folder)
    (folder / "prepared.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        opened(folder)


def test_nothing_is_overwritten_or_left_half_written(folder: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings("classify", tmp_path / "data")
    with pytest.raises(UserError, match="exists and is not overwritten"):
        prepare(PrepareConfig(**given, out=folder))
    with pytest.raises(UserError, match="which is prepared. Give texts"):
        PrepareConfig("classify", f"prepared:{folder}", tmp_path / "again")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards.Writer, "close", full)
    with pytest.raises(UserError, match="the disk is full"):
        prepare(PrepareConfig(**given, out=tmp_path / "full"))
    assert {path.name for path in tmp_path.iterdir()} == {"data", "prepared"}


def test_the_command_line(tmp_path: Path) -> None:
    given = settings("classify", tmp_path)
    done = command("tf_pipeline", "prepare", "--task", "classify", "--train", given["train"],
                   "--backbone", "tiny", "--max-len", "60", "--class-weights", "balanced", "--out",
                   tmp_path / "prepared")
    assert done.returncode == 0, done.stderr
    assert "541 examples" in done.stdout
    trained = command("tf_pipeline", "train", "--task", "classify", "--train",
                      f"prepared:{tmp_path / 'prepared'}", "--backbone", "tiny", "--epochs", "1",
                      "--out", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["options"]["class_weights"] == (
        "balanced")
