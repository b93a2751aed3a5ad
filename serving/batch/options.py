"""The flags of `python -m serving batch`."""

from dataclasses import dataclass
from pathlib import Path

from tf_pipeline.config import flag, option
from tf_pipeline.errors import UserError


@dataclass(frozen=True)
class BatchOptions:
    """Which rows are answered, by what, and where the answers go."""

    data: str = option(help="rows to answer, e.g. 'csv:rows.csv?text=review'; also tsv:, jsonl: "
                       "and lines:, a text a line")
    out: Path = option(help="file of answers to write, one JSON object a line, e.g. "
                       "answers.jsonl; rows without an answer go to answers.errors.jsonl")
    runtime: str | None = option(None, help="onnx, tflite or saved_model; default: the first of "
                                 "them in the artifact")
    variant: str | None = option(None, help="e.g. float32 or int8; default: float32 if there")
    length: int | None = option(None, help="text length of the TFLite file, e.g. 64; "
                               "default: for each text the shortest that holds it")
    processes: int | None = option(None, help="processes that answer, a thread each, which all "
                                   "load the model; default: one for each core")
    chunk: int = option(1024, help="rows that a process answers at a time, and the most that it "
                        "loses when it is killed")
    keep: tuple[str, ...] = option((), help="columns to copy to the answers, e.g. id,date")
    max_characters: int = option(100_000, help="longest text in characters")

    def __post_init__(self) -> None:
        if isinstance(self.out, str):  # as Python users write it
            object.__setattr__(self, "out", Path(self.out))
        for name in ("processes", "chunk", "max_characters"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{flag(name)} is {value}; it must be 1 or more.")
        if not self.out.name or self.out.is_dir():
            raise UserError(f"--out is {self.out}, a folder. Name a file, e.g. "
                            f"{self.out / 'answers.jsonl'}.")

    @property
    def errors(self) -> Path:
        """The file of the rows without an answer."""
        return self.out.with_name(f"{self.out.stem}.errors{self.out.suffix}")
