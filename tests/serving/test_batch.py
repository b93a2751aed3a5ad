"""`python -m serving batch`: every row once, also where processes and the job itself are killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serving import create_app
from tests.conftest import ROOT, command, opinions, pairs, travels, write_csv
from tf_pipeline.predictor import Predictor

ROWS = 3000
FLAGS = ("--chunk", "16", "--processes", "2", "--keep", "id")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Give many rows, each hundredth of them without a text."""
    rows = [{"id": str(i), "review": "" if i % 100 == 7 else row["text"]}
            for i, row in enumerate(opinions(ROWS))]
    return f"csv:{write_csv(tmp_path_factory.mktemp('rows') / 'rows.csv', rows)}?text=review"


@pytest.fixture(scope="module")
def whole(artifact, data, tmp_path_factory) -> tuple[bytes, bytes]:
    """Give the answers and the errors of a job that nothing disturbs."""
    out = tmp_path_factory.mktemp("whole") / "answers.jsonl"
    done = command("serving", "batch", artifact, "--data", data, "--out", out, *FLAGS)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (f"Wrote {out} with 2,970 answers, and {out.parent}/answers.errors.jsonl "
                           "with 30 rows that have none.\n")
    assert sorted(p.name for p in out.parent.iterdir()) == ["answers.errors.jsonl",
                                                            "answers.jsonl"]
    return out.read_bytes(), out.with_name("answers.errors.jsonl").read_bytes()


def start(artifact: Path, data: str, out: Path, *flags: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "serving", "batch", str(artifact), "--data", data, "--out",
             str(out), *(flags or FLAGS)]
    # What a shell starts in the background does not hear Ctrl-C, and hands that on.
    return subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True, preexec_fn=lambda: signal.signal(
                                signal.SIGINT, signal.default_int_handler))


