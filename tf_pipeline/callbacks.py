"""What happens around `model.fit`: validation, early stopping, signals, progress, checkpoints."""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import keras

from . import run
from .errors import DivergedError, Preempted
from .resuming import KEPT, Checkpoints
from .tracking import Tracker

log = logging.getLogger(__name__)


class StopRequest:
    """Whether SIGINT or SIGTERM asked training to end; the second one ends it at once."""

    received: signal.Signals | None = None

    def look(self, step: int) -> None:
        """Ask others after a step; there are none."""


class AgreedStop(StopRequest):
    """SIGTERM at one of several processes ends all of them after the same step."""

    def look(self, step: int) -> None:
        """Ask JAX, which notices the signal itself and settles the step."""
        from jax.experimental import multihost_utils

        if multihost_utils.reached_preemption_sync_point(step):
            log.warning("SIGTERM: stopping after step %d, as all processes do.", step)
            self.received = signal.SIGTERM


@contextmanager
def stop_on_signals(processes: int) -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request, inside the block only."""
    if processes > 1:
        yield AgreedStop()
        return
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python handles signals in the main thread alone
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, _: Any) -> None:
        request.received = signal.Signals(number)
        log.warning("%s: stopping after this step; the best weights so far will be kept. "
                    "Once more to give up everything.", request.received.name)
        restore()

    for number in previous:
        signal.signal(number, handle)
    try:
        yield request
    finally:
        restore()


class Progress(keras.callbacks.Callback):
    """One bar over all epochs with the time left; stops on a signal or a loss that is no number."""

    def __init__(self, request: StopRequest, epochs: int, steps: int, start: int):
        from tqdm import tqdm

        super().__init__()
        self.request, self.epochs, self.steps = request, epochs, steps
        self.seconds = 0.0  # of steps, without what comes between epochs
        self.bar = tqdm(total=epochs * steps, initial=start, unit="step", desc="training",
                        dynamic_ncols=True, mininterval=0.5)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Name the epoch."""
        self._mark = time.monotonic()
        self.bar.set_description(f"epoch {epoch + 1}/{self.epochs}")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Advance, and end training where it must end."""
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            epoch, step = divmod(self.bar.n, self.steps)
            raise DivergedError(f"The loss is {loss} at step {step + 1} of epoch {epoch + 1}: "
                                "training has diverged. Lower --learning-rate (3e-5 is safe for "
                                "most checkpoints) or --clip-norm, or pass --precision float32.")
        now = time.monotonic()
        self.seconds += now - self._mark
        self._mark = now
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update()
        if self.request.received is signal.SIGINT:  # `Saver` sees to SIGTERM
            self.model.stop_training = True

    def close(self) -> None:
        """End the bar's line."""
        self.bar.close()

    def speed(self, examples: int) -> dict[str, float]:
        """Give what this process did, tracing included, at so many examples a step."""
        steps = self.bar.n - self.bar.initial
        rate = examples * steps / self.seconds if steps else 0.0
        return {"steps": steps, "seconds": round(self.seconds, 2), "examples_per_s": round(rate, 1)}


