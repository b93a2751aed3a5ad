"""The server on a real artifact, in this process: what it answers and what it refuses."""

import asyncio
import json
import re
import threading

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

from serving.options import Limits
from serving.server import create_app
from tf_pipeline.artifact import Manifest
from tf_pipeline.predictor import Predictor

TEXTS = ["what a film", "it was dull", "   ", "🎬🎬", "\u202eמה סרט", "café " * 2_000, "a\u0000b"]
LIMITS = Limits(max_body_bytes=150_000, max_texts=8, max_characters=20_000)
ROW = {"input_ids": [2, 5, 3], "attention_mask": [1, 1, 1], "token_type_ids": [0, 0, 0]}


@pytest.fixture(scope="module")
def client(predictor) -> TestClient:
    return TestClient(create_app(predictor, LIMITS))


@pytest.fixture(scope="module")
def expected(artifact):
    """What TensorFlow itself gives for the SavedModel's text signature."""
    from tf_pipeline.runtimes.saved_model import open_folder, text_runner

    path = next(g.path for g in Manifest.load(artifact).graphs if g.runtime == "saved_model")
    return text_runner(open_folder(artifact / path))(text=TEXTS)


def refused(answer, status: int, message: str) -> None:
    body = answer.json()
    assert (answer.status_code, list(body)) == (status, ["error"]), body
    assert re.search(message, body["error"], re.DOTALL), body["error"]
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("runtime", ["onnx", "tflite", "saved_model"])
def test_predict_gives_what_the_saved_model_gives(artifact, base, expected, runtime):
    client = TestClient(create_app(Predictor(artifact, runtime)))
    texts = [t for t in TEXTS if runtime != "tflite" or len(t) < 100]  # its length is shorter
    keep = [TEXTS.index(t) for t in texts]
    rows = client.post(f"{base}:predict", json={"instances": texts}).json()["predictions"]
    columns = client.post(f"{base}:predict", json={"inputs": {"text": texts}}).json()["outputs"]
    for given in ([row["probabilities"] for row in rows], columns["probabilities"]):
        np.testing.assert_allclose(given, expected["probabilities"][keep], atol=2e-5)
    labels = [label.decode() for label in expected["label"][keep]]
    assert [row["label"] for row in rows] == columns["label"] == labels
    assert set(columns) == set(rows[0]) == {"probabilities", "label"}


@pytest.mark.parametrize("runtime", ["onnx", "saved_model"])
def test_tokens_signature(artifact, base, runtime):
    client = TestClient(create_app(Predictor(artifact, runtime)))
    inputs = {name: [values] * 3 for name, values in ROW.items()}
    answer = client.post(f"{base}:predict", json={"signature_name": "tokens", "inputs": inputs})
    outputs = answer.json()["outputs"]
    powers = np.exp(outputs["logits"])
    np.testing.assert_allclose(outputs["probabilities"], powers / powers.sum(-1, keepdims=True),
                               rtol=1e-5)
    assert np.shape(outputs["logits"]) == np.shape(outputs["probabilities"])


def test_tokens_are_refused_by_a_tflite_file(artifact, base):
    client = TestClient(create_app(Predictor(artifact, "tflite")))
    answer = client.post(f"{base}:predict", json={"signature_name": "tokens", "instances": [ROW]})
    refused(answer, 400, r"'tokens' is not served from model_L\d+.*gives probabilities.*--runtime")


def test_file_with_one_batch_size_gets_it(artifact, base):
    predictor = Predictor(artifact, "onnx", "int8")
    client = TestClient(create_app(predictor))
    rows = [ROW, {**ROW, "input_ids": [2, 7, 3]}, {**ROW, "input_ids": [2, 9, 3]}]
    body = {"signature_name": "tokens", "instances": rows}
    together = client.post(f"{base}:predict", json=body).json()["predictions"]
    alone = [client.post(f"{base}:predict", json={**body, "instances": [row]}).json()
             for row in rows]
    assert predictor.graph is not None
    assert predictor.graph.batch == 1
    assert together == [one["predictions"][0] for one in alone]


