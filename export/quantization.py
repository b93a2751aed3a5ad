"""Which int8 ONNX file to publish: recipes tried on real texts that no test row is among."""

import itertools
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tf_pipeline import run
from tf_pipeline.quiet import quiet_logger
from tf_pipeline.runner import run_all
from tf_pipeline.runtimes import onnx as runtime
from tf_pipeline.text import Arrays, Shapes, batches

from . import outliers, parity
from .twin import Twin

TEXTS = 256  # that each recipe is tried on; of half of them the outliers are measured

_ALONE = Shapes(1, few=False)


@dataclass(frozen=True)
class Recipe:
    """One way to store weights in 8 bits, a scale for each column; activations are scaled as met.

    int7: signed and of half the range. CPUs multiply unsigned activations by signed weights fastest
    (1.5 times, benchmarks/artifacts.md), and those without VNNI overflow in it where weights use
    the whole range: answers measured on one machine would change on another. uint8: the whole range
    and no overflow anywhere, but slower.
    """

    weights: Literal["int7", "uint8"]
    outliers: float  # channels above this many times the median go into the weights

    def write(self, model: Any, largest: Arrays, target: Path) -> None:
        """Quantize an `onnx.ModelProto`; `largest` is what `outliers.largest_values` found."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        signed = self.weights == "int7"
        with quiet_logger("root"):
            quantize_dynamic(outliers.move_to_weights(model, largest, self.outliers), target,
                             weight_type=QuantType.QInt8 if signed else QuantType.QUInt8,
                             reduce_range=signed, per_channel=True)


# How much of the outliers the weights should take depends on the model.
FAST = tuple(Recipe("int7", above) for above in (1.0, 2.0, 4.0))
EXACT = tuple(Recipe("uint8", above) for above in (1.0, 2.0, 4.0))


@dataclass(frozen=True)
class Candidate:
    """What a recipe's file gave; the manifest lists it."""

    weights: str
    outliers: float
    bytes: int
    agreement: float  # share of decisions as the twin's
    error: float  # mean difference of the output's values
    metric: float
    milliseconds: float  # a text, on the mean
    taken: bool = False


def quantize(twin: Twin, model: Any, target: Path) -> tuple[dict[str, Any], ...]:
    """Write the int8 file of an `onnx.ModelProto`; give what each recipe's file gave.

    Taken is the nearest of the fast recipes, unless it loses more of these texts' decisions than
    parity lets an int8 file lose, and the nearest exact one loses fewer.
    """
    trial = _Trial(twin, model)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        tried = trial.run_all(FAST, Path(folder))
        best = min(tried, key=lambda path: tried[path].error)
        if tried[best].agreement < trial.tolerance.agreement:
            exact = trial.run_all(EXACT, Path(folder))
            nearest = min(exact, key=lambda path: exact[path].error)
            tried |= exact
            best = max(best, nearest, key=lambda path: tried[path].agreement)
        best.replace(target)
    return tuple(asdict(replace(candidate, taken=path == best))
                 for path, candidate in tried.items())


class _Trial:
    """The texts, and what the twin answers to them."""

    def __init__(self, twin: Twin, model: Any):
        self.task, self.model = twin.task, model
        self.tolerance = parity.tolerance_of(twin.task, "int8")
        self.records = run.spread(twin.run.evaluation("validation"), TEXTS)
        self.encoded = twin.task.encode(self.records, twin.encoder, twin.run.max_len)
        self.expected = run_all(twin.runner, self.encoded)
        some = itertools.islice(batches(self.encoded, _ALONE), 0, None, 2)
        self.largest = outliers.largest_values(model, (inputs for _, inputs in some))

    def run_all(self, recipes: Iterable[Recipe], folder: Path) -> dict[Path, Candidate]:
        """Try several; gives each one's file."""
        paths = {folder / f"{r.weights}_{r.outliers}.onnx": r for r in recipes}
        return {path: self.run(recipe, path) for path, recipe in paths.items()}

    def run(self, recipe: Recipe, path: Path) -> Candidate:
        """Write a recipe's file and ask it, a text at a time."""
        recipe.write(self.model, self.largest, path)
        runner = runtime.load(path)
        start = time.perf_counter()
        found = run_all(runner, self.encoded, _ALONE)
        seconds = time.perf_counter() - start
        verdict = parity.compare(self.task, self.records, self.expected, found, self.tolerance)
        name = self.task.OUTPUTS["onnx"][-1]
        return Candidate(recipe.weights, recipe.outliers, path.stat().st_size,
                         verdict.agreement or 0.0,
                         float(np.abs(found[name] - self.expected[name]).mean()),
                         verdict.metric_after or 0.0,
                         round(1000 * seconds / len(self.encoded), 3))
