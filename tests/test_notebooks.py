"""Both notebooks from their first cell to their last, on the CPU, with settings that take seconds.

Only values of the settings cell are changed. Cloning, installing and every command are real; what
is installed is a wheel that leads to the packages of this test.
"""

import asyncio
import csv
import hashlib
import json
import os
import random
import re
import subprocess
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.conftest import BAD, GOOD, ROOT

BACKENDS = {"gpu": "tensorflow", "tpu": "jax"}
# A repository set by a git hook that runs the tests is not ours, and accelerators are hidden.
ENVIRONMENT = {**{name: value for name, value in os.environ.items() if name[:4] != "GIT_"},
               "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu",
               "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def path_of(kind: str) -> Path:
    return ROOT / "notebooks" / f"colab_{kind}.ipynb"


def read(kind: str, **changes: Any) -> nbformat.NotebookNode:
    """Read a notebook and change values in its settings cell."""
    notebook = nbformat.read(path_of(kind), as_version=4)
    settings = next(cell for cell in notebook.cells if cell.id == "settings")
    for name, value in changes.items():
        line = f"{name} = {value!r}".replace("\\", r"\\")
        settings.source, count = re.subn(rf"^{name} = .*$", line, settings.source,
                                         flags=re.MULTILINE)
        assert count == 1, name
    return notebook


async def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run all cells in `folder` with the Python of this test, whatever kernels are installed."""
    kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    client = NotebookClient(notebook, km=kernel, timeout=300,
                            resources={"metadata": {"path": str(folder)}})
    return await client.async_execute(
        cleanup_kc=True, env={**ENVIRONMENT, "IPYTHONDIR": str(folder / "ipython")})


def outputs(notebook: nbformat.NotebookNode) -> str:
    return "".join(output.text for cell in notebook.cells if cell.cell_type == "code"
                   for output in cell.outputs if output.output_type == "stream")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Commit the files of this checkout, as they are, to a repository that can be cloned."""
    folder = tmp_path_factory.mktemp("repository") / "kit.git"
    settings = ("user.name=tests", "user.email=tests@localhost", "commit.gpgsign=false",
                "core.hooksPath=/dev/null")
    git = ["git", f"--git-dir={folder}", f"--work-tree={ROOT}",
           *(word for setting in settings for word in ("-c", setting))]
    for words in (["init", "-q", "--initial-branch=trunk"], ["add", "-A"],
                  ["commit", "-q", "-m", "The files under test"]):
        subprocess.run([*git, *words], cwd=ROOT, env=ENVIRONMENT, check=True)
    return folder


@pytest.fixture(scope="module")
def requirements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name a wheel that adds the packages of this Python to the environment it is installed in."""
    folder = tmp_path_factory.mktemp("requirements")
    files = {"packages_here.pth": sysconfig.get_path("purelib"),
             "packages_here-1.dist-info/METADATA":
                 "Metadata-Version: 2.1\nName: packages-here\nVersion: 1\n",
             "packages_here-1.dist-info/WHEEL":
                 "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = "packages_here-1.dist-info/RECORD"
    files[record] = "".join(f"{name},,\n" for name in (*files, record))
    wheel = folder / "packages_here-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    (folder / "requirements.txt").write_text(f"{wheel}\n")
    return folder / "requirements.txt"


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write texts of one length, since JAX compiles for each length, under column names of ours."""
    path, choose = tmp_path_factory.mktemp("data") / "reviews.csv", random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["review", "stars"])
        for number in range(1000):
            stars, words = choose.choice((("good", GOOD), ("bad", BAD)))
            writer.writerow([f"{choose.choice(words)} is what I say, {number}", stars])
    return path


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory, repository: Path, requirements: Path,
             reviews: Path) -> dict[str, tuple[nbformat.NotebookNode, Path]]:
    """Execute both, side by side."""
    small = {"REPOSITORY": str(repository), "TRAIN": f"csv:{reviews}?text=review&label=stars",
             "BACKBONE": "tiny", "MAX_LEN": 16, "EPOCHS": 3, "LEARNING_RATE": 5e-3,
             "NAME": "small", "TEXTS": ["lovely is what I say", "a mess is what I say"],
             "REQUIREMENTS": str(requirements)}
    changes = {"gpu": {**small, "REVISION": "trunk", "REQUIRE_GPU": False},
               "tpu": {**small, "REQUIRE_TPU": False}}
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in changes}

    async def both() -> list[nbformat.NotebookNode]:
        return await asyncio.gather(*(execute(read(kind, **changes[kind]), folders[kind])
                                      for kind in changes))

    return {kind: (notebook, folders[kind])
            for kind, notebook in zip(changes, asyncio.run(both()), strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BACKENDS)
def test_from_git_clone_to_an_archive(
        kind: str, executed: dict[str, tuple[nbformat.NotebookNode, Path]]) -> None:
    notebook, folder = executed[kind]
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    text = outputs(notebook)
    archive = folder / "artifacts" / "small.zip"
    assert text.endswith(f"Wrote {archive}\n")
    with zipfile.ZipFile(archive) as opened:
        files = {name.removeprefix("small/"): hashlib.sha256(opened.read(name)).hexdigest()
                 for name in opened.namelist() if not name.endswith("/")}
        manifest = json.loads(opened.read("small/manifest.json"))
    assert files.pop("manifest.json")
    assert files == {name: entry["sha256"] for name, entry in manifest["files"].items()}
    assert len(manifest["graphs"]) == 5
    for graph in manifest["graphs"]:
        assert f"\n| {graph['path']} " in text  # a row of the table
        assert f"\n{graph['path']}: same answers on" in text
    run = json.loads((folder / "runs" / "small" / "run.json").read_text("utf-8"))
    assert run["device"].endswith(f"({BACKENDS[kind]})")


@pytest.mark.slow
@pytest.mark.parametrize("kind", BACKENDS)
def test_the_reader_sees_data_pictures_and_answers(
        kind: str, executed: dict[str, tuple[nbformat.NotebookNode, Path]]) -> None:
    notebook, folder = executed[kind]
    text = outputs(notebook)
    assert re.search(rf" device +CPU, \d+ cores \({BACKENDS[kind]}\)\n", text)  # doctor
    assert "\ncut at 16 " in text  # the data report
    pictures = [output for cell in notebook.cells if cell.cell_type == "code"
                for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 4
    assert (folder / "runs" / "small.html").stat().st_size > 1000
    for label, question in (("good", "lovely is what I say"), ("bad", "a mess is what I say")):
        # From the ONNX file and from the int8 TFLite file.
        assert len(re.findall(rf"^{label}\t0\.\d{{4}}\t{question}$", text, re.MULTILINE)) == 2
    assert text.count("{'label': ") == 2  # from Python


@pytest.mark.parametrize("kind", BACKENDS)
def test_as_it_stands_it_asks_for_the_address(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CellExecutionError, match="REPOSITORY is 'https://github.com/OWNER/"):
        asyncio.run(execute(read(kind), tmp_path))


@pytest.mark.parametrize("kind", BACKENDS)
def test_without_the_accelerator_it_says_how_to_get_one(kind: str, repository: Path,
                                                        requirements: Path, tmp_path: Path) -> None:
    notebook = read(kind, REPOSITORY=str(repository), REQUIREMENTS=str(requirements))
    with pytest.raises(CellExecutionError, match=f"There is no {kind.upper()}. Choose one with"):
        asyncio.run(execute(notebook, tmp_path))


def test_a_failed_command_stops_it(repository: Path, tmp_path: Path) -> None:
    notebook = read("tpu", REPOSITORY=str(repository), REQUIREMENTS="no-such-file.txt")
    with pytest.raises(CellExecutionError, match=r"Exit code 1, .* install -q -r .*no-such-file"):
        asyncio.run(execute(notebook, tmp_path))
    assert "Could not open requirements file" in outputs(notebook)
    assert "tf_pipeline doctor" not in outputs(notebook)


@pytest.mark.parametrize("kind", BACKENDS)
def test_the_file_is_clean(kind: str) -> None:
    text = path_of(kind).read_text("utf-8")
    notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert text == nbformat.writes(notebook) + "\n"
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert "\nREPOSITORY = " in code[0].source
    assert code[0].metadata.tags == ["parameters"]
    for cell in notebook.cells:
        assert not re.search(r"\bmake\b", cell.source), cell.id
        assert all(len(line) <= 100 for line in cell.source.splitlines()), cell.id
