"""What a server can be asked for; the flags of `python -m serving`."""

from dataclasses import dataclass

from tf_pipeline.config import option
from tf_pipeline.errors import UserError


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    max_body_bytes: int = option(1_000_000, help="longest request body; a longer one gets a 413")
    max_texts: int = option(256, help="most texts, or rows of token ids, in one request")
    max_characters: int = option(100_000, help="longest text in characters")

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_texts", "max_characters"):
            if getattr(self, name) < 1:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} is {getattr(self, name)}; it must be 1 or more.")


@dataclass(frozen=True)
class ServeOptions:
    """Which file answers, and where."""

    runtime: str | None = option(None, help="onnx, tflite or saved_model; default: the first of "
                                 "them in the artifact")
    variant: str | None = option(None, help="e.g. float32 or int8; default: float32 if there")
    length: int | None = option(None, help="text length of the TFLite file, e.g. 64")
    host: str = option("127.0.0.1", help="address to listen at; 0.0.0.0: all of this computer's")
    port: int = option(8501, help="0: any free one")
    threads: int | None = option(None, help="threads of the runtime; default: its own choice")

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise UserError(f"--port is {self.port}; allowed: 0 to 65535.")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"--threads is {self.threads}; it must be 1 or more.")
