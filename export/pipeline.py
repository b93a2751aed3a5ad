"""A run to a published artifact: convert, compare, and publish whole or not at all."""

import dataclasses
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tf_pipeline import drift, plugins, runtimes
from tf_pipeline.artifact import Graph, Manifest
from tf_pipeline.config import to_flags
from tf_pipeline.errors import PARITY_EXIT, USER_ERROR_EXIT, ParityError, UserError
from tf_pipeline.files import describe, disk_errors, reserve, sync
from tf_pipeline.run import Run, versions
from tf_pipeline.runner import Runner, run_all, shapes_of, widen
from tf_pipeline.task import Prepared, generated_questions, text_of
from tf_pipeline.text import Arrays, Shapes

from . import companions, formats, gate, mediapipe, parity
from .options import ConvertOptions
from .twin import Twin

log = logging.getLogger(__name__)
LENGTHS = (32, 64, 128, 256)
_DISK = 5  # times the weights: what three formats, int8 files and a frozen copy take
_TEXT_MISMATCH = 0.002  # share of texts whose ids the SavedModel's own tokenizer may make otherwise
_VERSIONS = ("tensorflow", "tensorflow-text", "keras", "tf2onnx", "onnx", "onnxruntime",
             "ai-edge-litert", "tokenizers", "numpy")


