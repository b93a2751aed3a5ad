"""The other side's software, each in an environment of its own, made once: `.platforms/NAME`."""

import shutil
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
        asked = _with_included(requirements)
        python, stamp = folder / "bin" / "python", folder / "installed"
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not stamp.exists() or stamp.read_text() != asked:
                subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
                subprocess.run([python, "-m", "pip", "install", "-qq", "-r", requirements],
                               check=True)
                stamp.write_text(asked)  # last: it is whole
        return python

    return make


def _with_included(requirements: Path) -> str:
    """Give a requirements file with the text of those that it includes."""
    text = requirements.read_text()
    included = [line.split()[1] for line in text.splitlines() if line.startswith("-r ")]
    return "".join([text, *(_with_included(requirements.parent / name) for name in included)])


@pytest.fixture(scope="session")
def npm_folder() -> Callable[[str], Path]:
    """Give a copy of a folder of tests/platforms with the packages of its package-lock.json."""
    def make(name: str) -> Path:
        source, folder = HERE / name, ROOT / ".platforms" / name
        stamp, wanted = folder / "installed", (source / "package-lock.json").read_text("utf-8")
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            shutil.copytree(source, folder, dirs_exist_ok=True)
            if not stamp.exists() or stamp.read_text("utf-8") != wanted:
                # Without scripts: onnxruntime-node's would download CUDA, and the CPU's library
                # is in the package.
                subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                               cwd=folder, check=True)
                stamp.write_text(wanted, "utf-8")  # last: it is whole
        return folder

    return make
