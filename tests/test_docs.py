"""docs/: every command and Python block runs, in the order of a reader; what is quoted is there."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import export
import serving
import tf_pipeline
from export.cli import main as export_main
from serving.cli import main as serving_main
from tests.conftest import ROOT
from tests.documents import blocks, reading
from tf_pipeline.cli import main as tf_pipeline_main

PAGES = sorted((ROOT / "docs").glob("*.md"))
# Whose files a page goes on with.
BEFORE = {"train": (), "export": ("train",), "phone": ("train",), "browser": ("train", "export"),
          "tf_serving": ("train", "export"), "batch": ("train", "export"),
          "operating": ("train", "export"), "serving": ("train", "export")}
RUN = sorted((page for page in PAGES if blocks(page)),
             key=lambda page: (*BEFORE, page.stem).index(page.stem))
FOREIGN_FLAGS = {"--noproxy", "--gpus", "--logdir", "--enable_batching", "--enable-batching",
                 "--enable_model_warmup", "--python", "--ignore-scripts", "--directory", "--bind"}


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], None]]:
    """Give a function that follows a page once, after those that it builds upon."""
    done: set[str] = set()
    with reading(tmp_path_factory.mktemp("desk")) as desk:
        def follow(name: str) -> None:
            for before in BEFORE.get(name, ()):
                follow(before)
            if name not in done:
                desk.follow(ROOT / "docs" / f"{name}.md")
                done.add(name)

        yield follow


@pytest.mark.slow  # all build on what docs/train.md trains
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_every_block_runs(page: Path, read: Callable[[str], None]) -> None:
    read(page.stem)


@pytest.mark.parametrize(("code", "said"), [
    ("```\nls\n```\n", "page.md:2: who runs 'ls'"),
    ("# A page\n```sh\npython -m export inspect \\\n  nothing\n```\n", "nothing does not exist"),
    ("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", 'page.md", line 6'),
    ("```text\nls\n```\n", ""),
], ids=["unknown", "failing", "python", "text"])
def test_what_does_not_run_is_found(code: str, said: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(code, "utf-8")
    with reading(tmp_path) as desk:
        if said:
            with pytest.raises(AssertionError, match=re.escape(said)):
                desk.follow(page)
        else:
            desk.follow(page)


def prose(page: Path) -> str:
    """Give a page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)


def messages() -> list[str]:
    """Give every text in the code, with `\0` in the place of each value."""
    found = []
    for room in ("tf_pipeline", "export", "serving"):
        for file in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(file.read_text("utf-8"))
            documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(part.value if isinstance(part, ast.Constant) else "\0"
                                         for part in node.values))
                elif (isinstance(node, ast.Constant) and isinstance(node.value, str)
                      and id(node) not in documents):
                    found.append(re.sub(r"%(s|d|r|g|\.\d+[fe])", "\0", node.value))
    return found


def quoted(page: str, start: str, end: str) -> list[str]:
    """Give the code in the first cells of a page's tables, between two headings."""
    text = (ROOT / "docs" / page).read_text("utf-8").partition(f"\n{start}\n")[2]
    rows = re.findall(r"^\| (`.*?`) \|", text.partition(f"\n{end}\n")[0], re.M)
    return [code for row in rows for code in re.findall(r"`(.+?)`", row)]


def test_quoted_messages_stand_in_the_code() -> None:
    known = messages()
    ours = quoted("troubleshooting.md", "## Messages of the kit", "## From outside")
    assert len(ours) > 40
    patterns = {message: ".+?".join(map(re.escape, message.split("..."))) for message in ours}
    assert [message for message, pattern in patterns.items()
            if not any(re.search(pattern, text, re.S) for text in known)] == []


def test_flags_in_the_text_exist(capsys: pytest.CaptureFixture[str]) -> None:
    words = set(FOREIGN_FLAGS)
    for main, verbs in ((tf_pipeline_main, ("train --task classify", "train --task tag",
                                            "train --task embed", "train --task mlm",
                                            "vocabulary", "trim", "predict", "evaluate", "import",
                                            "doctor")),
                        (export_main, ("convert", "verify", "inspect")),
                        (serving_main, ("", "tf-serving", "web", "batch", "add", "rollback",
                                        "label"))):
        for verb in verbs:
            with pytest.raises(SystemExit):
                main([*verb.split(), "--help"])
            words |= set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    for page in (*PAGES, ROOT / "README.md"):
        for code in re.findall(r"`([^`\n]+)`", prose(page)):
            for flag in re.findall(r"(?<!\S)--[a-z][\w-]*", code):
                assert flag in words, f"{page.name}: {flag} in `{code}`"


def test_links_lead_somewhere() -> None:
    for page in (*PAGES, ROOT / "README.md"):
        for link in re.findall(r"\]\((?!http)([^)]+)\)", prose(page)):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), f"{page.name}: {link}"
            headings = re.findall(r"^#+ (.+)$", prose(target), re.M) if anchor else []
            anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert not anchor or anchor in anchors, f"{page.name}: {link}"
    index = (ROOT / "docs/README.md").read_text("utf-8")
    assert all(page.name == "README.md" or f"({page.name})" in index for page in PAGES)


@pytest.mark.parametrize("package", [tf_pipeline, export, serving], ids=lambda p: p.__name__)
def test_every_public_name_is_explained(package: ModuleType) -> None:
    text = (ROOT / "docs/python.md").read_text("utf-8")
    table = text.partition(f"| from `{package.__name__}` |")[2].partition("\n\n")[0]
    explained = set(re.findall(r"^\| `(\w+)", table, re.M))
    assert explained == set(package.__all__)
    code = "\n".join(block.code for block in blocks(ROOT / "docs/python.md"))
    assert all(re.search(rf"\b{name}\b", code) for name in package.__all__)
