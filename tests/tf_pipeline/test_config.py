"""Settings to flags and back, and what each refuses."""

import argparse
import dataclasses
from pathlib import Path

import pytest

from export.options import ConvertOptions
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


@pytest.mark.parametrize(("change", "words"), [
    ({"max_len": 2}, ["--max-len", "2", ">= 3"]),
    ({"epochs": -1}, ["--epochs", "-1", ">= 0"]),
    ({"batch_size": 0}, ["--batch-size", "0"]),
    ({"learning_rate": 0.0}, ["--learning-rate", "0.0", "above 0"]),
    ({"learning_rate": float("nan")}, ["--learning-rate", "nan"]),
    ({"warmup": 1.5}, ["--warmup", "1.5", "0 to 1"]),
    ({"clip_norm": 0.0}, ["--clip-norm", "0.0"]),
    ({"weight_decay": -1.0}, ["--weight-decay", "-1.0"]),
    ({"seed": -1}, ["--seed", "-1"]),
])
def test_impossible_values_are_named_with_what_is_allowed(change: dict[str, float],
                                                          words: list[str]) -> None:
    base = TrainConfig(task="classify", train="a")
    with pytest.raises(UserError) as error:
        dataclasses.replace(base, **change)
    assert all(word in str(error.value) for word in words)


def test_out_may_be_a_string() -> None:
    assert TrainConfig(task="classify", train="a", out="runs/a").out == Path("runs/a")
