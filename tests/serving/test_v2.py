"""KServe's V2 protocol on a real artifact."""

import re

import numpy as np
import pytest
from starlette.testclient import TestClient

from serving.catalogue import Catalogue, Served, Version
from serving.options import Limits
from serving.server import application
from serving.service import Service

TEXTS = ["the garden was lovely", "café — 😀", "", "word " * 300]
IDS = [[2, 5, 3], [2, 7, 3]]
TOKENS = {"input_ids": IDS, "attention_mask": [[1] * 3] * 2, "token_type_ids": [[0] * 3] * 2}


@pytest.fixture(scope="module")
def service(predictor) -> Service:
    return Service(predictor, Limits(max_texts=8))


@pytest.fixture(scope="module")
def client(service) -> TestClient:
    return TestClient(application(Served(Catalogue.of(service), Limits(max_body_bytes=150_000))))


@pytest.fixture(scope="module")
def path(service) -> str:
    return f"/v2/models/{service.name}"


def texts(data, /, **changed):
    return {"inputs": [{"name": "text", "shape": [len(data)], "datatype": "BYTES", "data": data}
                       | changed]}


def tokens(flat: bool, datatype: str = "INT64", **changed):
    return {"parameters": {"signature_name": "tokens"}, "inputs": [
        {"name": name, "shape": [2, 3], "datatype": datatype,
         "data": np.ravel(rows).tolist() if flat else rows} | changed
        for name, rows in TOKENS.items()]}


def outputs(answer) -> dict[str, dict]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: output for output in answer.json()["outputs"]}


def test_texts(client, path, service, predictor):
    answer = client.post(f"{path}/infer", json=texts(TEXTS) | {
        "id": "7", "model_name": "as KServe's client sends it"})
    found, body = outputs(answer), answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == (
        service.name, "1", "7")
    assert set(found) == {"probabilities", "label"}
    answers = predictor(TEXTS)
    assert found["label"] == {"name": "label", "shape": [4], "datatype": "BYTES",
                              "data": [a["label"] for a in answers]}
    given = found["probabilities"]
    assert (given["shape"], given["datatype"]) == ([4, 2], "FP32")
    np.testing.assert_allclose(np.reshape(given["data"], (4, 2)).max(-1),
                               [a["score"] for a in answers], atol=1e-5)
    assert "id" not in client.post(f"{path}/versions/1/infer", json=texts(["a"])).json()


def test_tokens_flat_and_nested(client, path):
    found = [client.post(f"{path}/infer", json=tokens(flat, datatype)).json()
             for flat in (True, False) for datatype in ("INT32", "INT64")]
    assert found == [found[0]] * 4
    assert [o["shape"] for o in found[0]["outputs"]] == [[2, 2]] * len(found[0]["outputs"])


def test_outputs_are_picked_and_parameters_may_be_there(client, path):
    wanted = [{"name": "label", "parameters": {"binary_data": False}}]
    assert list(outputs(client.post(f"{path}/infer", json=texts(["a"]) | {"outputs": wanted}))) == [
        "label"]
    assert set(outputs(client.post(f"{path}/infer", json=texts(["a"], parameters={})))) == {
        "probabilities", "label"}