def wait_for_parts(out: Path, count: int) -> None:
    end = time.monotonic() + 120
    while len(list(out.parent.glob(f"{out.name}.parts/0*.jsonl"))) < count:
        assert time.monotonic() < end, f"no {count} parts came"
        time.sleep(0.01)


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Give the processes that answer."""
    listed = subprocess.run(["ps", "-ww", "--ppid", str(process.pid), "-o", "pid=", "-o", "args="],
                            text=True, capture_output=True, check=False).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "spawn_main" in line]


def results(out: Path) -> tuple[bytes, bytes]:
    assert not out.with_name(f"{out.name}.parts").exists()
    return out.read_bytes(), out.with_name(f"{out.stem}.errors.jsonl").read_bytes()


def test_answers_and_errors_stand_in_the_order_of_the_rows(whole):
    answers, errors = ([json.loads(line) for line in part.decode().splitlines()]
                       for part in whole)
    bad = [i for i in range(ROWS) if i % 100 == 7]
    assert [row["columns"] for row in errors] == [{"id": str(i)} for i in bad]
    assert [row["row"] for row in errors] == [i + 2 for i in bad]  # the header is row 1
    assert {row["error"] for row in errors} == {"text is '': there is nothing to answer."}
    assert [row["row"] for row in answers] == [i + 2 for i in range(ROWS) if i not in bad]
    assert all(row["columns"] == {"id": str(row["row"] - 2)} for row in answers)
    right = sum(row["answer"]["label"] == opinion["label"] for row, opinion in zip(
        answers, (o for i, o in enumerate(opinions(ROWS)) if i not in bad), strict=True))
    assert right > 0.9 * len(answers)


@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
@pytest.mark.parametrize("task", ["classify", "match", "tag"])
def test_the_answers_are_those_of_the_server(task: str, runtime: str, tmp_path: Path,
                                             toy_artifact: Callable[[str], Path]) -> None:
    rows = {"classify": [{"text": r["text"]} for r in opinions(20, seed=5)],
            "match": [{"text": r["text"], "text_b": r["text_b"]} for r in pairs(20, seed=5)],
            "tag": [{"text": " ".join(words)} for words, _ in travels(20, seed=5)]}[task]
    bad = {"text": "half \ud83d"}, {"text_b": "x"}, {"text": 5, "text_b": "x"}, {"text": "é" * 300}
    (tmp_path / "rows.jsonl").write_text("".join(
        json.dumps(row) + "\n" for row in (*rows, *bad)), "utf-8")
    done = command("serving", "batch", toy_artifact(task), "--data",
                   f"jsonl:{tmp_path / 'rows.jsonl'}", "--out", tmp_path / "out.jsonl",
                   "--runtime", runtime, "--variant", "float32", "--max-characters", "200",
                   "--chunk", "8", "--processes", "1")
    assert done.returncode == 0, done.stderr
    client = TestClient(create_app(Predictor(toy_artifact(task), runtime, "float32")))
    served = client.post(f"/v1/models/{task}:answer", json={"texts": [
        list(row.values()) if len(row) > 1 else row["text"] for row in rows]}).json()["answers"]
    ours = lines(tmp_path / "out.jsonl")
    assert [row["row"] for row in ours] == list(range(1, 21))
    for mine, theirs in zip(ours, served, strict=True):
        assert close(mine["answer"], theirs)
    errors = lines(tmp_path / "out.errors.jsonl")
    assert [row["row"] for row in errors] == [21, 22, 23, 24]
    if task != "match":
        assert [row["error"][:24] for row in errors] == [
            "text holds half of a sur", "text is missing.", "text is '5', of type int",
            "text has 300 characters;"]


def close(mine, theirs) -> bool:
    """Whether answers agree but for what float32 rounds."""
    if isinstance(mine, float):
        return mine == pytest.approx(theirs, abs=1e-5)
    if isinstance(mine, dict):
        return mine.keys() == theirs.keys() and all(close(mine[k], theirs[k]) for k in mine)
    if isinstance(mine, list):
        return len(mine) == len(theirs) and all(map(close, mine, theirs))
    return mine == theirs


def test_a_killed_process_is_replaced_and_nothing_is_lost(artifact, data, whole, tmp_path):
    out = tmp_path / "answers.jsonl"
    process = start(artifact, data, out)
    wait_for_parts(out, 10)
    killed = workers(process)
    assert len(killed) == 2
    os.kill(killed[0], signal.SIGKILL)
    wait_for_parts(out, 60)
    for pid in workers(process):
        os.kill(pid, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert len(re.findall(r"A process ended by SIGKILL over rows \d+ to \d+\. Another", said)) >= 2
    assert results(out) == whole


def test_a_killed_job_goes_on_to_the_same_bytes(artifact, data, whole, tmp_path, toy_artifact):
    out = tmp_path / "answers.jsonl"
    for parts, flags in ((10, FLAGS), (80, (*FLAGS, "--resume"))):
        process = start(artifact, data, out, *flags)
        wait_for_parts(out, parts)
        others = workers(process)
        process.kill()
        process.communicate()
        end = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in others):
            assert time.monotonic() < end, "processes outlive their job"
            time.sleep(0.05)
        assert not out.exists()
    def words(folder=artifact, rows=data, chunk="16") -> list[str | Path]:
        return ["serving", "batch", folder, "--data", rows, "--out", out, "--chunk", chunk,
                "--keep", "id", "--processes", "1"]

    assert "holds a job that did not end, with" in refused(*words())
    for changed, said in ((words(chunk="17"), "--chunk 16; now it is 17. Give the same"),
                          (words(rows=f"{data}&label=id"), "label id"),
                          (words(toy_artifact("tag")), "which has artifact")):
        assert said in refused(*changed, "--resume")
    done = command(*words(), "--resume")
    assert done.returncode == 0, done.stderr
    assert re.search(r"Going on: \d+ chunks of rows are answered", done.stderr)
    assert results(out) == whole
    assert "exists and is not overwritten" in refused(*words(), "--resume")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_the_job_and_it_says_how_to_go_on(number, code, artifact, data, whole,
                                                        tmp_path):
    out = tmp_path / "answers.jsonl"
    process = start(artifact, data, out)
    wait_for_parts(out, 5)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert f"kept in {out}.parts; to go on, give the same command with --resume." in said
    assert "Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["answers.jsonl.parts"]
    assert not list(tmp_path.glob("*/.*.partial"))
    done = command("serving", "batch", artifact, "--data", data, "--out", out, *FLAGS, "--resume")
    assert done.returncode == 0, done.stderr
    assert results(out) == whole


def limited(artifact: Path, data: str, out: Path, size: int) -> subprocess.CompletedProcess[str]:
    """Run a job on a disk that takes no file above so many bytes."""
    code = (f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
            "from serving.cli import main; sys.exit(main(sys.argv[1:]))")
    return subprocess.run([sys.executable, "-c", code, "batch", artifact, "--data", data, "--out",
                           out, *FLAGS], cwd=ROOT, text=True, capture_output=True, check=False)


@pytest.mark.parametrize("size", [1500, 50_000], ids=["part", "whole"])
def test_a_full_disk_leaves_nothing_half_written(size, artifact, data, whole, tmp_path):
    out = tmp_path / "answers.jsonl"
    done = limited(artifact, data, out, size)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "the disk is full" in said
    assert "give the same command with --resume" in said
    assert [p.name for p in tmp_path.iterdir()] == ["answers.jsonl.parts"]
    done = command("serving", "batch", artifact, "--data", data, "--out", out, *FLAGS, "--resume")
    assert done.returncode == 0, done.stderr
    assert results(out) == whole


def test_a_job_killed_before_its_last_step_is_complete(artifact, data, whole, tmp_path):
    out = tmp_path / "answers.jsonl"
    code = ("import os, sys\nfrom serving.batch import parts\n"
            "parts.Parts.remove = lambda self: os._exit(9)\n"
            "from serving.cli import main; sys.exit(main(sys.argv[1:]))")
    words = ["batch", artifact, "--data", data, "--out", out, *FLAGS]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, check=False)
    assert done.returncode == 9
    assert "exists and is not overwritten" in refused("serving", *words)
    done = command("serving", *words, "--resume")
    assert "with 2,970 answers" in done.stdout, done.stderr
    assert results(out) == whole


def test_rows_that_end_every_process_end_the_job(artifact, data, tmp_path):
    out = tmp_path / "answers.jsonl"
    process = start(artifact, data, out, "--chunk", "3000", "--processes", "1")
    killed: set[int] = set()
    end = time.monotonic() + 60
    while len(killed) < 3 and process.poll() is None:
        assert time.monotonic() < end, killed
        for pid in set(workers(process)) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert ("error: 3 processes, one after the other, ended by SIGKILL over rows 2 to 3001."
            in said.splitlines()[-1])


def refused(*words: str | Path) -> str:
    done = command(*words)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr
