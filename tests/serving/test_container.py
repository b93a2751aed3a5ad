"""The container file and the Kubernetes manifest of the light server, as far as no engine runs."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from starlette.testclient import TestClient

from serving.server import create_app
from tests.conftest import ROOT
from tests.serving.test_serving_cli import post, stop
from tf_pipeline.predictor import Predictor

HERE = ROOT / "serving/container"


def instructions() -> list[tuple[str, str]]:
    lines = (HERE / "Dockerfile").read_text().splitlines()
    return [tuple(line.split(" ", 1)) for line in lines if line and not line.startswith("#")]


def entrypoint() -> list[str]:
    return json.loads(dict(instructions())["ENTRYPOINT"])


@pytest.fixture(scope="module")
def objects() -> dict[str, dict]:
    text = (HERE / "kubernetes.yaml").read_text()
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def container(objects) -> dict:
    [found] = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    return found


def test_what_is_copied_serves_with_the_manifests_arguments(artifact, container, tmp_path):
    """The image's files without the rest of the checkout, and its command, but for the ports."""
    for name, words in instructions():
        if name == "COPY":
            source, target = words.split()
            (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / target, dirs_exist_ok=True)
            else:
                shutil.copy(ROOT / source, tmp_path / target)
    with socket.create_server(("127.0.0.1", 0)) as free:
        rpc = str(free.getsockname()[1])
    words = [sys.executable if word == "python" else str(artifact) if word == "/models" else word
             for word in entrypoint()]
    words += [rpc if word == "8500" else word for word in container["args"]] + ["--port", "0"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                               env={**environment, "PYTHONDONTWRITEBYTECODE": "1"})
    try:
        line = process.stderr.readline()
        port = re.search(r"http://0\.0\.0\.0:(\d+)", line)[1]
        status, answer = post(f"http://127.0.0.1:{port}/v1/models/classify:answer",
                              {"text": "the kitchen was lovely"})
        assert (status, answer["answers"][0]["label"]) == (200, "good")
        assert '"path": "/v1/models/classify:answer", "status": 200' in stop(process)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_what_is_copied_is_not_ignored():
    kept = {line[1:] for line in (HERE / "Dockerfile.dockerignore").read_text().splitlines()
            if line.startswith("!")}
    copied = {words.split()[0].split("/")[0] for name, words in instructions() if name == "COPY"}
    assert copied == kept
    installed = dict(instructions())["RUN"]
    assert installed.endswith("-r serving/requirements.txt")


def test_probes_ask_for_what_the_server_answers(artifact, container, objects):
    client = TestClient(create_app(Predictor(artifact, "onnx")))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert str(ports["http"]) == entrypoint()[-1]
    assert str(ports["grpc"]) in container["args"]
    assert {int(p) for p in dict(instructions())["EXPOSE"].split()} == set(ports.values())
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] in ports
        assert client.get(asked["path"]).status_code == 200
    notes = objects["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert int(notes["prometheus.io/port"]) == ports["http"]
    for port in objects["Service"]["spec"]["ports"]:
        assert (port["port"], port["targetPort"]) == (ports[port["name"]], port["name"])


def test_objects_find_each_other(objects, container):
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Service"]["spec"]["selector"] == labels
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert objects[kind]["spec"]["selector"]["matchLabels"] == labels
    assert f"-t {container['image']}" in Path(HERE / "Dockerfile").read_text()
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert str(pod["securityContext"]["runAsUser"]) in dict(instructions())["USER"]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
