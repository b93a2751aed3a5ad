"""A folder of models: what is added, chosen, loaded while requests are answered, and refused."""

import http.client
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.catalogue import Catalogue, Served
from serving.metrics import Metrics
from serving.options import Limits, Queueing, ServeOptions
from serving.running import Loader
from serving.server import application, create_app
from serving.store import Settings, Store
from serving.watching import Watcher
from tests.conftest import command
from tests.serving.grpc_client import Client
from tests.serving.test_grpc import RELOAD
from tests.serving.test_serving_cli import post, served, stop
from tf_pipeline.errors import UserError
from tf_pipeline.predictor import Predictor

TEXT = {"text": "the kitchen was lovely"}
LOAD = Loader(ServeOptions(variant="int8"), Limits(), Queueing(), Metrics())


@pytest.fixture
def store(toy_artifact: Callable[[str], Path], tmp_path: Path) -> Store:
    """Two versions of a model that differ in what they answer: one label, or several."""
    found = Store(tmp_path / "models")
    found.add(toy_artifact("classify"), "reviews")
    found.add(toy_artifact("multilabel"), "reviews")
    return found


def test_versions_count_up_and_none_is_overwritten(store, artifact):
    assert (store.names(), store.versions("reviews")) == (["reviews"], [1, 2])
    assert store.add(artifact, "reviews", 7) == store.path("reviews", 7)
    assert store.add(artifact).name == "1"
    assert store.names() == ["classify", "reviews"]
    assert store.wanted("reviews") == {7}
    with pytest.raises(UserError, match="7 exists and is not overwritten.*leave it out for 8"):
        store.add(artifact, "reviews", 7)
    with pytest.raises(UserError, match=r"--name is '\.\./x'; allowed are letters"):
        store.add(artifact, "../x")
    with pytest.raises(UserError, match="--version is -3; it must be 1 or more"):
        store.add(artifact, "reviews", -3)
    assert not list(store.folder.rglob("*.partial*"))


def test_a_damaged_artifact_is_not_added(store, artifact, tmp_path):
    damaged = shutil.copytree(artifact, tmp_path / "damaged")
    content = bytearray((damaged / "onnx/model.onnx").read_bytes())
    content[100] ^= 1
    (damaged / "onnx/model.onnx").write_bytes(content)
    with pytest.raises(UserError, match="changed or damaged"):
        store.add(damaged, "reviews")
    with pytest.raises(UserError, match="is not a finished artifact"):
        store.add(tmp_path, "reviews")
    assert store.versions("reviews") == [1, 2]


def test_rollback_and_labels(store, artifact, caplog):
    assert store.serve_newest("reviews") == 1
    assert store.wanted("reviews") == {1}
    store.label("reviews", "canary", 2)
    assert store.wanted("reviews") == {1, 2}
    with caplog.at_level(logging.WARNING):
        store.add(artifact, "reviews")
    assert "Version 3 of reviews is not served: a rollback" in caplog.text
    with pytest.raises(UserError, match="no version before 1, which is served. It has: 1, 2, 3"):
        store.serve_newest("reviews")
    assert store.serve_newest("reviews", 3) == 3
    assert store.settings("reviews") == Settings(None, {"canary": 2})
    with pytest.raises(UserError, match="no version 9. It has: 1, 2, 3"):
        store.label("reviews", "stable", 9)
    with pytest.raises(UserError, match="no model 'other'. It has: reviews"):
        store.serve_newest("other")
    for content in ("{", '{"newest": "2"}', '{"labels": {"a": true}}'):
        (store.folder / "reviews/versions.json").write_text(content)
        with pytest.raises(UserError, match=r"versions\.json (is no JSON|holds .*; expected num)"):
            store.wanted("reviews")


@contextmanager
def watched(store: Store) -> Iterator[tuple[TestClient, Watcher, Catalogue]]:
    """Serve a folder in this process, and look at it when told to."""
    catalogue = Catalogue()
    watcher = Watcher(store, catalogue, LOAD, 0, lambda: None)
    watcher.fill()
    with TestClient(application(Served(catalogue, reload=watcher.reload),
                                alongside=watcher.watching)) as client:
        yield client, watcher, catalogue


def states(client: TestClient) -> dict[str, str]:
    listed = client.get("/v1/models/reviews").json()["model_version_status"]
    return {version["version"]: version["state"] for version in listed}


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def ask(client: TestClient, which: str = "") -> dict[str, Any]:
    return client.post(f"/v1/models/reviews{which}:answer", json=TEXT).json()


def test_the_newest_and_labelled_versions_answer(store):
    store.label("reviews", "stable", 1)
    with watched(store) as (client, _, _):
        assert states(client) == {"2": "AVAILABLE", "1": "AVAILABLE"}
        assert "labels" in ask(client)["answers"][0]
        assert "label" in ask(client, "/versions/1")["answers"][0]
        assert ask(client, "/labels/stable") | {"latency_ms": 0} == \
            ask(client, "/versions/1") | {"latency_ms": 0}
        assert "version label: none" in ask(client, "/labels/none")["error"]
        assert ask(client, "/versions/3")["error"] == \
            "Servable not found for request: Specific(reviews, 3)"
        for path, version in (("", 2), ("/versions/1", 1), ("/labels/stable", 1)):
            spec = client.get(f"/v1/models/reviews{path}/metadata").json()["model_spec"]
            assert (spec["name"], spec["version"]) == ("reviews", str(version))
        assert [m["version"] for m in client.get("/healthz").json()["models"]] == [2]


