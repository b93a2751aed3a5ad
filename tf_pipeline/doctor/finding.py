"""What the doctor says of one thing."""

from dataclasses import dataclass
from typing import Literal

Area = Literal["training", "export", "serving"]
Level = Literal["ok", "warning", "error"]
AREAS: tuple[Area, ...] = ("training", "export", "serving")


@dataclass(frozen=True)
class Finding:
    """One thing looked at; an error means that its areas would not work."""

    areas: tuple[Area, ...]
    level: Level
    what: str
    value: str  # what was found
    cure: str = ""  # a command line; empty only when all is well
