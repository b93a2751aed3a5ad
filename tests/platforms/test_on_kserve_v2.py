"""KServe's own V2 client asks our server, and gets what `:predict` answers."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient

from serving.catalogue import Catalogue, Served
from serving.server import application, create_app
from serving.service import Service
from tests.platforms.conftest import HERE
from tf_pipeline.predictor import Predictor

pytestmark = pytest.mark.platforms
TEXTS = ["the garden was lovely", "Café, honestly — 😀", "", "word " * 300,
         "Quentin Quist left Jena ."]
TOKENS = {"input_ids": [[2, 5, 3, 0], [2, 7, 9, 3]], "attention_mask": [[1, 1, 1, 0], [1] * 4],
          "token_type_ids": [[0] * 4] * 2}


@contextmanager
def http_server(catalogue: Catalogue) -> Iterator[str]:
    config = uvicorn.Config(application(Served(catalogue)), port=0, log_level="warning")
    server, listener = uvicorn.Server(config), config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.mark.parametrize("task", ["classify", "match", "tag"])
def test_the_official_client(task: str, toy_artifact: Callable[[str], Path],
                             environment: Callable[[str], Path]) -> None:
    folder = toy_artifact(task)
    texts = {"text": TEXTS} | ({"text_b": ["lovely !"] * len(TEXTS)} if task == "match" else {})
    with http_server(Catalogue.of(Service(Predictor(folder, "onnx")))) as url:
        done = subprocess.run(
            [environment("kserve"), HERE / "ask_kserve_v2.py", url, task], text=True,
            input=json.dumps({"texts": texts, "tokens": TOKENS, "output": "logits"}),
            capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    client = TestClient(create_app(Predictor(folder, "onnx")))
    for group, inputs, signature in (("texts", texts, "serving_default"),
                                     ("tokens", TOKENS, "tokens")):
        wanted = client.post(f"/v1/models/{task}:predict", json={
            "signature_name": signature, "inputs": inputs}).json()["outputs"]
        wanted = wanted if isinstance(wanted, dict) else {"logits": wanted}
        assert set(said[group]) == (set(wanted) if group == "texts" else {"logits"})
        for key, values in said[group].items():
            if key == "label":
                assert values == wanted[key]
            else:
                np.testing.assert_allclose(values, wanted[key], atol=1e-6)
    assert [said["live"], said["ready"], said["model ready"], said["unknown ready"]] == [
        True, True, True, False]
    assert said["refused"].startswith("404 Servable not found for request: Latest(unknown)")
    assert (said["id"], said["model"]) == ("7", task)
    assert said["inputs"] == [{"name": key, "datatype": "BYTES", "shape": [-1]} for key in texts]
