"""Which NVIDIA GPUs a machine has, and why training would not use them; asks no framework."""

import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .install import pip_install, pip_install_file


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
