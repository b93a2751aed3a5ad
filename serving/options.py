"""What a server or a static site can be asked for: flags of `python -m serving`."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tf_pipeline.config import option
from tf_pipeline.errors import UserError

WARM_UP_BATCH = 8  # texts in the largest request of the warm-up file; refused, it stops the loading
_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)  # of Kubernetes (RFC 1123)


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    max_body_bytes: int = option(1_000_000, help="longest request body; a longer one gets a 413")
    max_texts: int = option(256, help="most texts, or rows of token ids, in one request")
    max_characters: int = option(100_000, help="longest text in characters")
    read_timeout_ms: int = option(30_000, help="a client has so long to send a request's head, and "
                                  "as long again for its body")

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_texts", "max_characters", "read_timeout_ms"):
            if getattr(self, name) < 1:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is {getattr(self, name)}; it must be 1 or more.")


@dataclass(frozen=True)
class Queueing:
    """How requests wait for a file and share its calls."""

    batch_size: int = option(32, help="most texts that one call of the model answers, of any "
                             "number of requests; for files that take several at once")
    queue_size: int = option(1024, help="most texts that may wait; a request beyond gets a 429 "
                             "with Retry-After")
    timeout_ms: int = option(30_000, help="a request's deadline, where X-Request-Timeout-Ms names "
                             "no earlier one")

    def __post_init__(self) -> None:
        for name in ("batch_size", "queue_size", "timeout_ms"):
            if getattr(self, name) < 1:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is {getattr(self, name)}; it must be 1 or more.")


@dataclass(frozen=True)
class ServeOptions:
    """Which file answers, and where."""

    runtime: str | None = option(None, help="onnx, tflite or saved_model; default: the first of "
                                 "them in the artifact")
    variant: str | None = option(None, help="e.g. float32 or int8; default: float32 if there")
    length: int | None = option(None, help="text length of the TFLite file, e.g. 64; "
                               "default: for each text the shortest that holds it")
    host: str = option("127.0.0.1", help="address to listen at; 0.0.0.0: all of this computer's")
    port: int = option(8501, help="0: any free one")
    grpc_port: int | None = option(None, help="speak TF Serving's gRPC, too, e.g. at 8500")
    threads: int | None = option(None, help="threads of the runtime; default: its own choice, or "
                                 "with several workers the cores shared among them")
    workers: int = option(1, help="processes that answer; they share the files' memory")
    poll_s: float = option(2.0, help="look for new versions in a folder of models after so many "
                           "seconds; 0: at SIGHUP only")

    log_requests: bool = option(False, help="write a JSON line for each request: time, path, "
                                "status, milliseconds; never its texts")
    token_file: Path | None = option(None, help="file with a token that requests must bring, as "
                                     "Authorization: Bearer TOKEN; health is open")
    tls_cert: Path | None = option(None, help="certificate chain in PEM, for https")
    tls_key: Path | None = option(None, help="the certificate's private key in PEM")

    @property
    def token(self) -> str | None:
        """What token_file holds, without blanks around."""
        if self.token_file is None:
            return None
        try:
            found = self.token_file.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise UserError(f"--token-file {self.token_file} cannot be read: {error}.") from None
        if len(found) < 16 or not found.isprintable():
            raise UserError(f"--token-file {self.token_file} holds {len(found)} characters; "
                            "expected one token of 16 or more, as `openssl rand -hex 32` makes.")
        return found

    @property
    def runtime_threads(self) -> int | None:
        """Threads of each worker's runtime; None: the runtime's own choice."""
        if self.threads is None and self.workers > 1:
            return max(1, (os.cpu_count() or 1) // self.workers)
        return self.threads

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise UserError(f"--port is {self.port}; allowed: 0 to 65535.")
        if self.grpc_port is not None and not 1 <= self.grpc_port <= 65_535:
            raise UserError(f"--grpc-port is {self.grpc_port}; allowed: 1 to 65535.")
        if self.workers < 1:
            raise UserError(f"--workers is {self.workers}; it must be 1 or more.")
        for name in ("token_file", "tls_cert", "tls_key"):
            if isinstance(getattr(self, name), str):  # as Python users write it
                object.__setattr__(self, name, Path(getattr(self, name)))
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UserError(f"--tls-cert is {self.tls_cert} and --tls-key is {self.tls_key}; https "
                            "needs both.")
        if not self.poll_s >= 0:
            raise UserError(f"--poll-s is {self.poll_s}; it must be 0 or more seconds.")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"--threads is {self.threads}; it must be 1 or more.")


@dataclass(frozen=True)
class DeployOptions:
    """What the server may use; the flags of `python -m serving tf-serving`."""

    out: Path | None = option(None, help="folder to write, e.g. deploy")
    name: str = option("bert-serving", help="what Kubernetes calls the deployment")
    image: str = option("bert-serving:1", help="what you call the image that you build of the "
                        "Dockerfile")
    cores: int = option(4, help="CPU cores that the server may use")
    batch_size: int = option(32, help="most texts in a request, and in one call of the model; a "
                             "power of 2")

    def __post_init__(self) -> None:
        if isinstance(self.out, str):  # as Python users write it
            object.__setattr__(self, "out", Path(self.out))
        if self.cores < 1:
            raise UserError(f"--cores is {self.cores}; it must be 1 or more.")
        if self.batch_size < WARM_UP_BATCH or self.batch_size & (self.batch_size - 1):
            raise UserError(f"--batch-size is {self.batch_size}; allowed are powers of 2 from "
                            f"{WARM_UP_BATCH} on: so many texts at once are in the warm-up file, "
                            "and a refused request stops the loading.")
        if not _LABEL.fullmatch(self.name):
            raise UserError(f"--name is {self.name!r}; Kubernetes allows small letters, digits and "
                            "dashes, a letter first, at most 63.")


@dataclass(frozen=True)
class WebOptions:
    """What goes on a static site, and where it is written."""

    out: Path = option(help="folder to write, e.g. site")
    runtime: str | None = option(None, help="onnx or tflite; default: both")
    variant: str | None = option(None, help="e.g. float32 or int8; default: all")
    length: int | None = option(None, help="text length of the TFLite files; default: all")
    libraries: Path | None = option(None, help="node_modules with the page's libraries; default: "
                                    "the user's cache folder, filled through npm once")
