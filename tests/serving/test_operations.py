"""What those who run a server need: metrics, the log of requests, a token, TLS, readiness."""

import json
import re
import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from serving.catalogue import Catalogue, Served, Version
from serving.options import ServeOptions
from serving.server import application
from tests.conftest import opinions
from tests.serving.grpc_client import Client
from tests.serving.test_grpc import STATUS
from tests.serving.test_serving_cli import failing, post, served, stop

TOKEN = "a-token-of-twenty-one"


def measured(url: str) -> dict[tuple[str, ...], float]:
    """Read /metrics: name and labels' values -> value."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    return {(sample.name, *(v for _, v in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_metrics_count_what_all_processes_do(artifact, workers):
    with served(artifact, "--workers", workers, "--variant", "float32") as (_, url, _):
        for _ in range(12):
            assert post(f"{url}/v1/models/classify:answer", {"texts": ["a", "b"]})[0] == 200
        assert post(f"{url}/v1/models/classify:answer", {"texts": []})[0] == 400
        assert post(f"{url}/v1/models/x{'y' * 50}:answer", {"texts": ["a"]})[0] == 404
        found = measured(url)
    assert found["serving_requests_total", "classify", "200", "answer"] == 12
    assert found["serving_requests_total", "classify", "400", "answer"] == 1
    assert found["serving_requests_total", "", "404", "answer"] == 1
    assert found["serving_request_seconds_count", "classify", "answer"] == 13
    for stage in ("queue", "tokenize", "infer", "decode"):
        assert found["serving_stage_seconds_count", "classify", stage] == 12
        assert 0 < found["serving_stage_seconds_sum", "classify", stage] < 20
    assert found["serving_batch_texts_sum", "classify"] == 24
    assert found["serving_version_available", "classify", "1"] == 1
    assert found["serving_waiting_texts", "classify"] == 0
    assert not any("xy" in part for key in found for part in key)


def test_a_line_for_each_request_without_its_texts(artifact):
    with served(artifact, "--log-requests") as (process, url, _):
        post(f"{url}/v1/models/classify:answer", {"text": "marker text"})
        post(f"{url}/v1/models/classify:answer", {"text": 5})
        lines = [json.loads(line) for line in stop(process).splitlines()]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/v1/models/classify:answer", 200), ("POST", "/v1/models/classify:answer", 400)]
    assert all(line["ms"] > 0 and line["time"].endswith("+00:00") for line in lines)
    assert "marker" not in str(lines)


def test_a_token_guards_all_but_health(artifact, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    body = json.dumps({"text": "a"}).encode()
    with served(artifact, "--token-file", str(tmp_path / "token")) as (_, url, _):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            status, answer = ask(urllib.request.Request(f"{url}/v1/models/classify:answer", body,
                                                        headers))
            assert status == 401
            assert "Authorization: Bearer TOKEN" in answer["error"]
        assert ask(urllib.request.Request(f"{url}/metrics"))[0] == 401
        assert ask(urllib.request.Request(f"{url}/healthz"))[0] == 200
        assert ask(urllib.request.Request(f"{url}/readyz"))[0] == 200
        allowed = urllib.request.Request(f"{url}/v1/models/classify:answer", body,
                                         {"Authorization": f"Bearer {TOKEN}"})
        assert ask(allowed)[0] == 200


def ask(request: urllib.request.Request,
        context: ssl.SSLContext | None = None) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_tls(artifact, tmp_path):
    key, chain = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key,
                    "-out", chain, "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.create_default_context(cafile=str(chain))
    with served(artifact, "--tls-cert", str(chain), "--tls-key", str(key)) as (_, url, lines):
        assert url.startswith("https://127.0.0.1:")
        assert "curl https://" in lines[-1]
        assert ask(urllib.request.Request(f"{url}/healthz"), context)[0] == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_texts_unlike_those_of_the_test_are_noticed(artifact, workers):
    """Each process compares what it answers itself; Prometheus is given the largest."""
    with served(artifact, "--workers", workers) as (process, url, _):
        model = f"{url}/v1/models/classify"
        usual = [row["text"] for row in opinions(1000, seed=5)]
        send(model, usual[:50], times=1)
        with urllib.request.urlopen(f"{model}/drift", timeout=20) as answer:
            found = json.load(answer)
        assert found["version"] == 1
        assert found["measures"]["tokens"]["psi"] is None  # too few
        for start in range(50, 1000, 50):
            send(model, usual[start:start + 50], times=1)
        before = measured(url)
        with urllib.request.urlopen(f"{model}/drift", timeout=20) as answer:
            found = json.load(answer)
        for name in ("tokens", "unknown", "confidence"):
            assert before["serving_input_drift", name, "classify", "1"] < 0.25
            one = found["measures"][name]
            assert len(one["tested"]) == len(one["recent"]) == len(one["up_to"]) + 1
            assert sum(one["recent"]) == pytest.approx(1, abs=0.001)
        send(model, ["一" * 30] * 60, times=40)
        after = measured(url)
        assert after["serving_input_drift", "tokens", "classify", "1"] > 1
        assert after["serving_input_drift", "unknown", "classify", "1"] > 1
        rest = stop(process)
    assert rest.count("unlike those of its test in tokens") in range(1, int(workers) + 1)
    assert "一" not in rest


def send(model: str, texts: list[str], times: int) -> None:
    for _ in range(times):
        assert post(f"{model}:answer", {"texts": texts})[0] == 200


def test_an_artifact_from_before_is_served_without_that_comparison(artifact, tmp_path):
    shutil.copytree(artifact, tmp_path / "classify")
    manifest = json.loads((tmp_path / "classify/manifest.json").read_text())
    del manifest["reference"]
    (tmp_path / "classify/manifest.json").write_text(json.dumps(manifest))
    with served(tmp_path / "classify") as (_, url, _):
        send(f"{url}/v1/models/classify", ["a", "b"], times=1)
        with urllib.request.urlopen(f"{url}/v1/models/classify/drift", timeout=20) as answer:
            assert json.load(answer)["measures"] == {}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_grpc_beside_http(artifact, tmp_path, workers):
    """Each process answers over both; a second server at the port is refused."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    (tmp_path / "token").write_text(TOKEN)
    flags = ("--workers", workers, "--grpc-port", port)
    with served(artifact, *flags, "--token-file", str(tmp_path / "token")) as (process, _, lines):
        assert f"and gRPC at 127.0.0.1:{port}" in lines[-1]
        tensor = {"dtype": 7, "tensor_shape": {"dim": [{"size": 2}]}, "string_val": [b"a", b"b"]}
        given = {"model_spec": {"name": "classify"}, "inputs": {"text": tensor}}
        method = "tensorflow.serving.PredictionService/Predict"
        for _ in range(6):
            client = Client(int(port))
            grpc.channel_ready_future(client.channel).result(20)
            answer = client.call(method, metadata=[("authorization", f"Bearer {TOKEN}")], **given)
            assert len(answer.outputs["label"].string_val) == 2
            with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
                client.call(method, **given)
            client.channel.close()
        assert f"Cannot listen at 127.0.0.1 port {port}" in failing(
            str(artifact), "--port", "0", "--grpc-port", port)
        assert stop(process) == ""
        assert process.returncode == 0


