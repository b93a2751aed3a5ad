"""Records to a run folder: `fit(TrainConfig(...))` is what `python -m tf_pipeline train` calls."""

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import (
    accelerator,
    files,
    masking,
    plots,
    prepared,
    processes,
    reading,
    resuming,
    run,
    stepping,
    tracking,
)
from .accelerator import Device
from .config import TrainConfig
from .data import Batching, buckets
from .errors import DivergedError, UserError
from .reading import Material
from .run import Run
from .runner import run_all
from .runtimes import keras as keras_runtime
from .task import Corrupting, Prepared, Pretrained, Record, Scores, options_of
from .text import Arrays, Shapes, TextEncoder
from .tracking import Tracker

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from .callbacks import Saver

log = logging.getLogger(__name__)


def fit(config: TrainConfig, options: Any = None, resume: bool = False) -> Run:
    """Train and write the run folder `config.out`; nothing there counts before run.json.

    `options` is the task's own Options, its defaults if not given. SIGINT ends training early and
    keeps the best weights, and so does a loss that is no number; the run then says why in
    `stopped`. SIGTERM writes a checkpoint and raises Preempted. `resume` goes on with what was cut
    off in `config.out`, to the same weights as if it had not been; it begins anew where nothing is,
    and gives a finished run as it is.
    """
    if config.out is None:
        raise UserError("--out is missing. Name the run folder to write, e.g. --out runs/reviews.")
    out = config.out
    if resume and (out / "run.json").exists():
        log.info("%s is finished.", out)
        return Run.load(out)
    if not (resume and resuming.can_resume(out)):
        run.refuse_existing(out)
    options = options or options_of(config.task)()
    tracking.check(config.track)
    device = accelerator.choose(config)  # before the first array: how many there are is then fixed
    config, material = (prepared.read(config, options) if config.is_prepared
                        else (config, reading.read(config, options)))
    advice = (f"for batches of {config.batch_size} times up to {config.max_len} tokens. Lower "
              "--batch-size or --max-len, give a --mini-batch-size (the step stays that of "
              "--batch-size), or choose a smaller --backbone.")
    with accelerator.memory_errors(advice), device.stage(config) as staged:
        trained = _Training(staged, material, device).go(resume)
    return trained if device.process == 0 else Run.load(out)


