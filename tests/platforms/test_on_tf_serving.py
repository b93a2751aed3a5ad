"""TF Serving's own messages and stubs read what convert and `python -m serving tf-serving` wrote.

The environment holds the TensorFlow that the newest server is built of. The server program itself
is not run.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.twin import Twin
from serving.deploy import deploy
from serving.options import DeployOptions
from tests.platforms.conftest import HERE
from tf_pipeline import plugins, tasks
from tf_pipeline.artifact import Manifest
from tf_pipeline.run import Run

pytestmark = pytest.mark.platforms


def ask(python: Path, program: str, *words: Path) -> str:
    done = subprocess.run([python, HERE / program, *words], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("task", plugins.names(tasks))
def test_warm_up_requests_are_answered(task: str, toy_run: Callable[[str], Path],
                                       toy_artifact: Callable[[str], Path],
                                       environment: Callable[[str], Path],
                                       tmp_path: Path) -> None:
    twin, artifact = Twin(Run.load(toy_run(task))), toy_artifact(task)
    signatures = Manifest.load(artifact).signatures
    requests = json.loads(ask(environment("tf_serving"), "replay_tf_serving.py",
                              artifact / "saved_model/1", tmp_path / "found.npz"))
    assert {r["signature"] for r in requests} == set(signatures)
    found = np.load(tmp_path / "found.npz")
    sizes = {name: set() for name in signatures}
    for i, request in enumerate(requests):
        signature = signatures[request["signature"]]
        assert request["model"] == artifact.name
        assert request["inputs"] == sorted(signature["inputs"])
        assert request["outputs"] == sorted(signature["outputs"])
        given = {name: found[f"in{i}.{name}"] for name in request["inputs"]}
        count = len(next(iter(given.values())))
        sizes[request["signature"]].add(count)
        if "input_ids" not in given:
            first, *second = (given[field].tolist() for field in twin.task.text_fields)
            encoded = twin.encoder.encode(first, second[0] if second else None, twin.run.max_len)
            given = encoded.padded(range(count), int(encoded.lengths.max()))
        expected = twin.runner(given)
        for name in request["outputs"]:
            values = found[f"out{i}.{name}"]
            if name == "label":
                best = expected["probabilities"].argmax(-1)
                assert values.tolist() == [twin.task.labels[at] for at in best]
                continue
            assert np.isfinite(values).all()
            wanted = expected[name]
            if wanted.ndim > 2:  # what a model gives for padding means nothing
                mask = given["attention_mask"][..., None]
                values, wanted = values * mask, wanted * mask
            np.testing.assert_allclose(values, wanted, atol=1e-4 * twin.task.unit)
    assert all(counts == {1, 8} for counts in sizes.values())


def test_the_folder_to_deploy_is_what_others_expect(toy_artifact: Callable[[str], Path],
                                                    environment: Callable[[str], Path],
                                                    tmp_path: Path) -> None:
    deploy([toy_artifact("classify"), toy_artifact("embed")],
           DeployOptions(out=tmp_path / "deploy", cores=3, batch_size=16))
    read = json.loads(ask(environment("tf_serving"), "read_tf_serving.py", tmp_path / "deploy"))
    configs = read["models"]["model_config_list"]["config"]
    assert [(c["name"], c["base_path"], c["model_platform"]) for c in configs] == [
        (name, f"/models/{name}", "tensorflow") for name in ("classify", "embed")]
    assert all(c["model_version_policy"] == {"latest": {"num_versions": 1}} for c in configs)
    batching = read["batching"]
    assert batching["max_batch_size"] == "16"
    assert batching["num_batch_threads"] == "3"
    assert batching["allowed_batch_sizes"] == ["1", "2", "4", "8", "16"]
    assert batching["pad_variable_length_inputs"] is False
