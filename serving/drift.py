"""Whether a model still gets texts like those it was tested on."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tf_pipeline import drift
from tf_pipeline.drift import LARGE, USUAL, Histogram
from tf_pipeline.predictor import Predictor
from tf_pipeline.text import Arrays, Encoded

log = logging.getLogger(__name__)
RECENT = 1_000  # texts that are compared: the last ones
LEAST = 200  # with fewer, chance alone shifts a tenth of them
_EVERY = 50  # texts between two reports: comparing takes longer than counting


class DriftWatch:
    """Compares a version's latest texts with its reference. Many threads may use it."""

    def __init__(self, predictor: Predictor, report: Callable[[str, float], None]):
        assert predictor.manifest is not None
        self._predictor, self._report = predictor, report
        self._reference: Mapping[str, Histogram] = drift.read_reference(
            predictor.manifest.reference, predictor.limit)
        self._recent = {name: np.zeros(RECENT, np.intp) for name in self._reference}
        self._seen = 0
        self._shifted: set[str] = set()
        self._lock = threading.Lock()

    def see(self, encoded: Encoded, outputs: Arrays) -> None:
        """Count texts that were answered."""
        if not self._reference:
            return
        task, encoder = self._predictor.task, self._predictor.encoder
        measures = drift.measure(task, encoder, encoded, outputs)
        with self._lock:
            for name, histogram in self._reference.items():
                places = histogram.places(measures[name])[-RECENT:]
                where = np.arange(self._seen, self._seen + len(places)) % RECENT
                self._recent[name][where] = places
            before, self._seen = self._seen, self._seen + len(places)
            if self._seen >= LEAST and self._seen // _EVERY > before // _EVERY:
                for name in self._reference:
                    self._tell(name, self._shift(name))

    def describe(self) -> dict[str, Any]:
        """Lay the texts of the test and the latest ones side by side, as shares.

        `psi` is null until enough texts came.
        """
        with self._lock:
            compared = min(self._seen, RECENT)
            return {"texts": compared, "measures": {
                name: {"psi": self._shift(name) if compared >= LEAST else None,
                       "up_to": list(histogram.edges),
                       "tested": _shares(np.array(histogram.counts)),
                       "recent": _shares(self._counts(name))}
                for name, histogram in self._reference.items()}}

    def _counts(self, name: str) -> np.ndarray:
        return np.bincount(self._recent[name][:self._seen],
                           minlength=len(self._reference[name].counts))

    def _shift(self, name: str) -> float:
        return round(self._reference[name].shift(self._counts(name)), 4)

    def _tell(self, name: str, shift: float) -> None:
        """Pass a shift on, and log it when it becomes large."""
        self._report(name, shift)
        if shift > LARGE and name not in self._shifted:
            self._shifted.add(name)
            log.warning("%s: the last %d texts are unlike those of its test in %s (population "
                        "stability index %.2f; above %.2f is a large shift). GET /v1/models/NAME/"
                        "drift compares them.", self._predictor.name,
                        min(self._seen, RECENT), name, shift, LARGE)
        elif shift < USUAL:
            self._shifted.discard(name)


def _shares(counts: np.ndarray) -> list[float]:
    return (counts / max(counts.sum(), 1)).round(4).tolist()