def test_grpc_calls_are_counted_and_logged(artifact):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with served(artifact, "--grpc-port", str(port), "--log-requests") as (process, url, _):
        client = Client(port)
        grpc.channel_ready_future(client.channel).result(20)
        for name, kind in (("classify", "OK"), ("other", "NOT_FOUND")):
            given = {"model_spec": {"name": name}}
            if kind == "OK":
                client.call(STATUS, **given)
            else:
                with pytest.raises(grpc.RpcError, match=kind):
                    client.call(STATUS, **given)
        found = measured(url)
        rest = stop(process)
    assert found["serving_requests_total", "classify", "OK", "GetModelStatus"] == 1
    assert found["serving_requests_total", "", "NOT_FOUND", "GetModelStatus"] == 1
    assert found["serving_request_seconds_count", "classify", "GetModelStatus"] == 1
    assert '"method": "gRPC", "path": "/tensorflow.serving.ModelService/GetModelStatus"' in rest
    assert "other" not in rest


def test_readiness(predictor):
    from serving.service import Service

    catalogue = Catalogue.of(Service(predictor))
    client = TestClient(application(Served(catalogue)))
    assert client.get("/readyz").json() == {"ready": True, "not_loaded": []}
    catalogue.put("other", Version(1, "END", error="damaged"))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["not_loaded"]) == (503, ["other"])
    assert client.get("/metrics").status_code == 404


def test_wrong_settings(artifact, tmp_path):
    (tmp_path / "short").write_text("abc")
    for flags, message in (
            (("--token-file", tmp_path / "none"), "--token-file .* cannot be read: .*No such file"),
            (("--token-file", tmp_path / "short"), "holds 3 characters; expected one token of 16"),
            (("--tls-cert", tmp_path / "short"), "--tls-key is None; https needs both"),
            (("--tls-cert", tmp_path / "short", "--tls-key", tmp_path / "short"),
             "--tls-cert .* cannot be used: .*Both are files in PEM"),
            (("--workers", "0"), "--workers is 0; it must be 1 or more"),
            (("--poll-s", "-1"), "--poll-s is -1.0; it must be 0 or more")):
        assert re.search(message, failing(str(artifact), "--port", "0", *map(str, flags)))


def test_paths_as_python_users_write_them():
    made: Callable[..., ServeOptions] = ServeOptions
    assert made(token_file="token").token_file == Path("token")
