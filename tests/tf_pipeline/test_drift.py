"""Drift: texts of today beside those of the test."""

import json
import math

import numpy as np
import pytest

from tf_pipeline import drift
from tf_pipeline.drift import Histogram
from tf_pipeline.predictor import Predictor
from tf_pipeline.run import Run
from tf_pipeline.text import TextEncoder


def test_the_index_is_the_formulas_own():
    histogram = Histogram((1.0,), (60, 40))
    # With half a text more in each place: 60.5/101 and 40.5/101 beside 20.5/101 and 80.5/101.
    by_hand = sum((b - a) / 101 * math.log(b / a) for a, b in ((60.5, 20.5), (40.5, 80.5)))
    assert histogram.shift(np.array([20, 80])) == pytest.approx(by_hand)
    assert histogram.shift(np.array([60, 40])) == 0


def test_other_texts_of_the_same_kind_are_usual_and_longer_ones_are_not():
    choose = np.random.default_rng(0)
    histogram = Histogram.of(choose.poisson(20, 2_000))
    assert sum(histogram.counts) == 2_000

    def shift(values):
        return histogram.shift(np.bincount(histogram.places(values),
                                           minlength=len(histogram.counts)))

    assert shift(choose.poisson(20, 1_000)) < drift.USUAL
    assert shift(choose.poisson(28, 1_000)) > drift.LARGE


def test_values_that_are_all_equal_have_one_edge_and_any_other_is_seen():
    histogram = Histogram.of(np.zeros(500))
    assert histogram.edges == (0.0,)
    assert histogram.counts == (500, 0)
    assert histogram.shift(np.array([850, 150])) > drift.LARGE


def test_a_file_that_cuts_texts_is_compared_with_texts_that_were_cut():
    values = np.arange(1, 101)
    kept = json.loads(json.dumps(drift.reference({"tokens": values})))
    histogram = drift.read_reference(kept, 35)["tokens"]
    places = histogram.places(np.minimum(values, 35))
    assert histogram.counts == tuple(np.bincount(places, minlength=len(histogram.counts)))
    assert histogram.edges == (10.0, 20.0, 30.0)


def test_pieces_that_the_vocabulary_lacks_are_counted(artifact):
    predictor = Predictor(artifact, "onnx")
    records = [{"text": "a plain text"}, {"text": "一 \N{SNOWMAN WITHOUT SNOW}"}, {"text": ""}]
    encoded = predictor.encode(records)
    pieces = [predictor.encoder.piece(i) for i in encoded.ids]
    assert "[UNK]" in pieces
    found = drift.measure(predictor.task, predictor.encoder, encoded, predictor.outputs(encoded))
    assert found["tokens"].tolist() == encoded.lengths.tolist()
    by_hand = [pieces[a:b].count("[UNK]") / (b - a)
               for a, b in zip(encoded.splits, encoded.splits[1:], strict=False)]
    assert found["unknown"].tolist() == by_hand
    assert found["unknown"][0] == 0 < found["unknown"][1]
    assert found["confidence"].shape == (3,)


def test_sentencepiece_and_tokenizers_without_an_unknown_piece():
    def encoder(model):
        return TextEncoder(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))

    unigram = {"type": "Unigram", "unk_id": 1, "vocab": [["a", -1.0], ["<unk>", -2.0]]}
    assert encoder(unigram).unknown_id == 1
    assert encoder({**unigram, "unk_id": None}).unknown_id == -1
    assert encoder({"type": "BPE", "vocab": {"a": 0}, "merges": []}).unknown_id == -1


def test_an_artifact_keeps_the_lengths_of_its_tests_texts(artifact, run_folder):
    kept = Predictor(artifact, "onnx").manifest.reference
    assert sorted(kept) == ["confidence", "tokens", "unknown"]
    rows = Run.load(run_folder).evaluation("test")
    for histogram in kept.values():
        assert sum(histogram["counts"]) == len(rows)
