"""What happens around `model.fit`: validation, early stopping, signals, progress, TensorBoard."""

import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from . import plots, run
from .errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


class StopRequest:
    """Whether SIGINT or SIGTERM asked training to end; the second one ends it at once."""

    received: signal.Signals | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request, inside the block only."""
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

    def __init__(self, request: StopRequest):
        super().__init__()
        self.request = request
        self.bar: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Open the bar."""
        from tqdm import tqdm

        self.bar = tqdm(total=self.params["epochs"] * self.params["steps"], unit="step",
                        desc="training", dynamic_ncols=True, mininterval=0.5)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Name the epoch."""
        self.epoch = epoch
        self.bar.set_description(f"epoch {epoch + 1}/{self.params['epochs']}")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Advance, and end training where it must end."""
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise UserError(f"The loss is {loss} at step {batch + 1} of epoch {self.epoch + 1}: "
                            "training has diverged. Lower --learning-rate (3e-5 is safe for most "
                            "checkpoints) or --clip-norm, or pass --precision float32.")
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update()
        if self.request.received:
            self.model.stop_training = True

    def close(self) -> None:
        """End the bar's line; training that failed never calls on_train_end."""
        if self.bar is not None:
            self.bar.close()


class Validation(keras.callbacks.Callback):
    """Scores each epoch's weights, keeps the best on disk, and stops when they stay the best."""

    def __init__(self, score: Callable[[], dict[str, Any]], metric: str, patience: int,
                 folder: Path, request: StopRequest):
        super().__init__()
        self.score, self.metric, self.patience = score, metric, patience
        self.weights_file, self.state_file = folder / "best.weights.h5", folder / "state.json"
        self.request = request
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Validate; on a signal also the unfinished epoch, if there is nothing better yet."""
        if self.request.received and self.best:
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
            self._keep()
        elif row["epoch"] - self.best["epoch"] >= self.patience:
            log.info("No better %s for %d epochs: stopping.", self.metric, self.patience)
            self.model.stop_training = True

    def _keep(self) -> None:
        run.save_weights(keras.Model(self.model.input, self.model.output), self.weights_file)
        self.state_file.write_text(json.dumps({"best": self.best, "written": time.time()}))

    def restore(self, model: keras.Model) -> None:
        """Load the best weights."""
        model.load_weights(self.weights_file)


class Scalars(keras.callbacks.Callback):
    """Writes loss, learning rate and validation scores for TensorBoard."""

    def __init__(self, folder: Path, validation: Validation, every: int = 10):
        super().__init__()
        self.folder, self.validation, self.every = folder, validation, every
        self.step = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Open the event file."""
        import tensorflow as tf

        self.summary = tf.summary
        self.writer = tf.summary.create_file_writer(str(self.folder))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Write every few steps."""
        self.step += 1
        if self.step % self.every == 0:
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            self._write({"train/loss": float(logs["loss"]), "train/learning_rate": rate})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the validation scores."""
        row = self.validation.history[-1] if self.validation.history else {}
        self._write({f"validation/{name}": value for name, value in row.items()
                     if name not in ("epoch", "train_loss")})

    def on_train_end(self, logs: Any = None) -> None:
        """Close the event file."""
        self.writer.close()

    def _write(self, scalars: dict[str, float]) -> None:
        with self.writer.as_default(step=self.step):
            for name, value in scalars.items():
                self.summary.scalar(name, value)
        self.writer.flush()


def write_summary(folder: Path, scores: dict[str, Any], figures: "dict[str, Figure]",
                  step: int) -> None:
    """Add the test scores and the pictures to what TensorBoard shows."""
    import tensorflow as tf

    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=step):
        for name, value in scores.items():
            if isinstance(value, float):
                tf.summary.scalar(f"test/{name}", value)
        for name, figure in figures.items():
            tf.summary.image(name, tf.io.decode_png(plots.encode(figure, "png"))[None])
    writer.close()
