"""The artifact folder's manifest: the only contract between export and serving.

manifest.json is written last, so its presence means complete. Standard library only.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from . import files
from .errors import UserError

SCHEMA = 1
RuntimeName = Literal["onnx", "tflite", "saved_model", "safetensors", "keras"]
# What answers when nothing is asked for: ONNX takes any batch and any length.
RUNTIMES: tuple[RuntimeName, ...] = ("onnx", "tflite", "saved_model", "safetensors", "keras")


@dataclass(frozen=True)
class Graph:
    """One exported model: a file, or a folder in the case of a SavedModel."""

    path: str  # relative to the artifact
    runtime: RuntimeName
    variant: str  # float32, int8, ...
    outputs: tuple[str, ...]  # tensors it gives; the scale is in the name
    bytes: int
    length: int | None = None  # the one length that it takes; None: any
    batch: int | None = None  # the one batch size that keeps its answers; None: any
    parity: dict[str, Any] = field(default_factory=dict)  # values, agreement, metric, verdict
    latency_ms: float | None = None  # median, batch 1
    required_ops: tuple[str, ...] = ()  # operations from outside the runtime's core
    # What int8 was tried with: settings, bytes, agreement, metric, latency, and which was taken.
    candidates: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What an artifact says of itself."""

    name: str
    version: int
    task: str
    labels: tuple[str, ...]
    options: dict[str, Any]
    max_len: int
    metric: str
    tokenizer: dict[str, Any]  # pad_id, wordpiece, lower_case, strip_accents, marks_case
    graphs: tuple[Graph, ...]
    files: dict[str, dict[str, Any]]  # path -> bytes, sha256: all but manifest.json
    signatures: dict[str, Any]  # SavedModel signature name -> inputs and outputs
    refused: tuple[dict[str, Any], ...] = ()  # graphs dropped by --drop-failed, with the reason
    drift: bool = False  # published by --accept-drift though a graph disagrees
    metrics: dict[str, Any] = field(default_factory=dict)  # the run's test scores
    # Histograms of the test's texts, which `drift` compares with those of today.
    reference: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    cpu: dict[str, Any] = field(default_factory=dict)  # of the machine that measured
    created: str = ""
    schema: int = SCHEMA

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read an artifact's manifest; UserError where it is none, unfinished or too new."""
        path = folder / "manifest.json"
        if not path.exists():
            if (folder / "run.json").exists():
                raise UserError(f"{folder} is a run, not an artifact. Convert it first: "
                                f"python -m export convert {folder} --out artifacts/{folder.name}")
            what = "holds no manifest.json" if folder.is_dir() else "does not exist"
            raise UserError(f"{folder} {what}: it is not a finished artifact. Give a folder that "
                            "`python -m export convert --out` wrote.")
        try:
            content = json.loads(path.read_text("utf-8"))
            schema = content["schema"]
        except (ValueError, KeyError) as error:
            raise UserError(f"{path} cannot be read ({error!r}). Copy the artifact "
                            "again.") from None
        if schema > SCHEMA:
            raise UserError(f"{folder} was made by a newer version of this kit (schema {schema}; "
                            f"this one reads up to {SCHEMA}). Update the kit.")
        several = ("outputs", "required_ops", "candidates")
        graphs = tuple(Graph(**{**g, **{name: tuple(g.get(name, ())) for name in several}})
                       for g in content.pop("graphs"))
        for name in ("labels", "refused"):
            content[name] = tuple(content[name])
        return cls(graphs=graphs, **content)

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON content."""
        return dataclasses.asdict(self)

    def choose(self, runtime: str | None = None, variant: str | None = None,
               length: int | None = None) -> Graph:
        """Pick a graph; what is None takes the first there is, ONNX and float32 before others."""
        wanted = {"runtime": runtime, "variant": variant, "length": length}
        fits = [g for g in self.graphs
                if all(v is None or getattr(g, k) == v for k, v in wanted.items())]
        if not fits:
            asked = ", ".join(f"{k} {v}" for k, v in wanted.items() if v is not None) or "any"
            there = ", ".join(_label(g) for g in self.graphs) or "no graph"
            refused = f" Refused at export: {', '.join(r['path'] for r in self.refused)}." * bool(
                self.refused)
            raise UserError(f"Artifact {self.name!r} has no graph with {asked}. It has: {there}."
                            f"{refused}")
        return min(fits, key=lambda g: (RUNTIMES.index(g.runtime), g.variant != "float32",
                                        -(g.length or 1 << 30)))

    def shorter(self, graph: Graph) -> list[Graph]:
        """Give the files that do as a graph does, for shorter texts."""
        return [g for g in self.graphs if (g.runtime, g.variant) == (graph.runtime, graph.variant)
                and (g.length or 0) < (graph.length or 0)]

    def check_files(self, folder: Path, under: str = "") -> None:
        """Compare hashes of all files, or of those at or below `under`."""
        for path, expected in self.files.items():
            if path == under or path.startswith(f"{under}/") or not under:
                files.check(folder / path, expected)


def _label(graph: Graph) -> str:
    length = f" length {graph.length}" if graph.length else ""
    return f"{graph.runtime} {graph.variant}{length}"