def test_versions_come_and_go_while_the_server_runs(store, artifact):
    shutil.rmtree(store.path("reviews", 2))
    with watched(store) as (client, watcher, _):
        assert states(client) == {"1": "AVAILABLE"}
        store.add(artifact, "reviews")
        client.portal.call(watcher.refresh)
        assert states(client) == {"2": "AVAILABLE", "1": "END"}
        store.serve_newest("reviews")
        client.portal.call(watcher.refresh)
        assert states(client) == {"2": "END", "1": "AVAILABLE"}
        store.add(artifact, "others")
        client.portal.call(watcher.ask)
        until(lambda: client.get("/v1/models/others").status_code == 200)
        shutil.rmtree(store.folder / "others")
        client.portal.call(watcher.refresh)
        assert client.post("/v1/models/others:answer", json=TEXT).status_code == 404
        assert "label" in ask(client)["answers"][0]


def test_a_version_that_cannot_be_loaded_leaves_the_old_one(store, artifact, caplog):
    store.serve_newest("reviews")
    with watched(store) as (client, watcher, _):
        graph = store.path("reviews", 2) / "onnx/model_quantized.onnx"
        whole = graph.read_bytes()
        graph.write_bytes(whole[:-1])
        store.serve_newest("reviews", 2)
        for _ in range(2):  # and is not tried again until it changes
            client.portal.call(watcher.refresh)
        assert states(client) == {"2": "END", "1": "AVAILABLE"}
        assert caplog.text.count("Version 2 of reviews cannot be loaded") == 1
        listed = client.get("/v1/models/reviews/versions/2").json()["model_version_status"]
        assert "cut short or was changed" in listed[0]["status"]["error_message"]
        assert "label" in ask(client)["answers"][0]
        graph.write_bytes(whole)
        os.utime(store.path("reviews", 2) / "manifest.json")
        client.portal.call(watcher.refresh)
        assert states(client) == {"2": "AVAILABLE", "1": "END"}
        (store.folder / "reviews/versions.json").write_text("{")
        client.portal.call(watcher.refresh)
        assert "is no JSON" in caplog.text
        assert "labels" in ask(client)["answers"][0]


def test_what_an_old_version_has_begun_it_ends(store, monkeypatch):
    store.serve_newest("reviews")
    with watched(store) as (client, watcher, catalogue):
        old, go_on = catalogue.find("reviews"), threading.Event()
        real = old.predictor.outputs

        def slow(encoded: Any) -> Any:
            assert go_on.wait(20)
            return real(encoded)

        monkeypatch.setattr(old.predictor, "outputs", slow)
        found: list[dict[str, Any]] = []
        asking = threading.Thread(target=lambda: found.append(ask(client)))
        asking.start()
        until(lambda: old._under_way > 0)
        store.serve_newest("reviews", 2)
        client.portal.call(watcher.refresh)
        assert "labels" in ask(client)["answers"][0]
        go_on.set()
        asking.join(20)
        assert "label" in found[0]["answers"][0]


def test_a_folder_without_models(tmp_path, store):
    (tmp_path / "empty").mkdir()
    done = command("serving", tmp_path / "empty", "--port", "0")
    assert (done.returncode, "is not a finished artifact" in done.stderr) == (2, True)
    for version in (1, 2):
        (store.path("reviews", version) / "tokenizer.json").unlink()
    done = command("serving", store.folder, "--port", "0")
    assert done.returncode == 2
    assert "holds no model that can be served. Add one: python -m serving add" in done.stderr


def test_the_verbs(artifact, tmp_path):
    models = tmp_path / "models"
    for words, message in (
            (("add", artifact, models), f"Wrote {models}/classify/1. To serve it: python -m"),
            (("add", artifact, models, "--name", "classify"), f"Wrote {models}/classify/2."),
            (("rollback", models, "classify"), "Version 1 of classify is served."),
            (("label", models, "classify", "canary", "2"), "canary means version 2 of classify.")):
        done = command("serving", *words)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert message in done.stdout
    assert json.loads((models / "classify/versions.json").read_text()) == {
        "newest": 1, "labels": {"canary": 2}}
    done = command("serving", "rollback", models, "classify")
    assert done.returncode == 2
    assert done.stderr.startswith("error: classify has no version before 1")


def asking(url: str, end: threading.Event, found: Counter) -> None:
    while not end.is_set():
        try:
            status, body = post(f"{url}/v1/models/reviews:answer", TEXT)
            found[f"{status} {sorted(body['answers'][0])}" if status == 200 else status] += 1
        except (OSError, http.client.HTTPException) as error:
            found[type(error).__name__] += 1


