"""Settings to flags and back, and what each refuses."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from export import cli as export_cli
from export.options import ConvertOptions
from serving import cli as serving_cli
from tf_pipeline import cli as tf_pipeline_cli
from tf_pipeline.config import TrainConfig, add_flags, from_flags, to_flags
from tf_pipeline.errors import UserError


def parse(settings: type, words: list[str]) -> object:
    parser = argparse.ArgumentParser()
    add_flags(parser, settings)
    return from_flags(settings, parser.parse_args(words))


@pytest.mark.parametrize("settings", [
    TrainConfig(task="classify", train="a.csv"),
    TrainConfig(task="tag", train="-odd name", out=Path("runs/a b"), cased=True, max_len=64,
                warmup=0.0, precision="mixed_bfloat16", seed=3),
    TrainConfig(task="tag", train="a", cased=False),
    ConvertOptions(),
    ConvertOptions(formats=("onnx",), lengths=(32, 64), golden_text=False, drop_failed=True,
                   out=Path("artifacts/a")),
])
def test_flags_give_the_settings_back(settings: TrainConfig | ConvertOptions) -> None:
    assert parse(type(settings), to_flags(settings)) == settings


def test_an_option_of_three_values_has_both_flags() -> None:
    base = ["--task", "classify", "--train", "a"]
    assert parse(TrainConfig, base).cased is None  # type: ignore[attr-defined]
    assert parse(TrainConfig, [*base, "--cased"]).cased is True  # type: ignore[attr-defined]
    assert parse(TrainConfig, [*base, "--uncased"]).cased is False  # type: ignore[attr-defined]


def test_a_missing_required_flag_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(TrainConfig, ["--train", "a"])
    assert exit_.value.code == 2
    assert "--task" in capsys.readouterr().err


@pytest.mark.parametrize(("main", "words", "message"), [
    (tf_pipeline_cli.main, ["train", "--tsk", "classify"], "--task, --train"),
    (tf_pipeline_cli.main, ["train", "--task", "embed", "--train", "a", "--score-range", "0-5"],
     "--score-range: '0-5' is not what it takes: numbers with a comma between, e.g. 0,5"),
    (tf_pipeline_cli.main, ["train", "--task", "tag", "--train", "a", "--epochs", "two"], "'two'"),
    (tf_pipeline_cli.main, ["learn"], "'learn'"),
    (export_cli.main, ["convert"], "run"),
    (export_cli.main, ["convert", "a", "--lengths", "x"], "--lengths: 'x' is not what it takes"),
    (serving_cli.main, ["a", "--port", "x"], "--port")])
def test_wrong_flags_are_answered_in_one_line(main: Callable[[list[str]], int], words: list[str],
                                              message: str,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert "--help` lists all flags." in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("change", "words"), [
    ({"max_len": 2}, ["--max-len", "2", ">= 3"]),
    ({"epochs": -1}, ["--epochs", "-1", ">= 0"]),
    ({"batch_size": 0}, ["--batch-size", "0"]),
    ({"learning_rate": 0.0}, ["--learning-rate", "0.0", "above 0"]),
    ({"learning_rate": float("nan")}, ["--learning-rate", "nan"]),
    ({"warmup": 1.5}, ["--warmup", "1.5", "0 to 1"]),
    ({"word_dropout": 1.0}, ["--word-dropout", "1.0", "0 to below 1"]),
    ({"clip_norm": 0.0}, ["--clip-norm", "0.0"]),
    ({"weight_decay": -1.0}, ["--weight-decay", "-1.0"]),
    ({"seed": -1}, ["--seed", "-1"]),
    ({"seed": 2 ** 31}, ["--seed", "2147483648", "below"]),
    ({"checkpoint_steps": -1}, ["--checkpoint-steps", "-1"]),
    ({"mini_batch_size": 33}, ["--mini-batch-size", "33", "up to the --batch-size, 32"]),
    ({"devices": -1}, ["--devices", "-1"]),
])
def test_impossible_values_are_named_with_what_is_allowed(change: dict[str, float],
                                                          words: list[str]) -> None:
    base = TrainConfig(task="classify", train="a")
    with pytest.raises(UserError) as error:
        dataclasses.replace(base, **change)
    assert all(word in str(error.value) for word in words)


def test_out_may_be_a_string() -> None:
    assert TrainConfig(task="classify", train="a", out="runs/a").out == Path("runs/a")
