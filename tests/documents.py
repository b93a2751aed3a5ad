"""Runs what a document shows: its commands, requests and Python blocks, in their order.

A fence without a language, or of `sh`, holds commands; `python` holds Python, and `json` the
answer to the request just above it. Any other language (`text`, `js`, ...) is not run. Adjacent
Python blocks are one program. `reading(...)` makes the folder in which a reader follows a page.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from tests.conftest import (
    ROOT,
    opinions,
    pairs,
    routes,
    shades,
    travels,
    write_conll,
    write_csv,
    write_lines,
)

# What the reader has and a test has not: a checkpoint of 83 MB, and minutes. `tiny` learns from
# scratch, so it needs higher rates.
STAND_INS = {
    "--backbone minilm --max-len 64 --out prepared": "--backbone tiny --max-len 64 --out prepared",
    "--backbone minilm": "--backbone tiny --epochs 4 --batch-size 16 --learning-rate 5e-3",
    'backbone="minilm"': 'backbone="tiny", batch_size=16, learning_rate=5e-3',
}
_VERBS = {"add", "rollback", "label", "tf-serving", "web", "batch"}  # others serve until stopped
SERVER = re.compile(r"http://127\.0\.0\.1:\d+")
FENCE = re.compile(r"^```([\w-]*)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its first line of code."""

    language: str
    code: str
    line: int

    @property
    def is_shell(self) -> bool:
        return self.language in ("", "sh")

    def commands(self) -> list[str]:
        """Give the command lines, each whole, without comments."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]


def blocks(page: Path) -> list[Block]:
    """Give a page's fenced blocks, in order."""
    text = page.read_text("utf-8")
    return [Block(found[1], found[2], text.count("\n", 0, found.start(2)) + 1)
            for found in FENCE.finditer(text)]


def shape(value: Any) -> Any:
    """Give the keys and types of a JSON value: what a documented answer promises."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


class Desk:
    """A reader's folder with data files, and the one server that the reader has running."""

    def __init__(self, folder: Path, stand_ins: Mapping[str, str]):
        self.folder, self.stand_ins = folder, stand_ins
        self.server: subprocess.Popen[str] | None = None
        self.url = ""
        self.ran: list[str] = []
        self.answers: list[Any] = []  # of the servers, in order
        tools = Path(sys.executable).parent
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1",
                            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}

    def fill(self) -> None:
        """Write the data files that the pages name."""
        write_csv(self.folder / "reviews.csv", opinions(1000))
        write_csv(self.folder / "test.csv", opinions(60, seed=1))
        for name, field in (("posts", "labels"), ("marks", "score")):
            write_csv(self.folder / f"{name}.csv",
                      [{"text": row["text"], field: row[field]} for row in shades(200)])
        write_csv(self.folder / "pairs.csv", pairs(200))
        write_csv(self.folder / "questions.csv", routes())
        write_csv(self.folder / "texts.csv", [{"text": row["text"]} for row in opinions(50)])
        write_csv(self.folder / "stars.csv", [{"review": row["text"], "stars": row["label"]}
                                              for row in opinions(200, seed=2)])
        write_lines(self.folder / "corpus.txt", [row["text"] for row in opinions(600)])
        (self.folder / "names").mkdir()
        write_conll(self.folder / "names" / "train.txt", travels(300))
        write_conll(self.folder / "names" / "dev.txt", travels(60, seed=1))
        shutil.copytree(ROOT / "tests/data/transformers_classify", self.folder / "my-bert")

    def follow(self, page: Path, python: bool = True, shell: bool = True) -> None:
        """Run a page from its first block to its last."""
        for language, group in groupby(blocks(page), lambda block: block.language):
            some = list(group)
            if language == "python" and python:
                self._program(page, some)
            elif some[0].is_shell and shell:
                for block in some:
                    for line in block.commands():
                        self._command(page, block, line)
            elif language == "json":
                (block,) = some
                documented, answer = json.loads(block.code), self.answers[-1]
                assert shape(documented) == shape(answer), f"{page.name}:{block.line}: {answer}"

    def stop(self) -> None:
        """End the server."""
        if self.server is not None:
            self.server.terminate()
            self.server.communicate(timeout=30)
            self.server = None

    def _moved(self, code: str) -> str:
        for words, others in self.stand_ins.items():
            code = code.replace(words, others)
        return SERVER.sub(self.url, code) if self.url else code

    def _command(self, page: Path, block: Block, line: str) -> None:
        """Run one line."""
        line = self._moved(line)
        self.ran.append(line)
        where, first = f"{page.name}:{block.line}", line.split()[0]
        assert first in ("python", "curl", "make", "printf"), f"{where}: who runs {line!r}?"
        verb = line.split()[3:4]
        if verb == ["web"] and line.startswith("python -m serving") and not shutil.which("npm"):
            line = f"{line} 2>&1 | grep '^error: npm is missing'"
        elif line.startswith("python -m serving") and not set(verb) & _VERBS:
            self._serve(line)
            return
        if first == "curl":
            self.answers.append(self._ask(line))
            return
        if first == "make":  # only whether there is such a target
            line = f"make -n -C {ROOT} {line.removeprefix('make ')}"
        done = subprocess.run(["sh", "-c", line], cwd=self.folder, env=self.environment, text=True,
                              capture_output=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{where}: {line}\n{done.stdout[-500:]}{done.stderr[-2000:]}"

    def _program(self, page: Path, some: list[Block]) -> None:
        """Run blocks as one program whose tracebacks name the page's own lines."""
        lines = [""] * (some[-1].line + some[-1].code.count("\n"))
        for block in some:
            code = self._moved(block.code).splitlines()
            lines[block.line - 1:block.line - 1 + len(code)] = code
        # Not a file: one called python.py or tokenizers.py would stand in the way of the real ones.
        run = "import sys; exec(compile(sys.stdin.read(), sys.argv[1], 'exec'))"
        done = subprocess.run([sys.executable, "-c", run, str(page)], cwd=self.folder, text=True,
                              env=self.environment, input="\n".join(lines), capture_output=True,
                              check=False)
        assert done.returncode == 0, f"{page}: {done.stdout[-500:]}{done.stderr[-2000:]}"

    def _serve(self, line: str) -> None:
        """Start a server in the place of the one before, at any free port."""
        self.stop()
        words = [sys.executable, *shlex.split(line)[1:], "--port", "0"]
        self.server = subprocess.Popen(words, cwd=self.folder, env=self.environment, text=True,
                                       stderr=subprocess.PIPE)
        assert self.server.stderr is not None
        said = []
        for said_line in self.server.stderr:
            said.append(said_line)
            if found := SERVER.search(said_line):
                self.url = found[0]
                return
        raise AssertionError(f"{line}: {''.join(said)}")

    def _ask(self, line: str) -> Any:
        """Send what a curl line would send; an answer that is an error raises."""
        words = shlex.split(line)[1:]
        body = words[words.index("-d") + 1] if "-d" in words else None
        (url,) = [word for word in words if SERVER.match(word)]
        assert len(words) == (1 if body is None else 3), f"a curl option that is not read: {line}"
        request = Request(url, body.encode() if body is not None else None)
        with build_opener(ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def reading(folder: Path, stand_ins: Mapping[str, str] = STAND_INS) -> Iterator[Desk]:
    """Give a reader's desk in `folder`; `stand_ins` are exchanged in all that is run."""
    desk = Desk(folder, stand_ins)
    desk.fill()
    try:
        yield desk
    finally:
        desk.stop()