def convert(run: Run | Path | str, out: Path | str,
            options: ConvertOptions | None = None) -> Manifest:
    """Convert in a process of its own, on the TensorFlow backend, and open the artifact.

    Raises UserError, or ParityError where a file does not give the run's answers.
    """
    folder = run.path if isinstance(run, Run) else Path(run)
    refuse_existing(Path(out))
    settings = dataclasses.replace(options or ConvertOptions(), out=Path(out).resolve())
    root = str(Path(__file__).parents[1])
    paths = [root, os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "export", "convert", str(folder.resolve()), *to_flags(settings)],
        env={**os.environ, "KERAS_BACKEND": "tensorflow",
             "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        message = (lines or done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
        kind = {USER_ERROR_EXIT: UserError, PARITY_EXIT: ParityError}.get(
            done.returncode, RuntimeError)
        raise kind(message.removeprefix("error: "))
    return Manifest.load(Path(out))


def build(run: Run, options: ConvertOptions) -> Manifest:
    """Convert in this process: what `python -m export convert` does."""
    if options.out is None:
        raise UserError("--out is missing. Name the artifact folder, e.g. --out artifacts/reviews.")
    out = options.out
    refuse_existing(out)
    for leftover in sorted(out.parent.glob(f".{out.name}.partial-*")):
        log.warning("Found %s: a conversion was cut off there. Nothing uses it; delete it.",
                    leftover)
    for name in options.formats:
        plugins.load(formats, name)  # an unknown name is found before minutes of work
    staging = out.parent / f".{out.name}.partial-{os.getpid()}"
    with disk_errors(out):
        staging.mkdir(parents=True)
        try:
            reserve(staging / "space", _DISK * run.info["files"]["model.weights.h5"]["bytes"])
            return _Conversion(run, options, staging).publish(out)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def refuse_existing(out: Path) -> None:
    """Raise UserError when `out` exists."""
    if out.exists():
        what = "already holds an artifact" if (out / "manifest.json").exists() else "exists"
        raise UserError(f"--out {out} {what}. Choose another folder, or delete it first.")


class _Conversion:
    """One conversion: the twin, its reference outputs, and the verdict on each file."""

    def __init__(self, run: Run, options: ConvertOptions, staging: Path):
        self.run, self.staging = run, staging
        self.twin = Twin(run)
        if "saved_model" in options.formats and self.twin.answers_text(options.signatures):
            plugins.load(formats, "saved_model").check_tokenizer(self.twin.encoder)
        self.records = run.evaluation("test")
        self.encoded = self.twin.task.encode(self.records, self.twin.encoder, run.max_len)
        self.options = dataclasses.replace(options, lengths=self._lengths(options.lengths))
        self._expected: dict[int, Arrays] = {}
        self._device: dict[int, dict[str, Any]] = {}  # what MediaPipe makes of texts, by length
        self.graphs: list[Graph] = []
        self.failed: list[tuple[str, str]] = []  # file, what is wrong with it
        self.report: dict[str, Any] = {}

    def _lengths(self, asked: tuple[int, ...]) -> tuple[int, ...]:
        limit = self.run.max_len
        if asked:
            most = self.run.config.max_position_embeddings
            if too_long := [n for n in asked if n > most]:
                raise UserError(f"--lengths holds {too_long[0]}; the model has {most} positions.")
            return asked
        usual = float(np.quantile(self.encoded.lengths, 0.99))
        return (min(limit, next((n for n in LENGTHS if n >= usual), LENGTHS[-1])),)

    def publish(self, out: Path) -> Manifest:
        """Write everything into staging, and rename it to `out` if every file holds."""
        self._check_twin()
        for name in self.options.formats:
            self._write(name)
        if self.failed:
            self._judge(out)
        manifest = self._manifest(out.name)
        companions.write_card(self.staging, manifest, self.run, self._golden_rows())
        manifest = dataclasses.replace(manifest, files=self._hashes())
        path = self.staging / "manifest.json"
        path.write_text(json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False), "utf-8")
        for written in (*self.staging.rglob("*"), self.staging):
            sync(written)
        os.rename(self.staging, out)  # same disk: all or nothing
        sync(out.parent)
        return manifest

    def _check_twin(self) -> None:
        """Refuse a run whose weights or rows no longer give the run's own score."""
        metric = self.twin.task.METRIC
        trained = self.run.metrics["kept"][metric]
        rebuilt = float(self.twin.task.score(self.expected(self.run.max_len), self.records)[metric])
        if not abs(trained - rebuilt) <= max(0.005, 2 / len(self.records)):
            raise ParityError(f"The float32 model rebuilt from {self.run.path} has {metric} "
                              f"{rebuilt:.4f}, and the run reports {trained:.4f} on the same "
                              f"{len(self.records)} rows. Nothing was published. Train again.")

    def expected(self, length: int) -> Arrays:
        """Give the twin's outputs for all rows, cut to `length` tokens."""
        longest = int(self.encoded.lengths.max())
        key = min(length, longest)
        if key not in self._expected:
            self._expected[key] = self.twin.outputs(self.records, min(length, self.run.max_len))
        return self._expected[key]

    def _write(self, format_name: str) -> None:
        log.info("Writing %s ...", format_name)
        fmt = plugins.load(formats, format_name)
        try:
            for graph in fmt.convert(self.twin, self.staging, self.options):
                self.graphs.append(self._checked(graph))
        except ParityError as error:
            self.failed.append((format_name, str(error)))

    def _checked(self, graph: Graph) -> Graph:
        """Load a written file in its own runtime and hold it against the twin."""
        path = self.staging / graph.path
        limit = min(graph.length or self.run.max_len, self.run.max_len)
        faults = []
        if graph.runtime == "tflite" and graph.length:
            least = self.twin.least_bytes(graph.length)
            faults = gate.tflite_faults(path, graph.variant, least)
        verdict, latency = parity.Verdict(len(self.records), tuple(faults)), None
        if not faults:
            runner = plugins.load(runtimes, graph.runtime).load(path)
            encoded = self.twin.task.encode(self.records, self.twin.encoder, limit)
            actual = run_all(runner, encoded, shapes_of(graph))
            verdict = parity.compare(self.twin.task, self.records, self.expected(limit), actual,
                                     parity.tolerance_of(self.twin.task, graph.variant))
            if set(graph.outputs) - set(actual):
                verdict = self._with_tokens(verdict, runner, graph)
            latency = self._latency(runner, graph)
        content = verdict.to_dict()
        reasons = list(verdict.reasons)
        if graph.runtime == "saved_model" and self.twin.answers_text(self.options.signatures):
            content["text"] = self._text_parity(path)
            reasons += content["text"]["reasons"]
        if graph.runtime == "tflite" and not faults and mediapipe.refusal(self.twin) is None:
            content["mediapipe"] = self._on_mediapipe(limit)
        self.report[graph.path] = content
        if reasons:
            worst = parity.worst_line(verdict)
            self.failed.append((graph.path, "; ".join([*reasons, *([worst] if worst else [])])))
        public = {k: v for k, v in content.items() if k != "worst"}  # the card counts its texts
        return dataclasses.replace(graph, parity=public, latency_ms=latency)

    def _with_tokens(self, verdict: parity.Verdict, runner: Runner,
                     graph: Graph) -> parity.Verdict:
        """Add what a file gives for each token of a text, too large to be kept for all rows.

        It is compared on the rows of golden.npz, of which the longest and the shortest are two.
        """
        records = self._golden_rows()
        heads = self.twin.task.encode(records, self.twin.encoder, self.run.max_len).heads()
        expected, actual = (run_all(run, heads, shapes) for run, shapes in (
            (self.twin.runner, Shapes(length=graph.length)), (runner, shapes_of(graph))))
        # Decisions were judged on all rows.
        tolerance = dataclasses.replace(parity.TOLERANCES[graph.variant], agreement=0.0)
        tokens = parity.compare(self.twin.task, records, expected, actual, tolerance, scored=False)
        return dataclasses.replace(
            # Those that all rows were compared by come first and stay.
            verdict, differences=verdict.differences | tokens.differences | verdict.differences,
            reasons=verdict.reasons + tuple(f"token by token: {r}" for r in tokens.reasons))

    def _text_parity(self, path: Path) -> dict[str, Any]:
        """Compare the SavedModel's text signature: ids with tokenizer.json, answers with the twin.

        Only here may ids differ, on at most 0.2 % of the texts; each is shown with both lists.
        """
        from tf_pipeline.runtimes import saved_model

        loaded = saved_model.open_folder(path)
        answer = saved_model.text_runner(loaded)
        heads = self.encoded.heads()
        wanted = self.twin.task.OUTPUTS["text"]
        expected = run_all(lambda inputs: {
            name: values for name, values in self.twin.runner(inputs).items() if name in wanted},
            heads)
        width = int(heads.lengths.max())
        same, mismatches, parts = [], [], []
        for start in range(0, len(self.records), 32):
            rows = range(start, min(start + 32, len(self.records)))
            chosen = [self.records[i] for i in rows]
            texts = {field: [r[field] if field in r else text_of(r) for r in chosen]
                     for field in self.twin.task.text_fields}
            ids, mask = (t.numpy() for t in loaded.tokenize(*texts.values())[:2])
            parts.append({k: widen(v, width) for k, v in answer(**texts).items() if k != "label"})
            for i, row, used in zip(rows, ids, mask.sum(1), strict=True):
                span = slice(heads.splits[i], heads.splits[i + 1])
                if np.array_equal(row[:used], heads.ids[span]):
                    same.append(i)
                else:
                    mismatches.append({"row": i, "tokenizer_json": heads.ids[span].tolist(),
                                       "saved_model": row[:used].tolist()})
        outputs = {k: np.concatenate([p[k] for p in parts])[same] for k in parts[0]}
        verdict = parity.compare(self.twin.task, [self.records[i] for i in same],
                                 {k: v[same] for k, v in expected.items()}, outputs,
                                 parity.TOLERANCES["float32"], scored=False)
        reasons = [f"text signature: {reason}" for reason in verdict.reasons]
        if len(mismatches) > _TEXT_MISMATCH * len(self.records):
            reasons.append(f"text signature: {len(mismatches)} of {len(self.records)} texts get "
                           f"other ids than tokenizer.json gives, and at most {_TEXT_MISMATCH:.1%} "
                           f"may (first: {mismatches[0]}). Pass --signatures tokens")
        return {"differences": verdict.differences, "agreement": verdict.agreement,
                "id_mismatches": mismatches, "reasons": reasons}

    def _on_mediapipe(self, limit: int) -> dict[str, Any]:
        """Measure what MediaPipe's own tokenizer makes of the rows, once for each length."""
        if limit not in self._device:
            found = mediapipe.compare(self.twin, self.records, limit)
            self._device[limit] = found
            if found["mismatches"]:
                metric = self.twin.task.METRIC
                right = self.twin.task.score(self.expected(limit), self.records)[metric]
                log.warning("MediaPipe's tokenizer gives %d of %d texts other ids: %s %.4f instead "
                            "of %.4f. After folding, as docs/phone.md says, %d differ.",
                            found["mismatches"], found["texts"], metric, found["metric"], right,
                            found["mismatches_folded"])
        return self._device[limit]

    def _latency(self, runner: Runner, graph: Graph, calls: int = 30) -> float:
        """Median milliseconds of one text of the usual length, after warm-up."""
        middle = np.argsort(self.encoded.lengths)[len(self.encoded) // 2]
        usual = int(self.encoded.lengths[middle])
        row = self.encoded.take([middle]) if usual <= (graph.length or usual) else None
        inputs = (row.padded([0], graph.length or usual) if row else
                  {k: v[:, :graph.length] for k, v in
                   self.encoded.padded([middle], usual).items()})
        times = []
        for _ in range(calls + 3):
            start = time.perf_counter()
            runner(inputs)
            times.append(time.perf_counter() - start)
        return round(float(np.median(times[3:])) * 1000, 3)

    def _judge(self, out: Path) -> None:
        """Stop, or go on as --drop-failed and --accept-drift say. The report stays beside."""
        report = out.parent / f"{out.name}.parity.json"
        report.write_text(json.dumps({"failed": self.failed, "files": self.report}, indent=2,
                                     ensure_ascii=False), "utf-8")
        names = {name for name, _ in self.failed}
        summary = " | ".join(f"{name}: {reason}" for name, reason in self.failed)
        kept = [g for g in self.graphs if g.path not in names]
        if self.options.accept_drift and self.graphs:
            log.warning("Published with drift: %s. See %s.", summary, report)
        elif self.options.drop_failed and kept:
            log.warning("Left out: %s. See %s.", summary, report)
            for graph in self.graphs:
                if graph.path in names:
                    path = self.staging / graph.path
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.graphs = kept
        else:
            raise ParityError(f"{summary}. Nothing was published. See {report}.")

    def _golden_rows(self) -> list[dict[str, Any]]:
        """Choose the rows of golden.npz: the longest, the shortest, and evenly between."""
        if not self.options.golden_text:
            made = generated_questions(self.twin.task, self.twin.encoder, self.options.golden)
            if isinstance(self.twin.task, Prepared):
                made = [{"text": row["text"]}
                        for row in self.twin.task.questions(made, self.twin.encoder)]
            return made
        order = np.argsort(self.encoded.text_lengths, kind="stable")
        count = min(self.options.golden, len(order))
        places = np.linspace(0, len(order) - 1, count).round().astype(int)
        return [self.records[i] for i in order[places]]

    def _manifest(self, name: str) -> Manifest:
        companions.write_tokenizer(self.staging, self.twin.encoder)
        companions.write_config(self.staging, self.run)
        if "sentence_embedding" in self.twin.task.OUTPUTS["onnx"]:
            companions.write_modules(self.staging, self.run)
        lengths = {g.length for g in self.graphs if g.length}
        companions.write_golden(self.staging, self.twin, self._golden_rows(), lengths)
        saved = [g for g in self.graphs if g.runtime == "saved_model"]
        signatures = {}
        if saved:
            signatures = plugins.load(formats, "saved_model").signatures_of(
                self.staging / saved[0].path)
        task, encoder = self.twin.task, self.twin.encoder
        return Manifest(
            name=name, version=self.options.version, task=self.run.info["task"],
            labels=task.labels, options=self.run.info["options"], max_len=self.run.max_len,
            metric=task.METRIC, graphs=tuple(self.graphs), files={}, signatures=signatures,
            tokenizer={"pad_id": encoder.pad_id, "wordpiece": encoder.is_wordpiece,
                       "lower_case": encoder.lower_case, "strip_accents": encoder.strip_accents,
                       "marks_case": encoder.marks_case},
            refused=tuple({"path": p, "reason": r} for p, r in self.failed
                          if self.options.drop_failed),
            drift=bool(self.failed) and self.options.accept_drift,
            metrics={task.METRIC: self.run.metrics["test"][task.METRIC],
                     "rows": self.run.metrics["test"]["examples"]},
            reference=drift.reference(drift.measure(
                task, encoder, self.encoded, self.expected(self.run.max_len))),
            run={"name": self.run.name, "backbone": self.run.info["config"]["backbone"],
                 "data": self.run.info["data"], "created": self.run.info["created"]},
            versions=versions(_VERSIONS), cpu=cpu(),
            created=datetime.now(UTC).isoformat(timespec="seconds"))

    def _hashes(self) -> dict[str, dict[str, Any]]:
        return {path.relative_to(self.staging).as_posix(): describe(path)
                for path in sorted(self.staging.rglob("*")) if path.is_file()}


def cpu() -> dict[str, Any]:
    """Name the features that int8 answers and latencies depend on."""
    told = Path("/proc/cpuinfo")
    flags = set(told.read_text().split()) if told.exists() else set()
    useful = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16")
    return {"machine": platform.machine(), "cores": os.cpu_count(),
            "features": [name for name in useful if name in flags]}
