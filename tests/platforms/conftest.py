"""The other side's software, each in an environment of its own, made once: `.platforms/NAME`."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.chromium import browser  # noqa: F401
from tests.conftest import ROOT

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def environment() -> Callable[[str], Path]:
    """Give the Python of an environment with what `NAME.txt` lists."""
    def make(name: str) -> Path:
        requirements, folder = HERE / f"{name}.txt", ROOT / ".platforms" / name
        python, stamp = folder / "bin" / "python", folder / "installed"
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not stamp.exists() or stamp.read_text() != requirements.read_text():
                subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
                subprocess.run([python, "-m", "pip", "install", "-qq", "-r", requirements],
                               check=True)
                stamp.write_text(requirements.read_text())  # last: it is whole
        return python

    return make
