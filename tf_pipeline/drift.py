"""How far the texts of today are from those that a model was tested on.

Each text has a length, a share of pieces that the vocabulary lacks and, with most tasks, a
confidence. Two sets of texts are compared by the population stability index of each: under .1 is
usual, above .25 a large shift (Siddiqi, Credit Risk Scorecards, 2006). No text is kept. numpy only.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .task import Confident, Task
from .text import Arrays, Encoded, TextEncoder

USUAL, LARGE = 0.1, 0.25


def measure(task: Task, encoder: TextEncoder, encoded: Encoded,
            outputs: Arrays) -> dict[str, np.ndarray]:
    """Give what is compared, by name: `tokens`, `unknown`, `confidence`, each (texts,)."""
    lengths = encoded.lengths
    unknown = np.add.reduceat(encoded.ids == encoder.unknown_id, encoded.splits[:-1],
                              dtype=np.int64)
    found = {"tokens": lengths, "unknown": unknown / lengths}
    if isinstance(task, Confident):
        found["confidence"] = task.confidence(outputs)
    return found


@dataclass(frozen=True)
class Histogram:
    """How many values were up to each edge and above the one before; last, above all edges."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> "Histogram":
        """Cut at the values' tenths, as far as they differ."""
        tenths = np.quantile(values, np.arange(1, 10) / 10, method="inverted_cdf")
        edges = np.unique(tenths.astype(float))
        counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
        return cls(tuple(edges.tolist()), tuple(counts.tolist()))

    def places(self, values: np.ndarray) -> np.ndarray:
        """Say which of the counts each value belongs to."""
        return np.searchsorted(self.edges, values)

    def cut(self, most: float) -> "Histogram":
        """Give the histogram of the same values with larger ones lowered to `most`."""
        kept = sum(edge < most for edge in self.edges)
        return Histogram(self.edges[:kept], (*self.counts[:kept], sum(self.counts[kept:])))

    def shift(self, counts: np.ndarray) -> float:
        """Give the population stability index of other values, counted at the same edges."""
        # Half a text more in each: an empty place would make the index infinite.
        tested, now = ((c + 0.5) / (c.sum() + 0.5 * len(c))
                       for c in (np.array(self.counts, float), counts))
        return float(((now - tested) * np.log(now / tested)).sum())


def reference(measures: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Give what an artifact keeps of the texts that its model was tested on."""
    return {name: asdict(Histogram.of(values)) for name, values in measures.items()}


def read_reference(content: Mapping[str, Any], most_tokens: int) -> dict[str, Histogram]:
    """Read what `reference` gave, for a file that cuts texts at so many tokens."""
    found = {name: Histogram(tuple(kept["edges"]), tuple(kept["counts"]))
             for name, kept in content.items()}
    return {name: histogram.cut(most_tokens) if name == "tokens" else histogram
            for name, histogram in found.items()}