def test_answers(client, base, predictor):
    answers = client.post(f"{base}:answer", json={"texts": TEXTS}).json()["answers"]
    assert [a["label"] for a in answers] == [a["label"] for a in predictor(TEXTS)]
    one = client.post(f"{base}/versions/1:answer", json={"text": TEXTS[0]}).json()["answers"]
    assert one[0]["score"] == pytest.approx(answers[0]["score"], abs=1e-6)
    assert set(one[0]["scores"]) == set(predictor.task.labels)


@pytest.mark.parametrize(("verb", "body", "status", "message"), [
    ("predict", b"", 400, "JSON Parse error"),
    ("predict", b'{"instances": ["\xff"]}', 400, "not UTF-8: byte 0xff at offset 16"),
    ("predict", b'{"instances": ' + b"[" * 100_000, 400, "nested too deep"),
    ("predict", {"instances": ["a"], "inputs": ["a"]}, 400, "only one of"),
    ("predict", {}, 400, "Missing 'inputs' or 'instances' key"),
    ("predict", {"instances": []}, 400, "No values in 'instances'"),
    ("predict", {"instances": ["a", 5]}, 400, r"instances\[1\] is 5; expected a string"),
    ("predict", {"instances": ["a"], "extra": 1}, 400, 'Unknown key "extra"'),
    ("predict", {"instances": ["a"], "signature_name": "x"}, 400, '"x" not found.*Known: serv'),
    ("predict", {"instances": ["a"] * 9}, 400, "holds 9 texts; allowed are 8"),
    ("predict", {"inputs": ["a", "b" * 20_001]}, 400, "Text 1 has 20,001 characters; allowed are"),
    ("predict", {"inputs": ["a" * 150_000]}, 413, r"150,\d+ bytes; allowed are 150,000.*--max-b"),
    ("predict", {"signature_name": "tokens", "instances": [ROW] * 9}, 400, "9 rows; allowed are 8"),
    ("predict", {"signature_name": "tokens", "instances": [{**ROW, "input_ids": [2, 10**8, 3]}]},
     400, "input_ids of row 0 holds 100000000 at position 1; allowed are 0 to"),
    ("predict", {"signature_name": "tokens", "instances": [{**ROW, "attention_mask": [1, 2, -1]}]},
     400, "attention_mask of row 0 holds 2 at position 1; allowed are 0 to 1"),
    ("predict", {"signature_name": "tokens", "instances": [{n: [1] * 5_000 for n in ROW}]},
     400, "rows have 5000 tokens; allowed are 1 to"),
    ("predict", {"signature_name": "tokens", "instances": [{n: [] for n in ROW}]},
     400, "rows have 0 tokens"),
    ("predict", {"signature_name": "tokens", "instances": [{**ROW, "attention_mask": [1]}]},
     400, r"differ in shape: .*input_ids \[1, 3\]"),
    ("answer", {"texts": []}, 400, "texts is an array of 0; at least 1"),
    ("answer", {"texts": "a"}, 400, 'texts is "a"; expected an array of strings'),
    ("answer", {"texts": ["a", None]}, 400, r"texts\[1\] is null; expected a string"),
    ("answer", {"text": 5}, 400, "text is 5; expected a string"),
    ("answer", {"text": "a", "texts": ["a"]}, 400, "either 'texts'.* or 'text'"),
    ("answer", {}, 400, "an empty object; expected either"),
    ("answer", {"txt": "a"}, 400, 'Unknown key "txt".*Known: texts, text'),
    ("answer", {"texts": ["a"] * 9}, 400, "holds 9 texts"),
    ("classify", {"examples": [{}]}, 400, "Expected classification signature.*/classify. Was: "),
    ("regress", {"examples": [{}]}, 400, "Expected regression signature method_name"),
    ("explain", {}, 404, "Malformed request: POST /v1/models/.*:explain"),
])
def test_refusals(client, base, verb, body, status, message):
    content = body if isinstance(body, bytes) else json.dumps(body)
    refused(client.post(f"{base}:{verb}", content=content), status, message)


