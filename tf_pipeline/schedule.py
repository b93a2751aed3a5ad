"""The learning rate of each step."""

from typing import Any

import keras
from keras import ops


class WarmupAndDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to the peak, then falls linearly to 0 at the last step."""

    def __init__(self, peak: float, warmup_steps: int, total_steps: int):
        super().__init__()
        self.peak, self.warmup, self.total = peak, max(warmup_steps, 1), total_steps

    def __call__(self, step: Any) -> Any:
        """Give the rate of the step after so many, of one or of several at once."""
        step = ops.cast(step, "float32")
        rising = (step + 1) / self.warmup
        falling = (self.total - step) / max(self.total - self.warmup, 1)
        return self.peak * ops.clip(ops.minimum(rising, falling), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Give the constructor's arguments."""
        return {"peak": self.peak, "warmup_steps": self.warmup, "total_steps": self.total}
