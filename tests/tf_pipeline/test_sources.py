"""Specs, the contract of every reader, folders, and the readers of published data sets."""

import logging
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tf_pipeline import datasets, plugins, sources
from tf_pipeline.errors import UserError


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(spec: str) -> str:
    """Read all of a spec that must be refused; give the message, which is one line."""
    with pytest.raises(UserError) as caught:
        list(sources.read(spec))
    message = str(caught.value)
    assert "\n" not in message
    return message


def has(message: str, *parts: str) -> None:
    for part in parts:
        assert part in message, f"{part!r} is not in: {message}"


# Contract of every reader, also of those not written yet


@pytest.mark.parametrize("name", plugins.names(datasets))
def test_each_reader_declares_schemes_and_options(name):
    reader = plugins.load(datasets, name)
    assert reader.SCHEMES
    assert all(not set(preset) & set(reader.OPTIONS) for preset in reader.SCHEMES.values())
    assert all(phrase for phrase in reader.OPTIONS.values())
    assert callable(reader.read)
    assert reader.__doc__
    for scheme in reader.SCHEMES:
        assert sources.schemes()[scheme] is reader


def test_no_scheme_is_declared_twice():
    declared = [s for n in plugins.names(datasets) for s in plugins.load(datasets, n).SCHEMES]
    assert sorted(declared) == sorted(sources.schemes())


def test_a_new_file_is_found_by_itself(tmp_path, monkeypatch):
    write(tmp_path / "shout.py", 'SCHEMES = {"shout": {}}\nOPTIONS = {"times": "how often"}\n'
          "def read(location, options):\n"
          '    yield {"text": location.upper() * int(options["times"])}\n')
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path)])
    assert list(sources.read("shout:hey?times=2")) == [{"text": "HEYHEY"}]
    assert sources.split_specs("shout:hey?times=2") == {"train": "shout:hey?times=2"}
    sys.modules.pop("tf_pipeline.datasets.shout")
    delattr(datasets, "shout")


def test_importing_and_listing_readers_is_light():
    code = ("import sys; from tf_pipeline import sources; sources.schemes(); "
            "print(*{'tensorflow', 'tensorflow_datasets', 'numpy', 'requests'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# The grammar of specs


def test_unknown_scheme_lists_the_choices():
    has(refusal("cvs:reviews.csv"), "'cvs'", "conll, csv, jsonl, lines, tfds, tsv, vader",
        "csv:reviews.csv")


def test_unknown_option_lists_the_allowed_ones():
    has(refusal("csv:a.csv?txt=review"), "'txt'", "text, text_b, negative, label, labels")
    has(refusal("lines:a.txt?text=review"), "'text'", "none")
    # The option that a scheme itself sets is not for the user.
    has(refusal("csv:a.csv?format=tsv"), "'format'")


@pytest.mark.parametrize(("spec", "part"), [
    ("csv:a.csv?text", "'text' has no value"), ("csv:a.csv?text=a&text=b", "'text' is given twice"),
    ("csv:", "names no location"), ("", "names no scheme")])
def test_malformed_specs(spec, part):
    has(refusal(spec), part, repr(spec))


def test_bare_paths_are_read_by_extension(tmp_path):
    write(tmp_path / "a.csv", "text\nx\n")
    write(tmp_path / "b" / "train.TSV", "text\ny\n")
    assert list(sources.read(f"{tmp_path}/a.csv")) == [{"text": "x"}]
    assert sources.split_specs(f"{tmp_path}/a.csv") == {"train": f"csv:{tmp_path}/a.csv"}
    assert list(sources.read(f"{tmp_path}/b?text=text")) == [{"text": "y"}]
    write(tmp_path / "notes.txt", "x")
    has(refusal(f"{tmp_path}/notes.txt"), "notes.txt", "conll, csv, jsonl, lines")
    write(tmp_path / "b" / "train.csv", "text\ny\n")
    has(refusal(f"{tmp_path}/b"), "fits csv and tsv", "conll, csv, jsonl")


def test_option_values_can_hold_any_character(tmp_path):
    write(tmp_path / "train.csv", "a&b=50%?\nx\n")
    specs = sources.split_specs(f"csv:{tmp_path}?text=a%26b=50%?")
    assert list(sources.read(specs["train"])) == [{"text": "x"}]


# Folders


def test_a_folder_gives_a_spec_for_each_split_file(tmp_path):
    for name in ("train", "dev", "test"):
        write(tmp_path / f"{name}.csv", f"sentence,label\n{name} text,x\n")
    write(tmp_path / "README.md", "not data")
    specs = sources.split_specs(f"csv:{tmp_path}?text=sentence")
    assert list(specs) == ["train", "validation", "test"]
    assert specs["validation"] == f"csv:{tmp_path}/dev.csv?text=sentence"
    assert [next(sources.read(specs[s]))["text"] for s in specs] == [
        "train text", "dev text", "test text"]
    assert list(sources.read(f"csv:{tmp_path}?text=sentence"))[0]["text"] == "train text"


def test_folder_without_train_file_or_with_two_choices(tmp_path):
    write(tmp_path / "dev.csv", "text\nx\n")
    has(refusal(f"csv:{tmp_path}"), "no train file", "dev.csv", "train.csv")
    write(tmp_path / "train.csv", "text\nx\n")
    write(tmp_path / "valid.csv", "text\nx\n")
    has(refusal(f"csv:{tmp_path}"), "two validation files", "dev.csv and valid.csv")


# VADER


def test_vader_tweets_have_both_labels_and_no_zero():
    records = list(sources.read("vader:tweets"))
    counts = Counter(r["label"] for r in records)
    assert counts == {"positive": 2897, "negative": 1299}  # 4,200 less 4 with a mean of 0
    assert all(r["text"] and (r["score"] > 0) == (r["label"] == "positive") for r in records)
    assert not re.search(r"[\t\r\n]", "".join(r["text"] for r in records))


def test_vader_films_warn_of_sst2(caplog):
    with caplog.at_level(logging.WARNING):
        assert len(list(sources.read("vader:films"))) == 10_568
    has(caplog.text, "84 % of SST-2's dev", "Rotten Tomatoes")
    caplog.clear()
    assert len(list(sources.read("vader:products"))) == 3_610
    assert len(list(sources.read("vader:editorials"))) == 4_946
    assert not caplog.text


def test_unknown_vader_set():
    has(refusal("vader:tweet"), "'tweet'", "tweets, products, editorials, films")


# TensorFlow Datasets


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Prepare a small data set in a folder; its class registers itself as mini_reviews."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    features = tfds.features

    class MiniReviews(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features.FeaturesDict({
                "sentence": features.Text(), "label": features.ClassLabel(names=["bad", "good"]),
                "stars": np.int32, "ner": features.Sequence(features.ClassLabel(names=["O", "P"])),
                "words": features.Sequence(features.Text())}))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(12, 0), "test": self._generate_examples(4, -1),
                    "validation": self._generate_examples(4, 0)}

        def _generate_examples(self, count, hidden):
            for i in range(count):
                text = "" if i == 7 else f"caf\u00e9 {i}"
                yield i, {"sentence": text, "label": hidden or i % 2, "stars": i,
                          "words": ["Eva", "ran"], "ner": ["P", "O"]}

    class Unreachable(MiniReviews):
        def _split_generators(self, dl_manager):
            raise ConnectionError("No route to example.org\nwith a long story behind it")

    class Handmade(MiniReviews):
        def _split_generators(self, dl_manager):
            raise AssertionError("Put the archive into the manual folder")

    MiniReviews(data_dir=folder).download_and_prepare()
    return folder


