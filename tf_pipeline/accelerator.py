"""Where to train: the only file that asks the frameworks for their devices."""

import os
from dataclasses import dataclass
from typing import Any

from .config import Precision


@dataclass(frozen=True)
class Device:
    """What training runs on, in words, and the number format that suits it."""

    name: str
    precision: str  # a Keras dtype policy


def choose(precision: Precision) -> Device:
    """Look at the backend's devices and settle `auto`; called once by training.fit."""
    import keras

    backend = keras.backend.backend()
    name, best = _jax() if backend == "jax" else _tensorflow()
    return Device(f"{name} ({backend})", best if precision == "auto" else precision)


def _cpu() -> tuple[str, str]:
    # bfloat16 brings little at fine-tuning's small batches and costs casts (measured on AVX512).
    return f"CPU, {os.cpu_count()} cores", "float32"


def _tensorflow() -> tuple[str, str]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return _cpu()
    details: dict[str, Any] = tf.config.experimental.get_device_details(gpus[0])
    # Tensor cores know bfloat16 since Ampere (8.0); before that only float16, with loss scaling.
    ampere = details.get("compute_capability", (0, 0)) >= (8, 0)
    return (f"GPU {details.get('device_name', '')}".strip(),
            "mixed_bfloat16" if ampere else "mixed_float16")


def _jax() -> tuple[str, str]:
    import jax
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # tf.data feeds; the accelerator belongs to JAX
    device = jax.devices()[0]
    if device.platform == "cpu":
        return _cpu()
    return f"{jax.device_count()} x {device.device_kind}", "mixed_bfloat16"