@contextmanager
def load(url: str) -> Iterator[Counter]:
    """Ask in four threads; give how often what was answered."""
    end, found = threading.Event(), Counter()
    threads = [threading.Thread(target=asking, args=(url, end, found)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        end.set()
        for thread in threads:
            thread.join()


def children(process: subprocess.Popen) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in listed.split()]


def runs(number: int) -> bool:
    """Whether a process is there and has not ended; in a container nobody may ask how it ended."""
    stat = Path(f"/proc/{number}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_versions_change_and_processes_die_under_load(store):
    """No request fails by a change; by a kill only those of the process that was killed."""
    store.serve_newest("reviews")
    one, several = "200 ['label', 'score', 'scores']", "200 ['labels', 'scores']"
    with served(store.folder, "--workers", "2", "--poll-s", "0") as (process, url, lines):
        assert "in 2 processes of 1 thread(s) each" in lines[-1]
        with load(url) as found:
            until(lambda: found[one] > 20)
            store.serve_newest("reviews", 2)
            process.send_signal(signal.SIGHUP)
            until(lambda: found[several] > 50 and answering(url) == {2})
            before = found[one]
            time.sleep(0.5)
            assert found[one] == before
        assert set(found) == {one, several}
        victim = children(process)[0]
        with load(url) as found:
            until(lambda: found[several] > 20)
            os.kill(victim, signal.SIGKILL)
            until(lambda: len(set(children(process)) - {victim}) == 2)
            time.sleep(0.5)  # a hundred requests more
        assert sum(found.values()) - found[several] <= 4  # a request of each client
        # What took its place has what the folder says, not what was loaded at first.
        for _ in range(20):
            with urllib.request.urlopen(f"{url}/healthz", timeout=20) as answer:
                assert json.load(answer)["version"] == 2
        last = children(process)
        assert "another takes its place" in stop(process)
        assert process.returncode == 0
        assert not any(map(runs, last))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_call_has_the_folder_looked_at_by_all_processes(store, workers):
    store.serve_newest("reviews")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with served(store.folder, "--workers", workers, "--poll-s", "0", "--grpc-port",
                str(port)) as (_, url, _):
        store.serve_newest("reviews", 2)
        assert post(f"{url}/v2/repository/models/reviews/load", {}) == (200, {})
        until(lambda: answering(url) == {2})
        store.serve_newest("reviews", 1)
        assert Client(port).call(RELOAD).status.error_code == 0
        until(lambda: answering(url) == {1})


def answering(url: str) -> set[int]:
    """Ask twenty times over connections of their own, so that all processes answer."""
    found = set()
    for _ in range(20):
        with urllib.request.urlopen(f"{url}/healthz", timeout=20) as answer:
            found.add(json.load(answer)["version"])
    return found


def test_the_repository_lists_versions_and_loads_what_is_new(store):
    with watched(store) as (client, _, _):
        listed = client.post("/v2/repository/index").json()
        assert listed == [{"name": "reviews", "version": "2", "state": "READY", "reason": ""}]
        (store.path("reviews", 3) / "manifest.json").parent.mkdir()
        (store.path("reviews", 3) / "manifest.json").write_text("{")
        store.label("reviews", "stable", 1)
        load = "/v2/repository/models/{}/load"
        assert client.post(load.format("reviews")).json() == {}
        found = {one["version"]: one for one in client.post("/v2/repository/index").json()}
        assert [found[v]["state"] for v in "123"] == ["READY", "READY", "UNAVAILABLE"]
        assert "manifest.json cannot be read" in found["3"]["reason"]
        ready = client.post("/v2/repository/index", json={"ready": True}).json()
        assert [one["version"] for one in ready] == ["2", "1"]
        answer = client.post("/v2/repository/index", json={"ready": "yes"})
        assert (answer.status_code, answer.json()["error"]) == (
            400, 'ready is "yes"; expected true or false.')
        assert client.post(load.format("other")).status_code == 404
        answer = client.post(load.format("reviews"), json={"parameters": {"config": "{}"}})
        assert (answer.status_code, answer.json()["error"]) == (
            400, 'Unknown key "parameters" in the request. Known: none.')


def test_a_server_of_one_artifact_has_no_folder_to_look_at(artifact):
    client = TestClient(create_app(Predictor(artifact, "onnx")))
    answer = client.post("/v2/repository/models/classify/load")
    assert answer.status_code == 400
    assert "started with one artifact" in answer.json()["error"]


def test_processes_end_with_a_killed_parent(artifact):
    with served(artifact, "--workers", "2") as (process, _, _):
        until(lambda: len(children(process)) == 2)
        found = children(process)
        process.kill()
        process.wait()
        until(lambda: not any(map(runs, found)))


def test_a_saved_model_runs_in_one_process(artifact):
    done = command("serving", artifact, "--port", "0", "--workers", "2", "--runtime",
                   "saved_model")
    assert done.returncode == 2
    assert "--workers is 2, and" in done.stderr
    assert "Use --workers 1, or --runtime onnx" in done.stderr
