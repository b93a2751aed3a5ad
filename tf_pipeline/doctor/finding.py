"""What the doctor says: a finding, and how commands that cure are written."""

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Area = Literal["training", "export", "serving"]
Level = Literal["ok", "warning", "error"]
AREAS: tuple[Area, ...] = ("training", "export", "serving")
ROOT = Path(__file__).parents[2]  # the checkout


@dataclass(frozen=True)
class Finding:
    """One thing looked at; an error means that its areas would not work."""

    areas: tuple[Area, ...]
    level: Level
    what: str
    value: str  # what was found
    cure: str = ""  # a command line; empty only when all is well


def python() -> str:
    """Name this Python so that the command can be copied: `python` where the shell finds it."""
    found = shutil.which("python")
    same = found is not None and os.path.abspath(found) == os.path.abspath(sys.executable)
    return "python" if same else shlex.quote(sys.executable)


def pip_install(*words: str) -> str:
    """Write the command that installs into this Python."""
    return f"{python()} -m pip install {shlex.join(words)}"


def pip_install_file(name: str) -> str:
    """Write the command that installs a requirements file of the checkout."""
    path = ROOT / name
    return pip_install("-r", name if Path.cwd() == ROOT else str(path))
