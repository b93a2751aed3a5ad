"""Every command of the README, in its order, with `tiny` in the place of `minilm`."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

from tests.conftest import ROOT, opinions, write_csv

STAND_INS = {"minilm": "tiny", "FOLDER": "tests/data/transformers_classify --max-len 64",
             "csv:": "csv:{folder}/"}


def readme_blocks(language: str = "") -> list[str]:
    """Give the README's code blocks of a language, in order."""
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [code for name, code in blocks if name == language]


def commands(folder: Path) -> list[list[str]]:
    """Give the words of each `python -m` line, with its folders moved into `folder`."""
    lines = "\n".join(readme_blocks()).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        if line.startswith("python -m"):
            moved = re.sub(r"\b(runs|artifacts)/", f"{folder}/\\1/", line)
            for name, small in STAND_INS.items():
                moved = moved.replace(name, small.format(folder=folder))
            found.append(shlex.split(moved)[1:])
    return found


def serve_and_ask(words: list[str], body: str) -> dict:
    """Start the README's server, send the README's question, stop it."""
    process = subprocess.Popen([sys.executable, *words, "--port", "0"], cwd=ROOT, text=True,
                               stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"http://[\d.]+:\d+", line):
                break
        request = Request(f"{found[0]}/v1/models/demo:predict", body.encode())
        with build_opener(ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_every_command_runs(tmp_path: Path) -> None:
    body = re.search(r"curl -d '(.*?)'", (ROOT / "README.md").read_text("utf-8"))
    assert body is not None
    write_csv(tmp_path / "texts.csv", [{"text": row["text"]} for row in opinions(50)])
    ran = []
    for words in commands(tmp_path):
        ran.append(words[1])
        if words[1] == "serving":
            answer = serve_and_ask(words, body[1])
            assert answer["predictions"][0]["label"] in ("negative", "positive")
            continue
        done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
    assert ran == ["tf_pipeline", "export", "export", "tf_pipeline", "serving", "tf_pipeline",
                   "serving"]


def test_the_python_lines_run(tmp_path: Path) -> None:
    (block,) = readme_blocks("python")
    code = block.replace('"runs/demo"', f'"{tmp_path}/run", backbone="tiny", epochs=1').replace(
        "artifacts/demo", f"{tmp_path}/artifact")
    code += '\nimport sys\nsys.exit(run.model.name != "classify")\n'
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr[-2000:]