class _Training:
    """One training, from encoded data to the folder."""

    def __init__(self, config: TrainConfig, material: Material, device: Device):
        import keras

        assert config.out is not None
        self.config, self.material, self.device = config, material, device
        self.task, self.parts, self.examples = material.task, material.parts, material.examples
        self.checkpoint = material.checkpoint
        self.encoder: TextEncoder = self.checkpoint.encoder
        shape = self.checkpoint.config
        self.precision, self._why = device.precision(config.precision)
        if config.word_dropout and isinstance(self.task, Corrupting):
            raise UserError(f"--word-dropout is {config.word_dropout}, and task {config.task} "
                            "hides words itself. Leave it out; --mask-share says how many.")
        if shape.num_attention_heads % config.model_parallel:
            raise UserError(f"--model-parallel is {config.model_parallel}, and {config.backbone} "
                            f"has {shape.num_attention_heads} heads; it must divide them.")
        self.out: Path = config.out
        self.started = time.time()
        self.steps = self.examples.steps(config.batch_size)
        if not self.steps:
            raise UserError(f"{self.examples.count} training examples do not fill one batch of "
                            f"--batch-size {config.batch_size}. Lower it, or add data.")
        self.compiled = keras.backend.backend() == "jax"  # anew for each length of a batch
        self._batching = Batching(config.batch_size, config.seed,
                                  buckets(self.examples.longest) if self.compiled else ())
        keras.utils.set_random_seed(config.seed)

    def go(self, resume: bool) -> Run:
        """Train, choose the best weights, evaluate, write."""
        from .callbacks import Saver, Validation, stop_on_signals

        if self.device.processes > 1:  # before the first weight, which they share
            found_here = sorted(path.name for path in (self.out / "checkpoints").glob("*"))
            processes.agree({**self._settings(), "checkpoints": found_here})
        with _precision(self.precision), self.device.scope():
            backbone = self.checkpoint.build()
            model = self.task.build(backbone)
            if not self.config.epochs and len(model.weights) > len(backbone.weights):
                raise UserError(f"--epochs is {self.config.epochs}, and the weights that task "
                                f"{self.config.task} adds to the checkpoint are random. Give 1 or "
                                "more.")
            if isinstance(self.task, Pretrained):
                self.task.restore(model, self.checkpoint.weights or {})
            trainer = stepping.compiled(model, self.task, self.config, self.device.count,
                                        self.steps * self.config.epochs)
        self._announce(model)
        with files.disk_errors(self.out), \
                stop_on_signals(self.device.processes) as request, self.device.scope():
            resuming.begin(self.out, self._settings(), resume)
            folder = self.out / "checkpoints"
            validation = Validation(lambda: self.score(model, self.parts.validation),
                                    self.task.METRIC, self.config.patience, folder, request)
            saver = Saver(resuming.Checkpoints(folder), validation, self.config.checkpoint_steps)
            with Tracker(self.out / "logs", self.config) as tracker:
                found: dict[str, Any] = {"speed": {}}
                stopped = None
                if self.config.epochs:
                    found["speed"], stopped = self._fit(trainer, saver, resume, tracker)
                    validation.restore(model)
                answers, found["calibration"] = self._finish(model)
                best_epoch = validation.best["epoch"] if validation.best else 0
                found = {"history": validation.history, "best_epoch": best_epoch, **found,
                         **self._scores(answers)}
                self._draw(found, answers["test"], tracker)
                written = self._write(model, found, stopped)
            shutil.rmtree(folder)  # several times the size of the run
            return written

    def _finish(self, model: "keras.Model") -> tuple[dict[str, Arrays], dict[str, float]]:
        """Let the task choose on validation rows.

        Gives what the model then answers, by split, and what that did for its confidence.
        """
        answers = self._answers(model)
        finished = self.task.finish(model, answers["validation"], self.parts.validation)
        if finished is self.task:
            return answers, {}
        before = self.task.score(answers["test"], self.parts.test)
        self.task, answers = finished, self._answers(model)
        if "calibration_error" not in before:
            return answers, {}
        after = self.task.score(answers["test"], self.parts.test)
        found = {"temperature": self.task.options.temperature,
                 "error_before": before["calibration_error"],
                 "error_after": after["calibration_error"]}
        log.info("Temperature %.2f: expected calibration error on test %.4f, before %.4f.",
                 found["temperature"], found["error_after"], found["error_before"])
        return answers, found

    def _answers(self, model: "keras.Model") -> dict[str, Arrays]:
        """Run the rows that judge the model, each once."""
        return {"validation": self.outputs(model, self.parts.validation),
                "test": self.outputs(model, self.parts.test)}

    def _scores(self, answers: dict[str, Arrays]) -> dict[str, Scores]:
        """Score both splits, and of test the rows that travel with the run."""
        parts = {"validation": self.parts.validation, "test": self.parts.test}
        scores = {name: self.task.score(answers[name], rows) for name, rows in parts.items()}
        kept, places = self._kept()["test"], range(len(self.parts.test))
        rows = run.spread(places, len(kept))
        return {**scores, "kept": self.task.score(
            {name: values[rows] for name, values in answers["test"].items()}, kept)}

    def _kept(self) -> dict[str, list[Record]]:
        most = (self.task.KEPT_ROWS if isinstance(self.task, Prepared)
                else run.EVALUATION_ROWS)
        return run.choose_evaluation(self.parts.validation, self.parts.test, most)

    def _settings(self) -> dict[str, Any]:
        """Say what decides each step, for a training that goes on, perhaps on another machine."""
        found = {**dataclasses.asdict(self.config), **dataclasses.asdict(self.task.options),
                 "precision": self.precision}
        for name in ("out", "checkpoint_steps", "train", "validation", "test", "device",
                     "devices", "model_parallel", "track", "profile_steps"):
            found.pop(name)
        return {**{f"--{name.replace('_', '-')}": value for name, value in found.items()},
                **{f"{split} data": f"sha256 {content[:12]}..."
                   for split, content in self.parts.hashes.items()},
                # The same texts come in another order.
                **({"--train": "prepared"} if self.config.is_prepared else {})}

    def _fit(self, trainer: "keras.Model", saver: "Saver", resume: bool,
             tracker: Tracker) -> tuple[dict[str, float], str | None]:
        """Train to the end or to a stop: the speed, and why it stopped early if it did."""
        from .callbacks import Profiler, Progress, Scalars

        trainer.optimizer.build(trainer.trainable_variables)
        if resume:
            saver.restore(trainer)
        validation = saver.validation
        progress = Progress(validation.request, self.config.epochs, self.steps, saver.step)
        tracker.rewind(saver.step)
        profiler = Profiler(self.out / "logs", self.config.profile_steps)
        callbacks = [progress, saver, validation, Scalars(tracker, validation, saver.step),
                     profiler]
        if not self.compiled:
            from .optimizer import Settling

            callbacks.insert(0, Settling())
        stopped = None
        try:
            while not saver.done:
                epoch, step = divmod(saver.step, self.steps)
                batches = self._batches(saver.step)
                trainer.fit(self.device.feed(batches), initial_epoch=epoch,
                            epochs=epoch + 1, steps_per_epoch=self.steps - step, shuffle=False,
                            verbose=0, callbacks=callbacks)
                saver.finish_epoch(trainer.stop_training or epoch + 1 == self.config.epochs)
        except DivergedError as error:
            place = f"Its batch: {self._examples_of(progress.bar.n)}"
            if validation.best is None:
                raise DivergedError(f"{error} {place}") from None
            log.error("%s %s The weights of epoch %d are kept.", error, place,
                      validation.best["epoch"])
            stopped = "DIVERGED"
        finally:
            progress.close()  # or the bar is drawn once more over the error's line
            profiler.close()
        if validation.request.received:
            stopped = validation.request.received.name
        return progress.speed(self.config.batch_size), stopped

    def _examples_of(self, step: int) -> str:
        """Quote some of a step's texts."""
        (inputs, _, _), = self.examples.batches(self._batching, step).take(1).as_numpy_iterator()
        texts = [self.encoder.decode(row) for row in inputs["input_ids"][:3].tolist()]
        return ", ".join(f"{text[:60]!r}" for text in texts) + ", ..."

    def _batches(self, start: int) -> "tf.data.Dataset":
        batches = self.examples.batches(self._batching, start)
        if share := self.config.word_dropout:
            batches = masking.drop_words(batches, self.encoder, share, self.config.seed, start)
        if isinstance(self.task, Corrupting):
            return self.task.mask(batches, self.encoder, self.config.seed, start)
        return batches

    def _announce(self, model: "keras.Model") -> None:
        """Say device, precision and the minutes to come, from the time of a forward pass."""
        encoded = self.examples.sample()
        rows = np.argsort(encoded.lengths)[len(encoded) // 2:][:self.config.batch_size]
        sample = encoded.take(rows)
        runner = keras_runtime.wrap(model.get_layer("backbone"))  # heads take little
        run_all(runner, sample, Shapes(len(rows)))  # compiles
        begin = time.perf_counter()
        run_all(runner, sample, Shapes(len(rows)))
        forward_s = (time.perf_counter() - begin) * self.config.batch_size / len(rows)
        # Backward is two forwards, AdamW and dropout about one more (docs/decisions.md).
        texts = 1 if encoded.groups is None else encoded.groups.shape[1]
        minutes = 4 * forward_s * texts * self.steps * self.config.epochs / 60
        duration = "under a minute" if minutes < 1 else f"about {minutes:.1f} minutes"
        log.info("Training on %s, %s (%s), %s: %d examples, %d epochs of %d steps.",
                 self.device.name, self.precision, self._why, duration, self.examples.count,
                 self.config.epochs, self.steps)

    def score(self, model: "keras.Model", records: list[Record]) -> dict[str, Any]:
        """Evaluate on records, each once."""
        return self.task.score(self.outputs(model, records), records)

    def outputs(self, model: "keras.Model", records: list[Record]) -> Arrays:
        """Run records, each once."""
        return run_all(keras_runtime.wrap(model), self.task.encode(records, self.encoder))

    def _write(self, model: "keras.Model", scores: dict[str, Any], stopped: str | None) -> Run:
        run.save_weights(model, self.out / "model.weights.h5")
        config = {k: str(v) if isinstance(v, Path) else v
                  for k, v in dataclasses.asdict(self.config).items()}
        # Texts and hashes only: a run is given to others, the path of a data file is not theirs.
        data = {name: {"spec": self.parts.specs[name], "rows": rows,
                       "sha256": self.parts.hashes[name]}
                for name, rows in self.material.rows.items()}
        return run.write(self.out, {
            "backbone.json": self.checkpoint.config.to_json(),
            "tokenizer.json": self.encoder.to_json(),
            "labels.json": json.dumps(self.task.labels, ensure_ascii=False),
            "evaluation.jsonl": run.evaluation_lines(self._kept()),
            "metrics.json": json.dumps(scores, indent=2),
        }, {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "task": self.config.task, "options": dataclasses.asdict(self.task.options),
            "config": config, "metric": self.task.METRIC, "data": data,
            "stopped": stopped,
            "device": self.device.name, "precision": self.precision,
            "duration_s": round(time.time() - self.started, 1), "versions": run.versions(),
        })

    def _draw(self, scores: dict[str, Any], outputs: Arrays, tracker: Tracker) -> None:
        """Write the pictures: confusion.png beside the run's numbers, the others into logs/."""
        findings = dataclasses.replace(
            plots.find(self.task, self.encoder, self.parts.test, outputs, scores["test"]),
            history=scores["history"], best_epoch=scores["best_epoch"])
        logs = self.out / "logs"
        figures = plots.draw(findings)
        files = {name: (self.out if name == "confusion" else logs) / f"{name}.png"
                 for name in figures}
        for name, figure in figures.items():
            plots.save(figure, files[name])
        step = len(findings.history) * self.steps
        tracker.scalars(step, {f"test/{name}": value for name, value in
                                    findings.scores.items() if isinstance(value, float)})
        tracker.pictures(step, files)


@contextmanager
def _precision(policy: str) -> Iterator[None]:
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
