"""An artifact as a static site: pages that run the model themselves, on any web server.

`python -m serving web artifacts/reviews --out site`
"""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from tf_pipeline.artifact import Graph, Manifest
from tf_pipeline.errors import UserError
from tf_pipeline.files import disk_errors, refuse_existing, sha256, sync
from tf_pipeline.task import create

from . import libraries
from .options import WebOptions

log = logging.getLogger(__name__)
TASKS = ("classify", "embed", "match", "multilabel", "regress", "tag")
RUNTIMES = ("onnx", "tflite")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
WEB = Path(__file__).with_name("web")
SHARED = ("answers.js", "question.js", "page.css", "icon.svg")  # with the server's page


def write(artifact: Path, options: WebOptions) -> Path:
    """Write the site and give its folder; whole or not at all."""
    out = options.out
    refuse_existing(out, "--out")
    manifest = Manifest.load(artifact)
    graphs = _chosen(manifest, options)
    for path in (*TOKENIZER, *(graph.path for graph in graphs)):
        manifest.check_files(artifact, path)
    if manifest.drift:
        log.warning("Artifact %s was published with --accept-drift: at least one of its files does "
                    "not give the trained model's answers. The page says so.", manifest.name)
    modules = libraries.find(options.libraries)
    for leftover in sorted(out.parent.glob(f".{out.name}.partial-*")):
        log.warning("Found %s: a site was cut off there. Nothing uses it; delete it.", leftover)
    staging = out.parent / f".{out.name}.partial-{os.getpid()}"
    with disk_errors(out):
        staging.mkdir(parents=True)
        try:
            _fill(staging, artifact, manifest, graphs)
            libraries.copy(modules, {graph.runtime for graph in graphs}, staging / "libraries")
            _write_kept(staging, manifest)
            for written in staging.rglob("*"):
                sync(written)
            os.rename(staging, out)
            sync(out.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return out


def _chosen(manifest: Manifest, options: WebOptions) -> list[Graph]:
    """Give the graphs that go on the site; UserError where a page could not answer with them."""
    if manifest.task not in TASKS:
        raise UserError(f"{manifest.name} has the task {manifest.task!r}, and pages answer "
                        f"{', '.join(TASKS)}. Serve it instead: python -m serving.")
    wanted = {"runtime": options.runtime, "variant": options.variant, "length": options.length}
    found = [g for g in manifest.graphs if g.runtime in RUNTIMES
             and all(v is None or getattr(g, k) == v for k, v in wanted.items())]
    if not found:
        asked = "".join(f" and {k} {v}" for k, v in wanted.items() if v is not None)
        there = ", ".join(g.path for g in manifest.graphs) or "none"
        raise UserError(f"{manifest.name} has no file of the runtimes onnx and tflite{asked}. It "
                        f"has: {there}. Choose others, or convert with --formats onnx,tflite.")
    return found


def _fill(folder: Path, artifact: Path, manifest: Manifest, graphs: list[Graph]) -> None:
    """Copy the page, the tokenizer and the graphs, and describe them in site.json."""
    for script in sorted(libraries.SITE.rglob("*.js")):
        _copy(script, folder / "site" / script.relative_to(libraries.SITE))
    for name in SHARED:
        _copy(WEB / name, folder / "web" / name)
    for name in ("index.html", "service_worker.js"):  # they reach what lies at or below them
        _copy(libraries.SITE / name, folder / name)
    (folder / "site" / "service_worker.js").unlink()
    for path in (*TOKENIZER, *(graph.path for graph in graphs)):
        _copy(artifact / path, folder / "model" / path)
    content = json.dumps(_description(manifest, graphs), indent=2, ensure_ascii=False)
    (folder / "site.json").write_text(content + "\n", "utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _description(manifest: Manifest, graphs: list[Graph]) -> dict[str, Any]:
    """Say what GET /v1/models/NAME/files says, and what decoding needs beyond it."""
    task = create(manifest.task, manifest.labels, manifest.options)
    names = ("abstain_below", "thresholds", "spread", "mean", "folded")
    files = [{"path": g.path, "runtime": g.runtime, "variant": g.variant, "bytes": g.bytes,
              "sha256": manifest.files[g.path]["sha256"], "length": g.length,
              "max_tokens": min(manifest.max_len, g.length or manifest.max_len),
              "outputs": g.outputs, "agreement": g.parity.get("agreement")} for g in graphs]
    # ONNX reads texts of any length; of those files the smallest is there soonest.
    first = min(graphs, key=lambda g: (RUNTIMES.index(g.runtime), g.bytes))
    return {"model": manifest.name, "version": manifest.version, "task": manifest.task,
            "labels": manifest.labels, "fields": task.text_fields, "drift": manifest.drift,
            "options": {n: getattr(task.options, n) for n in names if hasattr(task.options, n)},
            "pad_id": manifest.tokenizer["pad_id"], "file": first.path, "files": files}


def _write_kept(folder: Path, manifest: Manifest) -> None:
    """Write kept.js, which tells the service worker what to keep; its version is the content's."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                   if path.is_file() and path.name != "service_worker.js")
    read = [path for path in paths if not path.endswith(".txt") and path != "index.html"]
    later = [path for path in read if path.startswith(("model/onnx/", "libraries/onnx/",
                                                       "libraries/litert/"))
             or path.endswith(".tflite")]
    digest = hashlib.sha256()
    for path in paths:
        known = manifest.files.get(path.removeprefix("model/"), {}).get("sha256")
        digest.update(f"{path} {known or sha256(folder / path)}\n".encode())
    kept = {"version": digest.hexdigest()[:16], "later": later,
            "page": ["./", *(path for path in read if path not in later)]}
    (folder / "kept.js").write_text(f"self.KEPT = {json.dumps(kept, indent=2)};\n", "utf-8")
