"""The shape of the code: the import star, sizes, and nothing on import."""

import ast
import importlib
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROOMS = ("tf_pipeline", "export", "serving")
FILES = [p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))]


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_form_a_star(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    allowed = {"tf_pipeline"} - {room}
    for name in imported(ast.parse(path.read_text("utf-8"))):
        top = name.partition(".")[0]
        assert top not in ROOMS or top in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_sizes(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 50, f"{path}:{node.lineno} {node.name} has {lines} lines"
            names = [a.arg for a in (*node.args.args, *node.args.kwonlyargs)]
            count = len([n for n in names if n not in ("self", "cls")])
            assert count <= 6, f"{path}:{node.lineno} {node.name} takes {count} parameters"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_broad_except(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or getattr(node.type, "id", "") == "Exception"
            assert not broad, f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_inside_a_room_are_relative(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for name in imported(ast.parse(path.read_text("utf-8"))):
        assert name.partition(".")[0] != room, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_user_error_says_the_value_or_that_there_is_none(path: Path) -> None:
    without = ("missing", "empty", "0 rows", "contradict", "nested too deep", "no WordPiece")
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
            continue
        if getattr(node.exc.func, "id", "") in ("UserError", "ParityError"):
            message = ast.unparse(node.exc.args[0])
            quotes = "{" in message or not isinstance(node.exc.args[0], ast.Constant)
            assert quotes or any(w in message for w in without), f"{path}:{node.lineno}"


def test_tests_are_short_enough_to_read() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        assert len(path.read_text("utf-8").splitlines()) <= 400, path


def test_importing_does_nothing() -> None:
    modules = ["tf_pipeline", "tf_pipeline.cli", "tf_pipeline.artifact", "tf_pipeline.doctor",
               "tf_pipeline.predictor", "tf_pipeline.run", "export", "export.cli", "serving",
               "serving.cli", "serving.server"]
    code = ("import json, logging, os, sys\nbefore = dict(os.environ)\n"
            + "".join(f"import {m}\n" for m in modules) +
            "heavy = [m for m in ('tensorflow', 'keras', 'sklearn', 'matplotlib')"
            " if m in sys.modules]\n"
            "print(json.dumps([heavy, logging.root.handlers, before == dict(os.environ)]))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert json.loads(done.stdout) == [[], [], True]


@pytest.mark.parametrize("room", ROOMS)
def test_help_is_quick(room: str) -> None:
    """In seconds of the processor: what else the machine does meanwhile is not counted."""
    times = []
    for _ in range(5):
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", room, "--help"], cwd=ROOT, check=True,
                       capture_output=True)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime)
    assert min(times) < 0.3


@pytest.mark.parametrize("room", ROOMS)
def test_the_public_names_are_there_and_say_what_they_are(room: str) -> None:
    package = importlib.import_module(room)
    for name in package.__all__:
        assert getattr(package, name).__doc__, name
    with pytest.raises(AttributeError, match=f"module '{room}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018
