"""Where to train: the only file that asks the frameworks for their devices."""

import importlib.metadata
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import Precision
from .errors import UserError
from .install import pip_install, pip_install_file

log = logging.getLogger(__name__)


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
    if name.startswith("CPU") and (idle := idle_gpu(backend)):
        log.warning("GPU %s is not used: %s. Try: %s", idle.name, idle.reason, idle.cure)
    return Device(f"{name} ({backend})", best if precision == "auto" else precision)


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn a step's want of memory, on whichever device, into one line that ends with `advice`."""
    import keras
    import tensorflow as tf

    known: tuple[type[Exception], ...] = (MemoryError, tf.errors.ResourceExhaustedError)
    if keras.backend.backend() == "jax":
        import jax

        known += (jax.errors.JaxRuntimeError,)  # of every status
    try:
        yield
    except known as error:
        if isinstance(error, known[:2]) or "RESOURCE_EXHAUSTED" in str(error):
            raise UserError(f"The memory does not suffice {advice}") from error
        raise


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


@dataclass(frozen=True)
class IdleGpu:
    """A GPU that this machine has and training would not use."""

    name: str
    reason: str
    cure: str  # a command line


def gpus(root: Path = Path("/"), path: str | None = None) -> list[str]:
    """Name the NVIDIA GPUs that the system shows, whether or not a framework can use them.

    `root` is the file system to look at, `path` the folders of `nvidia-smi` in it (default: PATH).
    """
    names = []
    for file in sorted(root.glob("proc/driver/nvidia/gpus/*/information")):
        found = re.search(r"Model:\s*(.+)", file.read_text("utf-8", "replace"))
        names.append(found[1].strip() if found else "NVIDIA")
    if not names:
        names = ["NVIDIA" for _ in _device_files(root)]
    if not names and (program := _nvidia_smi(root, path)):
        # As under WSL, which has neither the files nor the devices.
        try:
            listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=10,
                                    check=False).stdout
        except (OSError, subprocess.TimeoutExpired):
            return []
        names = re.findall(r"^GPU \d+: (.+?)(?: \(|$)", listed, re.MULTILINE)
    return names


def _device_files(root: Path) -> list[Path]:
    return sorted(root.glob("dev/nvidia[0-9]*"))


def _nvidia_smi(root: Path, path: str | None) -> str | None:
    path = os.environ.get("PATH", os.defpath) if path is None else path
    folders = [*path.split(os.pathsep), "/usr/lib/wsl/lib"]
    return shutil.which("nvidia-smi", path=os.pathsep.join(
        str(root / folder.lstrip("/")) for folder in folders if folder))


def idle_gpu(backend: str = "", root: Path = Path("/"),
             environment: Mapping[str, str] = os.environ) -> IdleGpu | None:
    """Say why a GPU that is here cannot be used, from files and metadata; None without a GPU.

    Only to be asked when the frameworks found none: it does not look at them.
    """
    names = gpus(root, environment.get("PATH", os.defpath))
    if not names:
        return None
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return IdleGpu(names[0], f"CUDA_VISIBLE_DEVICES={visible!r} hides it",
                       "unset CUDA_VISIBLE_DEVICES")
    if (root / "proc/driver/nvidia").exists() and not _device_files(root):
        return IdleGpu(names[0], "its device files are not in this container",
                       "docker run --gpus all IMAGE")
    if (backend or environment.get("KERAS_BACKEND")) == "jax":
        return IdleGpu(names[0], "JAX finds no CUDA", pip_install("jax[cuda12]"))
    if not _has_cuda_wheels():
        return IdleGpu(names[0], "TensorFlow is installed without the CUDA libraries",
                       pip_install_file("requirements-gpu.txt"))
    return IdleGpu(names[0], "the CUDA libraries are installed, and the driver does not answer",
                   "nvidia-smi")


def _has_cuda_wheels() -> bool:
    """Look for what the extra of requirements-gpu.txt installs, as TensorFlow's metadata says."""
    try:
        asked = importlib.metadata.requires("tensorflow") or []
        names = [re.match(r"[\w.-]+", line) for line in asked if "and-cuda" in line]
        for name in filter(None, names):
            importlib.metadata.version(name[0])
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
