"""Commands that install into this Python, written so that they can be copied."""

import os
import shlex
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]  # the checkout


def python() -> str:
    """Name this Python: `python` where the shell finds the same, else its path."""
    found = shutil.which("python")
    same = found is not None and os.path.abspath(found) == os.path.abspath(sys.executable)
    return "python" if same else shlex.quote(sys.executable)


def pip_install(*words: str) -> str:
    """Write the command that installs packages; a bare `pip` may belong to another Python."""
    return f"{python()} -m pip install {shlex.join(words)}"


def pip_install_file(name: str) -> str:
    """Write the command that installs a requirements file of the checkout."""
    return pip_install("-r", name if Path.cwd() == ROOT else str(ROOT / name))