class Validation(keras.callbacks.Callback):
    """Scores each epoch's weights, keeps the best on disk, and stops when they stay the best."""

    def __init__(self, score: Callable[[], dict[str, Any]], metric: str, patience: int,
                 folder: Path, request: StopRequest):
        super().__init__()
        self.score, self.metric, self.patience = score, metric, patience
        self.folder, self.request = folder, request
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self._complete = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Notice the epoch's last step."""
        self._complete = _last(self, batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Validate; after Ctrl-C also an epoch cut short, if there is nothing else to keep."""
        if self.best and not self._complete:
            return
        scores = self.score()
        row = {"epoch": epoch + 1, "train_loss": float(logs["loss"]), "loss": scores["loss"],
               self.metric: scores[self.metric]}
        self.history.append(row)
        log.info("epoch %d: training loss %.4f, validation loss %.4f, %s %.4f", row["epoch"],
                 row["train_loss"], row["loss"], self.metric, row[self.metric])
        # Equal scores: the lower loss, as on a small validation set many epochs are equal.
        rank = (row[self.metric], -row["loss"])
        if self.best is None or rank > (self.best[self.metric], -self.best["loss"]):
            self.best = row
            run.save_weights(keras.Model(self.model.input, self.model.output), self._weights_file)
        elif row["epoch"] - self.best["epoch"] >= self.patience:
            log.info("No better %s for %d epochs: stopping.", self.metric, self.patience)
            self.model.stop_training = True

    @property
    def _weights_file(self) -> Path:
        # A file an epoch: a checkpoint of an earlier one still finds its own best.
        assert self.best is not None
        return self.folder / f"best-{self.best['epoch']:05}.weights.h5"

    def forget_worse(self) -> None:
        """Delete the weights that no checkpoint speaks of: between two of them at most one is new.

        Both are needed, as the newest checkpoint may turn out to be damaged.
        """
        for path in sorted(self.folder.glob("best-*.weights.h5"))[:-KEPT]:
            path.unlink()

    def restore(self, model: keras.Model) -> None:
        """Load the best weights."""
        model.load_weights(self._weights_file)


class Saver(keras.callbacks.Callback):
    """Writes checkpoints: after each epoch, between if asked or after minutes, and on SIGTERM."""

    EVERY_S: ClassVar[float] = 600

    def __init__(self, checkpoints: Checkpoints, validation: Validation, every: int):
        super().__init__()
        self.checkpoints, self.validation, self.every = checkpoints, validation, every
        self.step = 0
        self.done = False  # whether training came to its end
        self._written = time.monotonic()
        self._running: list[Any] = []  # running means in the middle of an epoch

    def restore(self, trainer: keras.Model) -> None:
        """Go on from the newest checkpoint, if there is one."""
        progress = self.checkpoints.load(trainer)
        if progress is not None:
            self.step, self.done = progress["step"], progress["done"]
            self.validation.history, self.validation.best = progress["history"], progress["best"]
            self._running = [variable.numpy() for variable in trainer.metrics_variables]
            log.info("Going on after step %d.", self.step)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set the running means again, which `fit` has just cleared."""
        for variable, value in zip(self.model.metrics_variables, self._running, strict=False):
            variable.assign(value)
        self._running = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Write where it is time to."""
        self.step += 1
        self.validation.request.look(self.step)
        if _last(self, batch):
            return  # what validation makes of it belongs into its checkpoint
        asked = self.every and self.step % self.every == 0
        if self._preempted or asked or time.monotonic() - self._written > self.EVERY_S:
            self._save()
        self._stop_if_preempted()

    def finish_epoch(self, last: bool) -> None:
        """Write what validation made of the epoch."""
        self.model.reset_metrics()  # the next epoch's running means begin at nothing
        self.done = last
        self._save()
        self.validation.forget_worse()
        if not last:
            self._stop_if_preempted()

    @property
    def _preempted(self) -> bool:
        return self.validation.request.received is signal.SIGTERM

    def _stop_if_preempted(self) -> None:
        if self._preempted:
            raise Preempted(f"SIGTERM: training stopped after step {self.step}, and a checkpoint "
                            f"lies in {self.checkpoints.folder}. The same command with --resume "
                            "goes on.")

    def _save(self) -> None:
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        self.checkpoints.save(self.model, self.step, {
            "done": self.done, "history": self.validation.history, "best": self.validation.best})
        self._written = time.monotonic()


def _last(callback: keras.callbacks.Callback, batch: int) -> bool:
    return batch + 1 == callback.params["steps"]


class Scalars(keras.callbacks.Callback):
    """Tracks loss, learning rate and validation scores."""

    def __init__(self, tracker: Tracker, validation: Validation, start: int, every: int = 10):
        super().__init__()
        self.tracker, self.validation, self.every, self.step = tracker, validation, every, start

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Track every few steps."""
        self.step += 1
        if self.step % self.every == 0:
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            self.tracker.scalars(self.step, {"train/loss": float(logs["loss"]),
                                             "train/learning_rate": rate})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Track the validation scores."""
        row = self.validation.history[-1]
        if row["epoch"] == epoch + 1:  # an epoch that was cut short may have none
            self.tracker.scalars(self.step, {
                f"validation/{name}": value for name, value in row.items()
                if name not in ("epoch", "train_loss")})


class Profiler(keras.callbacks.Callback):
    """Records some steps for TensorBoard's profiler, past those that trace and compile."""

    AFTER: ClassVar[int] = 20

    def __init__(self, folder: Path, steps: int):
        super().__init__()
        self.folder, self.steps, self.step = folder, steps, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Start and stop."""
        self.step += 1
        if self.steps and self.step == self.AFTER:
            _profiler()[0](str(self.folder))
        elif self.step == self.AFTER + self.steps:
            self.close()

    def close(self) -> None:
        """Write what was recorded, also of a training that ended before."""
        recorded = min(self.step - self.AFTER, self.steps)
        if self.steps and recorded >= 0:
            _profiler()[1]()
            log.info("Recorded %d steps: tensorboard --logdir %s", recorded, self.folder)
        elif self.steps:
            log.warning("--profile-steps is %d, and records from step %d on; training ended after "
                        "%d. Give more --epochs.", self.steps, self.AFTER, self.step)
        self.steps = 0


def _profiler() -> tuple[Callable[[str], Any], Callable[[], Any]]:
    if keras.backend.backend() == "jax":
        import jax

        return jax.profiler.start_trace, jax.profiler.stop_trace
    import tensorflow as tf

    return tf.profiler.experimental.start, tf.profiler.experimental.stop
