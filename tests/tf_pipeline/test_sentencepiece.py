"""A second kind of checkpoint: SentencePiece's pieces, pad id 1, <s> and </s>, no pooler."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from starlette.testclient import TestClient
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from serving.options import Limits
from serving.server import create_app
from tests.conftest import command, write_conll, write_csv
from tf_pipeline import Predictor, checkpoints
from tf_pipeline.artifact import Manifest
from tf_pipeline.backbone import BertConfig, build, get_weights
from tf_pipeline.config import TrainConfig
from tf_pipeline.errors import UserError
from tf_pipeline.text import TextEncoder
from tf_pipeline.training import fit

GOOD = ("服务很好", "房间干净", "lovely room", "味道不错！")
BAD = ("太差了", "很吵", "awful food", "不推荐。")
FRAMES = ("我觉得{}", "{}，真的", "I think: {}", "昨天去的，{}")


def reviews(count: int) -> list[dict[str, str]]:
    """Make labelled sentences in two scripts."""
    choose = random.Random(0)
    return [{"text": choose.choice(FRAMES).format(choose.choice(GOOD if i % 2 else BAD)) + str(i),
             "label": "good" if i % 2 else "bad"} for i in range(count)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder as multilingual E5 is: Unigram, Metaspace, a BERT of another pad id."""
    folder = tmp_path_factory.mktemp("checkpoint")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator([row["text"] for row in reviews(200)], trainers.UnigramTrainer(
        vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = BertConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2,
                        num_attention_heads=2, intermediate_size=64, pad_token_id=1)
    (folder / "config.json").write_text(config.to_json())
    weights = {name: np.ascontiguousarray(array, np.float16)  # as the real one is stored
               for name, array in get_weights(build(config)).items()
               if not name.startswith("pooler.")}
    save_file(weights, str(folder / "model.safetensors"))
    return folder


@pytest.fixture(scope="module")
def run(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    data = write_csv(folder / "reviews.csv", reviews(600))
    done = command("tf_pipeline", "train", "--task", "classify", "--train", f"csv:{data}",
                   "--backbone", checkpoint, "--pooling", "mean", "--max-len", "48", "--epochs",
                   "4", "--batch-size", "16", "--learning-rate", "5e-3", "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    assert "has no pooler" in done.stderr
    assert "--pooling can read the mean of all tokens instead" in done.stderr
    return folder / "run"


def test_words_of_a_text_are_those_that_training_gives_apart(checkpoint: Path) -> None:
    encoder = TextEncoder.load(checkpoint / "tokenizer.json", 64, 1)
    apart = ["我", "觉", "得", "lovely", "room", "！"]
    lists, texts = encoder.encode_words([apart]), encoder.encode_words(["我觉得 lovely room！"])
    assert lists.ids.tolist() == texts.ids.tolist()
    assert lists.words is not None
    assert texts.words is not None
    assert lists.words.first.tolist() == texts.words.first.tolist()
    assert texts.words.offsets.tolist() == [[0, 1], [1, 2], [2, 3], [4, 10], [11, 15], [15, 16]]
    # What opens a word and says nothing else is not where its tag is read.
    assert encoder.number("▁") in texts.ids
    assert encoder.number("▁") not in texts.ids[texts.words.first]


def test_names_in_chinese_are_found_in_a_plain_text(checkpoint: Path, tmp_path: Path) -> None:
    choose, sentences = random.Random(0), []
    for number in range(500):
        place, frame = choose.choice(("北京", "上海", "Bonn")), choose.choice(FRAMES)
        chars = [*frame.partition("{}")[0]]
        name = [place] if place.isascii() else [*place]
        rest = [*frame.partition("{}")[2], *choose.choice(("很好", "太差")), str(number)]
        chars, rest = ([c for c in part if c.strip()] for part in (chars, rest))
        sentences.append(([*chars, *name, *rest],
                          ["O"] * len(chars) + ["B-LOC", "I-LOC"][:len(name)] + ["O"] * len(rest)))
    data = write_conll(tmp_path / "train.txt", sentences)
    run = fit(TrainConfig(task="tag", train=f"conll:{data}", out=tmp_path / "run", epochs=6,
                          backbone=str(checkpoint), max_len=48, batch_size=16,
                          learning_rate=5e-3, patience=6))
    assert run.metrics["test"]["span_f1"] > 0.9
    text = "我觉得上海很好"
    (answer,) = Predictor(tmp_path / "run")([text])
    assert [(s["label"], s["start"], s["end"], s["text"]) for s in answer["spans"]] == [
        ("LOC", 3, 5, "上海")]


def test_padding_is_the_checkpoints_own(run: Path) -> None:
    predictor = Predictor(run)
    encoded = predictor.encode([{"text": "很吵"}, {"text": "我觉得服务很好"}])
    arrays = encoded.padded([0, 1], int(encoded.lengths.max()) + 2)
    assert arrays["input_ids"][0, 0] == 0
    assert (arrays["input_ids"][arrays["attention_mask"] == 0] == 1).all()
    assert [a["label"] for a in predictor(["房间干净", "太差了"])] == ["good", "bad"]


def test_what_needs_wordpiece_is_refused_at_once(run: Path, tmp_path: Path) -> None:
    done = command("export", "convert", run, "--out", tmp_path / "artifact")
    assert done.returncode == 2
    assert "no WordPiece" in done.stderr
    assert "--signatures tokens" in done.stderr
    assert "Writing" not in done.stderr
    assert not (tmp_path / "artifact").exists()


def test_every_format_is_exported_and_served(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    done = command("export", "convert", run, "--out", out, "--signatures", "tokens")
    assert done.returncode == 0, done.stderr
    graphs = Manifest.load(out).graphs
    assert len(graphs) == 5
    assert all(g.parity["ok"] for g in graphs)
    assert not (out / "vocab.txt").exists()
    assert json.loads((out / "config.json").read_text())["pad_token_id"] == 1
    verified = command("export", "verify", out)
    assert verified.returncode == 0, verified.stderr
    client = TestClient(create_app(Predictor(out, "onnx"), Limits()))
    texts = ["房间干净", "awful food", "我觉得味道不错！"]
    answers = client.post("/v1/models/artifact:answer", json={"texts": texts}).json()["answers"]
    assert [a["label"] for a in answers] == [a["label"] for a in Predictor(run)(texts)]


def test_a_new_backbone_on_its_vocabulary_pads_with_its_pad(checkpoint: Path,
                                                            tmp_path: Path) -> None:
    file = checkpoint / "tokenizer.json"
    found = checkpoints.load(f"new:vocab={file}&layers=1&hidden=8&heads=2")
    assert (found.encoder.pad_id, found.config.pad_token_id) == (1, 1)
    spec = json.loads(file.read_text("utf-8"))
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] != "<pad>"]
    without = tmp_path / "tokenizer.json"
    without.write_text(json.dumps(spec), "utf-8")
    with pytest.raises(UserError, match=r"no \[PAD\] or <pad> among its special tokens \(<s>, "):
        checkpoints.load(f"new:vocab={without}")
