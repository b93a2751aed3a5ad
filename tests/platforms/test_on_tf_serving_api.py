"""TF Serving's own client asks our gRPC server, and gets what REST answers."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from serving.catalogue import Catalogue
from serving.server import create_app
from serving.service import Service
from tests.platforms.conftest import HERE
from tests.serving.grpc_client import grpc_server
from tf_pipeline.predictor import Predictor

pytestmark = pytest.mark.platforms
TEXTS = ["the garden was lovely", "Café, honestly — 😀", "", "word " * 300,
         "Quentin Quist left Jena ."]
TOKENS = {"input_ids": [[2, 5, 3, 0], [2, 7, 9, 3]], "attention_mask": [[1, 1, 1, 0], [1] * 4],
          "token_type_ids": [[0] * 4] * 2}


def rest(folder: Path, inputs: dict[str, list], signature: str) -> dict[str, np.ndarray]:
    """Answer the same over HTTP, by the names of the outputs."""
    answer = TestClient(create_app(Predictor(folder, "onnx"))).post(
        f"/v1/models/{folder.name}:predict",
        json={"signature_name": signature, "inputs": inputs}).json()["outputs"]
    named = answer if isinstance(answer, dict) else {"": answer}
    return {key: np.array(values) for key, values in named.items()}


@pytest.mark.parametrize("task", ["classify", "match", "tag"])
def test_the_official_client(task: str, toy_artifact: Callable[[str], Path],
                             environment: Callable[[str], Path], tmp_path: Path) -> None:
    folder = toy_artifact(task)
    model = Service(Predictor(folder, "onnx"))
    texts = {"text": TEXTS} | ({"text_b": ["lovely !"] * len(TEXTS)} if task == "match" else {})
    with grpc_server(Catalogue.of(model)) as port:
        done = subprocess.run(
            [environment("tf_serving"), HERE / "ask_tf_serving.py", str(port), task,
             tmp_path / "found.npz"], input=json.dumps({"texts": texts, "tokens": TOKENS}),
            text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said, found = json.loads(done.stdout.splitlines()[-1]), np.load(tmp_path / "found.npz")
    for group, inputs, signature in (("texts", texts, "serving_default"),
                                     ("tokens", TOKENS, "tokens")):
        expected = rest(folder, inputs, signature)
        outputs = model.signatures[signature].outputs
        assert {key for key in found if key.startswith(group)} == {
            f"{group}.{key}" for key in outputs}
        for key in outputs:
            values, wanted = found[f"{group}.{key}"], expected.get(key, expected.get(""))
            if wanted.dtype.kind == "U":
                assert values.tolist() == wanted.tolist()
            else:
                assert values.dtype == np.float32
                np.testing.assert_allclose(values, wanted, atol=1e-5, rtol=1e-5)
    assert said["specs"] == [[task, 1, "serving_default"], [task, 1, "tokens"]]
    assert said["states"] == [[1, "AVAILABLE", 0]]
    names = {"DT_STRING": "string", "DT_INT32": "int32", "DT_FLOAT": "float32"}
    assert said["signatures"] == {
        key: {"method": "tensorflow/serving/predict",
              **{group: {alias: [names[t.dtype], t.name, list(t.shape or ())]
                         for alias, t in tensors.items()}
                 for group, tensors in (("inputs", signature.inputs),
                                        ("outputs", signature.outputs))}}
        for key, signature in model.signatures.items()}
    assert said["unknown model"] == ["NOT_FOUND",
                                     "Servable not found for request: Latest(unknown)"]
    assert said["100 MB"][0] == "RESOURCE_EXHAUSTED"
    assert said["classify"][0] == "INVALID_ARGUMENT"
    assert "tensorflow/serving/classify. Was: tensorflow/serving/predict" in said["classify"][1]
    assert said["wrong type"][0] == "INVALID_ARGUMENT"
