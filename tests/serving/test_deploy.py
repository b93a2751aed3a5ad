"""`python -m serving tf-serving`: a folder that TF Serving starts from, whole or not at all."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.cli import main
from tests.conftest import command

Copied = Callable[..., Path]


@pytest.fixture
def copied(artifact: Path, tmp_path: Path) -> Copied:
    """Give a function that copies what deploying reads of an artifact, with another manifest."""
    def make(folder: str, **changes: Any) -> Path:
        target = tmp_path / folder
        shutil.copytree(artifact / "saved_model", target / "saved_model")
        manifest = json.loads((artifact / "manifest.json").read_text("utf-8"))
        (target / "manifest.json").write_text(json.dumps(manifest | changes), "utf-8")
        return target

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_folder_holds_the_model_and_what_starts_it(artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "deploy"
    done = command("serving", "tf-serving", artifact, "--out", out)
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    found = contents(out)
    version = {path.removeprefix("models/classify/1/"): content for path, content in found.items()
               if path.startswith("models/classify/1/")}
    assert version == contents(artifact / "saved_model/1")
    assert found.keys() - {f"models/classify/1/{path}" for path in version} == {
        "Dockerfile", "compose.yaml", "kubernetes.yaml", "models/batching.config",
        "models/models.config"}
    for file in ("compose.yaml", "kubernetes.yaml"):
        assert b"--batching_parameters_file=/models/batching.config" in found[file]
    assert b"pad_variable_length_inputs: false" in found["models/batching.config"]
    assert list(tmp_path.iterdir()) == [out]


def test_two_versions_and_another_model(copied: Copied, tmp_path: Path) -> None:
    folders = [copied("a"), copied("b", version=2), copied("c", name="other")]
    out = tmp_path / "deploy"
    assert main(["tf-serving", *map(str, folders), "--out", str(out), "--cores", "2",
                 "--batch-size", "64", "--name", "films", "--image", "films:7"]) == 0
    assert sorted(path.parent.relative_to(out).as_posix()
                  for path in out.rglob("saved_model.pb")) == [
        "models/classify/1", "models/classify/2", "models/other/1"]
    config = (out / "models/models.config").read_text()
    assert re.findall(r'name: "(.*?)"', config) == ["classify", "other"]
    batching = (out / "models/batching.config").read_text()
    assert "max_batch_size { value: 64 }" in batching
    assert re.findall(r"allowed_batch_sizes: (\d+)", batching)[-1] == "64"
    assert "num_batch_threads { value: 2 }" in batching
    kubernetes = (out / "kubernetes.yaml").read_text()
    assert 'image: "films:7"' in kubernetes
    assert 'cpu: "2"' in kubernetes
    assert "/v1/models/classify/metadata" in kubernetes


def test_models_of_token_ids_are_not_batched(copied: Copied, artifact: Path,
                                             tmp_path: Path) -> None:
    signatures = json.loads((artifact / "manifest.json").read_text("utf-8"))["signatures"]
    tokens = copied("a", name="tokens", signatures={"serving_default": signatures["tokens"]})
    out = tmp_path / "deploy"
    assert main(["tf-serving", str(artifact), str(tokens), "--out", str(out)]) == 0
    for file in ("compose.yaml", "kubernetes.yaml"):
        assert "--enable_batching" not in (out / file).read_text()
    assert "Not batched" in (out / "compose.yaml").read_text()


@pytest.mark.parametrize(("words", "said"), [
    (["--cores", "0"], "--cores is 0; it must be 1 or more."),
    (["--batch-size", "48"], "--batch-size is 48; allowed are powers of 2 from 8 on"),
    (["--batch-size", "4"], "--batch-size is 4; allowed are powers of 2 from 8 on"),
    (["--name", "My Films"], "--name is 'My Films'; Kubernetes allows small letters"),
])
def test_impossible_flags_are_refused(words: list[str], said: str, artifact: Path, tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deploy"
    assert main(["tf-serving", str(artifact), "--out", str(out), *words]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(("changes", "said"), [
    ({"graphs": []}, "has no graph with runtime saved_model"),
    ({"name": "no/where"}, "is called 'no/where', which does not go into TF Serving's addresses"),
    ({"name": "classify"}, "are both classify version 1"),
])
def test_artifacts_that_cannot_be_served_are_refused(
        changes: dict[str, Any], said: str, copied: Copied, artifact: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied("a", **changes)
    out = tmp_path / "deploy"
    assert main(["tf-serving", str(artifact), str(folder), "--out", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [folder]


def test_a_damaged_file_and_an_existing_folder_are_refused(
        copied: Copied, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied("a")
    assert main(["tf-serving", str(folder)]) == 2
    assert "--out is missing" in capsys.readouterr().err
    assert main(["tf-serving", str(folder), "--out", str(folder)]) == 2
    assert f"--out {folder} exists" in capsys.readouterr().err
    with (folder / "saved_model/1/saved_model.pb").open("ab") as stream:
        stream.write(b" ")
    assert main(["tf-serving", str(folder), "--out", str(tmp_path / "deploy")]) == 2
    assert "saved_model.pb" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [folder]


def test_drift_is_said_again(copied: Copied, tmp_path: Path,
                             capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied("a", drift=True)
    assert main(["tf-serving", str(folder), "--out", str(tmp_path / "deploy")]) == 0
    assert f"DRIFT: {folder} was published" in capsys.readouterr().err
