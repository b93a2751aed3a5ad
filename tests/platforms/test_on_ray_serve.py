"""The server's routes on Ray Serve: `serve run` as docs/operating.md has it."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, opinions
from tests.serving.test_serving_cli import post
from tf_pipeline.predictor import Predictor

pytestmark = pytest.mark.platforms
WAIT_S = 120


@pytest.fixture(scope="module")
def python(environment: Callable[[str], Path]) -> Path:
    return environment("ray")


@contextmanager
def running(python: Path, folder: Path, **settings: str | int) -> Iterator[tuple[str, Path]]:
    """Start Ray and the application; give its address and the file of what it says."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [{
        "name": "reviews", "route_prefix": "/", "import_path": "serving.ray_app:app",
        "args": settings}]}
    (folder / "serve.yaml").write_text(json.dumps(config))  # JSON is YAML
    said = folder / "said.txt"
    with said.open("w") as stream:
        process = subprocess.Popen(
            [python, "-m", "ray.serve.scripts", "run", folder / "serve.yaml"], cwd=ROOT,
            stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)})
    try:
        yield f"http://127.0.0.1:{port}", said
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(WAIT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def until_ready(url: str, said: Path) -> None:
    end = time.monotonic() + WAIT_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=20) as answer:
                assert json.load(answer) == {"ready": True, "not_loaded": []}
                return
        except urllib.error.URLError:  # not there yet, or without the application
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.5)


def test_replicas_answer_as_the_server_does(artifact: Path, python: Path, tmp_path: Path) -> None:
    expected = Predictor(artifact, "onnx", "int8")
    with running(python, tmp_path, artifact=str(artifact), variant="int8", replicas=2) as (url,
                                                                                          said):
        until_ready(url, said)
        model = f"{url}/v1/models/classify"
        for row in opinions(20):
            status, found = post(f"{model}:answer", {"text": row["text"]})
            [answer] = expected([row["text"]])
            assert status == 200
            assert found["answers"][0]["label"] == answer["label"]
            assert found["answers"][0]["score"] == pytest.approx(answer["score"], abs=1e-5)
        assert post(f"{model}:answer", {"texts": []}) == (
            400, {"error": "texts is an array of 0; at least 1 value is needed."})
        assert post(f"{url}/v1/models/other:answer", {"text": "a"})[0] == 404


def test_a_wrong_setting_is_named(artifact: Path, python: Path, tmp_path: Path) -> None:
    with running(python, tmp_path, artifact=str(artifact), replicas="many") as (_, said):
        end = time.monotonic() + WAIT_S
        while "replicas is 'many'; it must be a whole number above 0." not in said.read_text():
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.5)