def test_tfds_names_labels_and_decodes(prepared, caplog):
    records = list(sources.read(f"tfds:mini_reviews?text=sentence&data_dir={prepared}"))
    assert {r["label"] for r in records} == {"bad", "good"}
    assert {r["text"] for r in records} == {f"caf\u00e9 {i}" for i in range(12) if i != 7}
    has(caplog.text, "1 examples with an empty text were left out")
    spec = f"tfds:mini_reviews?data_dir={prepared}&tokens=words&tags=ner&label=stars&split=test"
    records = list(sources.read(spec))
    assert all(r["tokens"] == ["Eva", "ran"] and r["tags"] == ["P", "O"] for r in records)
    assert sorted(r["label"] for r in records) == ["0", "1", "2", "3"]


def test_tfds_splits_and_hidden_labels(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    specs = sources.split_specs("tfds:mini_reviews?text=sentence")
    assert specs == {s: f"tfds:mini_reviews?text=sentence&split={s}" for s in sources.SPLITS}
    assert all(set(r) == {"text"} for r in sources.read(specs["test"]))
    one = "tfds:mini_reviews?split=train[:50%25]&text=sentence"
    assert sources.split_specs(one) == {"train": one}
    assert len(list(sources.read(one))) in (5, 6)


def test_tfds_refusals(prepared):
    base = f"tfds:mini_reviews?data_dir={prepared}"
    has(refusal(base), "no feature 'text'", "sentence", "stars", "text=FEATURE")
    has(refusal(f"{base}&text=sentense"), "'sentense' for text", "sentence")
    has(refusal(f"{base}&text=sentence&split=dev"), "'dev'", "train", "validation")
    has(refusal(f"tfds:mini_review?data_dir={prepared}"), "'mini_review'", str(prepared))
    has(refusal(f"tfds:mini_reviews/large?data_dir={prepared}&text=sentence"), "mini_reviews/large")


@pytest.mark.parametrize(("name", "part"), [("unreachable", "No route to example.org with a"),
                                            ("handmade", "into the manual folder.")])
def test_tfds_without_network_is_one_line(prepared, name, part):
    has(refusal(f"tfds:{name}?data_dir={prepared}"), part, "network", "TFDS_DATA_DIR")
