"""Is an artifact still what was published? Hashes of all files, then golden rows on each graph."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from tf_pipeline.artifact import Graph, Manifest
from tf_pipeline.errors import ParityError
from tf_pipeline.predictor import Predictor

from . import companions, parity


def verify(folder: Path | str) -> list[dict[str, Any]]:
    """Check every file and graph; returns a row a graph.

    UserError names a file whose bytes changed; ParityError a graph that answers otherwise here.
    """
    folder = Path(folder)
    manifest = Manifest.load(folder)
    manifest.check_files(folder)
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for graph in manifest.graphs:
        predictor = Predictor(folder, graph.runtime, graph.variant, graph.length)
        if not rows:
            _check_ids(folder, predictor)
        verdict = _check(folder, graph, predictor)
        rows.append({"file": graph.path, **verdict.to_dict()})
        if not verdict.ok:
            failed.append(f"{graph.path}: {'; '.join(verdict.reasons)}; "
                          f"{parity.worst_line(verdict)}")
    if failed and not manifest.drift:
        raise ParityError(f"{' | '.join(failed)}. The files are as published, so the runtime here "
                          "answers otherwise: compare the versions in manifest.json.")
    return rows


def _check(folder: Path, graph: Graph, predictor: Predictor) -> parity.Verdict:
    records, expected = companions.read_golden(folder, graph.length)
    actual = predictor.outputs(predictor.encode(records))
    # Values of int8 files depend on the CPU's kernels, so they are held to the same bounds as at
    # export; the metric is not measured again on so few rows.
    tolerance = parity.tolerance_of(predictor.task, graph.variant)
    if tolerance.agreement < 1:  # of a few golden rows one is a large share
        tolerance = dataclasses.replace(tolerance, spare=2)
    return parity.compare(predictor.task, records, expected, actual, tolerance, scored=False)


def _check_ids(folder: Path, predictor: Predictor) -> None:
    """Refuse a tokenizers release that reads the same tokenizer.json in another way."""
    records, _ = companions.read_golden(folder, None)
    encoded = predictor.task.encode(records, predictor.encoder)
    ids = encoded.padded(range(len(encoded)), int(encoded.lengths.max()))["input_ids"]
    with np.load(folder / "golden.npz", allow_pickle=False) as golden:
        if not np.array_equal(ids, golden["input_ids"]):
            raise ParityError(f"{folder}/tokenizer.json gives other ids here than when it was "
                              f"published, on {len(records)} golden rows: compare the version of "
                              "tokenizers with manifest.json.")
