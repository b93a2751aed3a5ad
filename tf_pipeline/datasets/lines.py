"""Plain text, one text a line: `lines:corpus.txt`. Blank lines are skipped and counted."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing

from ..errors import UserError
from ..sources import Record, Row
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


def rows(location: str, options: dict[str, str], fields: Sequence[str],
         kept: Sequence[str]) -> Iterator[Row]:
    """Yield every line, blank ones too: see `sources.rows`."""
    if lacking := [name for name in (*fields, *kept) if name != "text"]:
        raise UserError(f"{location} is plain text, without a column {lacking[0]!r}. Give the rows "
                        "as csv, tsv or jsonl.")
    with closing(_files.Lines(_files.existing(location))) as lines:
        for line in lines:
            text = line.rstrip("\r\n")
            yield Row(lines.number, lines.end, {} if lines.damage else {"text": text},
                      dict.fromkeys(kept, text), lines.damage)
            lines.begin()
