"""`python -m serving` as a second process: start, signals, imports, log, many clients."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tf_pipeline.artifact import Manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(artifact) -> str:
    return f"/v1/models/{Manifest.load(artifact).name}"


@contextmanager
def served(artifact: Path, *flags: str, python: tuple[str, ...] = ()):
    """Run `python -m serving` in a second process; give it and its address."""
    words = [sys.executable, *python, "-m", "serving", str(artifact), "--port", "0", *flags]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    try:
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"at (https?://\S+).* - try: curl", line):
                yield process, found[1], lines
                break
        else:
            pytest.fail("".join(lines))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def stop(process: subprocess.Popen, number: int = signal.SIGTERM) -> str:
    process.send_signal(number)
    _, rest = process.communicate(timeout=20)
    return rest


def post(url: str, body: dict) -> tuple[int, dict]:
    request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize(("runtime", "variant"), [("tflite", "int8"), ("onnx", "float32")])
def test_no_heavy_import_and_no_text_in_the_log(artifact, base, runtime, variant):
    flags = ("--runtime", runtime, "--variant", variant)
    with served(artifact, *flags, python=("-X", "importtime")) as (process, url, lines):
        for body in ({"instances": ["marker text"]}, {"instances": [["marker text"]]}):
            post(f"{url}{base}:predict", body)
        for file in (g.path for g in Manifest.load(artifact).graphs if g.runtime != "saved_model"):
            assert post(f"{url}{base}:answer", {"text": "marker text", "file": file})[0] == 200
        with urllib.request.urlopen(f"{url}{base}/files", timeout=20) as answer:
            assert json.load(answer)["files"]
        log = "".join(lines) + stop(process)
    assert "marker" not in log
    imported = {line.rpartition("|")[2].strip().partition(".")[0]
                for line in log.splitlines() if line.startswith("import time:")}
    assert {"starlette", "uvicorn", "numpy"} <= imported
    assert not imported & {"tensorflow", "tensorflow_text", "keras", "jax", "torch", "sklearn",
                           "matplotlib", "export", "h5py"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_line_when_it_listens_and_a_graceful_end(artifact, base, number):
    with served(artifact, "--runtime", "tflite") as (process, url, lines):
        assert re.search(r"Serving \S+model_L\d+\.tflite \(tflite float32\) at http://127.0.0.1:\d+"
                         r" - try: curl \S+:predict -d '\{\"instances\": \[\"a text\"\]\}'\n",
                         lines[-1])
        command = lines[-1].partition("try: ")[2].replace("curl ", "curl -s ")
        if shutil.which("curl"):
            shown = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
            assert "predictions" in json.loads(shown.stdout)
        assert stop(process, number) == ""
        assert process.returncode == 0


def test_many_clients_at_once_get_the_answers_of_one(artifact, base):
    texts = [f"text {'very ' * i}good" for i in range(24)]
    with served(artifact, "--runtime", "tflite") as (_, url, _):
        def ask(text):
            return post(f"{url}{base}:answer", {"text": text})[1]["answers"]

        alone = [ask(text) for text in texts]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, texts)) == alone


def test_client_that_hangs_up_leaves_no_traceback(artifact, base):
    with served(artifact, "--runtime", "tflite") as (process, url, _):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(f"POST {base}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{{"
                         .encode())
        time.sleep(0.2)
        assert post(f"{url}{base}:predict", {"instances": ["a"]})[0] == 200
        assert stop(process) == ""


def test_endless_body_is_refused_before_it_ends(artifact, base):
    with served(artifact, "--runtime", "tflite", "--max-body-bytes", "50000") as (_, url, _):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as endless:
            endless.sendall(f"POST {base}:predict HTTP/1.1\r\nHost: x\r\n"
                            "Transfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(6):
                endless.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
            assert b"413" in endless.recv(100).split(b"\r\n")[0]
        assert post(f"{url}{base}:predict", {"instances": ["a"]})[0] == 200


def failing(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "serving", *words], cwd=ROOT, text=True,
                          capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_user_errors_are_one_line(artifact, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        message = failing(str(artifact), "--port", port)
    assert re.search(rf"Cannot listen at 127.0.0.1 port {port}: Address already in use", message)
    assert "Cannot listen at no.such.host.invalid" in failing(
        str(artifact), "--host", "no.such.host.invalid")
    assert "--port is 70000; allowed: 0 to 65535" in failing(str(artifact), "--port", "70000")
    assert "--max-texts is 0" in failing(str(artifact), "--max-texts", "0")
    assert "no graph with runtime x" in failing(str(artifact), "--port=0", "--runtime", "x")
    assert "no graph with variant int3" in failing(str(artifact), "--port=0", "--variant", "int3")
    assert "is not a finished artifact" in failing(str(tmp_path), "--port", "0")
    (tmp_path / "run.json").write_text("{}")
    assert f"export convert {tmp_path} --out artifacts/" in failing(str(tmp_path))


def test_help_is_quick():
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run([sys.executable, "-m", "serving", "--help"], cwd=ROOT, text=True,
                          capture_output=True, env=environment, check=True)
    assert "--max-body-bytes" in done.stdout
    assert not re.search(r"\| +(numpy|starlette|uvicorn|tokenizers|tensorflow)$", done.stderr, re.M)


def test_weights_alone_are_not_served(toy_weights):
    assert "model.safetensors alone, which is for training frameworks" in failing(
        str(toy_weights("classify")), "--port", "0")
