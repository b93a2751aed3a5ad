"""Plain text, one text a line: `lines:corpus.txt`. Blank lines are skipped."""

from collections.abc import Iterator

from ..sources import Record
from . import _files

SCHEMES: dict[str, dict[str, str]] = {"lines": {}}
OPTIONS: dict[str, str] = {}


def read(location: str, options: dict[str, str]) -> Iterator[Record]:
    """Yield {"text"} for each line that is not blank, without its line ending."""
    for line in _files.text_lines(_files.existing(location)):
        if line.strip():
            yield {"text": line.rstrip("\r\n")}
