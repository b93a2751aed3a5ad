"""KServe's server with the SavedModel answers `:predict` as `python -m serving` does."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import pytest
from starlette.testclient import TestClient

from serving.server import create_app
from tests.platforms.conftest import HERE
from tf_pipeline.predictor import Predictor

pytestmark = pytest.mark.platforms
TEXTS = ["the garden was lovely", "Café, honestly — 😀", "", "word " * 300,
         "Quentin Quist left Jena ."]


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    request = Request(url, None if body is None else json.dumps(body).encode(),
                      {"Content-Type": "application/json"})
    with build_opener(ProxyHandler({})).open(request, timeout=60) as answer:
        return json.load(answer)


@contextmanager
def kserve(python: Path, folder: Path, name: str) -> Iterator[str]:
    """Run KServe's server; gives the model's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1/models/{name}"
    process = subprocess.Popen([python, HERE / "serve_kserve.py", folder, name, str(port)],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + 120
        while True:
            try:
                assert ask(url)["ready"] in (True, "True")
                break
            except URLError:
                assert process.poll() is None, process.communicate()[0][-3000:]
                assert time.monotonic() < end, "KServe does not answer"
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.parametrize("task", ["classify", "match", "multilabel", "regress", "tag", "embed"])
def test_the_same_body_gets_the_same_answer(task: str, toy_artifact: Callable[[str], Path],
                                            environment: Callable[[str], Path]) -> None:
    folder = toy_artifact(task)
    body = {"instances": [{"text": text, "text_b": "lovely !"} for text in TEXTS]
            if task == "match" else TEXTS}
    with kserve(environment("kserve"), folder / "saved_model/1", task) as url:
        theirs = ask(f"{url}:predict", body)["predictions"]
    ours = TestClient(create_app(Predictor(folder, "saved_model"))).post(
        f"/v1/models/{task}:predict", json=body).json()["predictions"]
    assert len(ours) == len(theirs) == len(TEXTS)
    if not isinstance(ours[0], dict):
        np.testing.assert_allclose(ours, theirs, atol=1e-6, rtol=1e-6)
        return
    assert [row["label"] for row in ours] == [row["label"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        np.testing.assert_allclose(mine["probabilities"], other["probabilities"], atol=1e-6)
