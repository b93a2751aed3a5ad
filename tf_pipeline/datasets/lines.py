"""Plain text, one text a line: `lines:corpus.txt`. Blank lines are skipped and counted."""

import logging
from collections.abc import Iterator

from ..sources import Record
from . import _files

log = logging.getLogger(__name__)
SCHEMES: dict[str, dict[str, str]] = {"lines": {}}
OPTIONS: dict[str, str] = {}


def read(location: str, options: dict[str, str]) -> Iterator[Record]:
    """Yield {"text"} for each line that is not blank, without its line ending."""
    blank = 0
    for line in _files.text_lines(_files.existing(location)):
        if line.strip():
            yield {"text": line.rstrip("\r\n")}
        else:
            blank += 1
    if blank:
        log.info("%s: %d blank lines skipped.", location, blank)