def test_what_it_says_of_itself(client, path, service):
    assert client.get("/v2").json()["extensions"] == ["model_repository"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    name = service.name
    for at in (path, f"{path}/versions/1"):
        assert client.get(f"{at}/ready").json() == {"name": name, "ready": True}
        body = client.get(at).json()
        assert (body["name"], body["versions"]) == (name, ["1"])
        assert body["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
        assert {o["name"]: o["datatype"] for o in body["outputs"]} == {
            "probabilities": "FP32", "label": "BYTES"}
        assert body["parameters"] == {"signature_names": "serving_default,tokens"}


def test_a_server_with_a_model_that_does_not_answer_is_not_ready():
    catalogue = Catalogue()
    catalogue.put("broken", Version(4, "END", error="It holds no weights."))
    client = TestClient(application(Served(catalogue)))
    assert client.get("/v2/health/live").status_code == 200
    answer = client.get("/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False})
    assert client.get("/v2/models/broken/ready").status_code == 404


@pytest.mark.parametrize("at", ["/v2/models/x", "/v2/models/x/ready", "PATH/versions/2",
                                "PATH/versions/x", "PATH/versions/12345678901234567890/ready"])
def test_models_that_are_not_there(client, path, at):
    assert client.get(at.replace("PATH", path)).status_code == 404
    assert client.post("/v2/models/x/infer", json=texts(["a"])).status_code == 404


@pytest.mark.parametrize(("body", "message"), [
    ({}, "inputs is null; expected an array of at least one"),
    ({"inputs": []}, "inputs is an array of 0"),
    ({"inputs": ["a"]}, r'inputs\[0\] is "a"; expected an object'),
    ({"inputs": [{"data": []}]}, r"inputs\[0\].name is null"),
    ({"inputs": texts(["a"])["inputs"] * 2}, 'name is "text", which stands twice'),
    (texts(["a"], datatype="INT64"), r'inputs\[0\] \(text\): datatype is "INT64"; expected BYTES'),
    (texts(["a"], datatype=["BYTES"]), "datatype is an array of 1; expected BYTES"),
    (texts(["a"], shape=[2]), r"data has 1 values, and the shape \[2\] needs 2"),
    (texts(["a"], shape=[1, 1]), r"shape is \[1, 1\]; expected 1 sizes"),
    (texts(["a"], shape=[True]), r"shape is \[True\]"),
    (texts(["a"], shape=[-1]), r"shape is \[-1\]"),
    (texts(["a"], shape="x"), 'shape is "x"'),
    (texts(["a"], data="a"), 'data is "a"; expected an array'),
    (texts(["a"], data=[["a"]]), "data is nested otherwise"),
    (texts([]), "at least 1 value is needed"),
    (texts([1]), "is 1; expected a string"),
    (texts(["a"], name="txt"), "Missing named input: text"),
    (texts(["a"], extra=1), 'Unknown key "extra"'),
    (texts(["a"] * 9), "holds 9 texts; allowed are 8"),
    (texts(["a"]) | {"extra": 1}, 'Unknown key "extra"'),
    (texts(["a"]) | {"id": 5}, "id is 5; expected a string"),
    (texts(["a"]) | {"parameters": 5}, "parameters is 5"),
    (texts(["a"]) | {"parameters": {"signature_name": "x"}}, '"x" not found.*Known: serving_def'),
    (texts(["a"]) | {"parameters": {"signature_name": ["x"]}}, "must be a string"),
    (texts(["a"]) | {"outputs": [{"name": "x"}]}, "the signature gives probabilities, label|label"),
    (texts(["a"]) | {"outputs": [{"name": "label"}] * 2}, "stands twice"),
    (texts(["a"]) | {"outputs": []}, "outputs is an array of 0"),
    (tokens(True, "FP32"), 'datatype is "FP32"; expected INT32 or INT64'),
    (tokens(True, data=[1.5] * 6), "is 1.5; expected a 32-bit integer"),
    (tokens(True, data=[1 << 40] * 6), "expected a 32-bit integer"),
    (tokens(False, data=[[1, 1], [1, 1]]), "data is nested otherwise"),
    (tokens(False, data=[[1, 1, 1], 1]), "data is nested otherwise"),
    (tokens(False, data=[[1, 1, 1]] * 3), "data is nested otherwise"),
    (tokens(False, data=[[[1], [1], [1]]] * 2), "data is nested otherwise"),
    (tokens(True, data=[[], 1, 1, 1, 1, 1]), "data is nested otherwise"),
    (tokens(True, data=[-1] * 6), "of row 0 holds -1 at position 0; allowed are"),
    (tokens(True, shape=[2, 0], data=[]), "0 tokens"),
])
def test_refusals(client, path, body, message):
    answer = client.post(f"{path}/infer", json=body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"]), answer.text
    assert re.search(message, answer.json()["error"]), answer.json()["error"]


def test_binary_tensors_are_refused(client, path):
    answer = client.post(f"{path}/infer", content=b"{}\0\0",
                         headers={"Inference-Header-Content-Length": "2"})
    assert answer.status_code == 400
    assert "binary_data=False" in answer.json()["error"]


def test_limits_and_deadlines_are_those_of_every_route(client, path):
    long = client.post(f"{path}/infer", json=texts(["a" * 150_000]))
    assert (long.status_code, list(long.json())) == (413, ["error"])
    wrong = client.post(f"{path}/infer", json=texts(["a"]), headers={"X-Request-Timeout-Ms": "x"})
    assert wrong.status_code == 400
    assert "expected milliseconds" in wrong.json()["error"]
    assert client.get(f"{path}/infer").status_code == 405