def test_length_is_counted_while_a_body_of_unknown_length_arrives(client, base):
    chunks = (b" " * 10_000 for _ in range(20))
    refused(client.post(f"{base}:predict", content=chunks), 413, "over 150,000 bytes; allowed")


def test_compressed_body(client, base):
    answer = client.post(f"{base}:predict", content=b"x", headers={"content-encoding": "gzip"})
    refused(answer, 415, "'gzip' is not read; send plain JSON")


@pytest.mark.parametrize(("method", "path", "status", "message"), [
    ("POST", "/v1/models/other:predict", 404, r"Servable not found for request: Latest\(other\)"),
    ("POST", "BASE/versions/2:predict", 404, r"request: Specific\(\w+, 2\)"),
    ("POST", "BASE/versions/x:predict", 404, "Malformed request"),
    ("GET", "/v1/models/other", 404, "Could not find any versions of model other"),
    ("GET", "BASE/versions/2", 404, "Could not find version 2 of model"),
    ("GET", "/v1/models/other/metadata", 404, r"Latest\(other\)"),
    ("GET", "/v1/nothing", 404, "Malformed request: GET /v1/nothing"),
    ("GET", "/healthz/", 404, "Malformed request: GET /healthz/"),
    ("GET", "BASE:predict", 405, "Method not allowed: GET .*Allowed: POST"),
    ("PUT", "BASE:predict", 405, "Method not allowed: PUT .*Allowed: POST"),
    ("POST", "BASE", 405, "Method not allowed: POST .*Allowed: GET, HEAD"),
])
def test_paths_and_methods(client, base, method, path, status, message):
    refused(client.request(method, path.replace("BASE", base)), status, message)


def test_what_it_says_of_itself(client, base, manifest):
    versioned = f"{base}/versions/{manifest.version}"
    status = client.get(base).json()
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
    assert client.get(versioned).json() == status
    metadata = client.get(f"{base}/metadata").json()
    assert client.get(f"{versioned}/metadata").json() == metadata
    listed = metadata["metadata"]["signature_def"]["signature_def"]
    assert set(listed) == set(manifest.signatures) == {"serving_default", "tokens"}
    for name, signature in listed.items():
        assert set(signature["outputs"]) == set(manifest.signatures[name]["outputs"])
    assert client.get("/healthz").json() | {"status": "ok", "model": manifest.name,
                                            "runtime": "onnx"} == client.get("/healthz").json()
    assert f"POST {base}:predict" in client.get("/").json()["routes"]


def test_unexpected_error_tells_the_client_nothing(predictor, base, monkeypatch):
    def fail(records):
        raise RuntimeError("a secret")

    monkeypatch.setattr(predictor, "outputs", fail)
    client = TestClient(create_app(predictor), raise_server_exceptions=False)
    answer = client.post(f"{base}:predict", json={"instances": ["a"]})
    refused(answer, 500, "Internal error")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_health_answers_while_a_text_is_read(predictor, base, monkeypatch):
    go_on, real = threading.Event(), predictor.outputs

    def slow(records):
        assert go_on.wait(10)
        return real(records)

    monkeypatch.setattr(predictor, "outputs", slow)

    async def ask_both() -> None:
        transport = httpx2.ASGITransport(create_app(predictor))
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = asyncio.create_task(client.post(f"{base}:predict", json={"inputs": ["a"]}))
            await asyncio.sleep(0.1)
            assert (await client.get("/healthz")).status_code == 200
            assert not asked.done()
            go_on.set()
            assert (await asked).status_code == 200

    asyncio.run(ask_both())
