"""Dataset specs: `SCHEME:LOCATION[?key=value&key=value]`, e.g. `csv:reviews.csv?label=polarity`.

A reader is a file in `datasets/` with
- `SCHEMES`: scheme -> the options that it sets (a file can read several formats),
- `OPTIONS`: option -> one phrase for the user; any other option is refused here,
- `read(location, options) -> Iterator[Record]`, and
- if a location can hold several splits: `splits(location, options)`, which gives for each split
  its location and the options to add, and
- if it can go on past a row that is no good: `rows(location, options, fields, kept)`, see `rows`.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple
from urllib.parse import unquote

from . import datasets, plugins
from .config import PREPARED
from .errors import UserError

Record = dict[str, object]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

# Two letters at least, so that the drive of a Windows path is not taken for a scheme.
SCHEME = re.compile(r"([A-Za-z]\w+):")


class Row(NamedTuple):
    """A row by itself: what it says, or why that cannot be read."""

    number: int  # the line where it begins, as an editor counts
    end: int  # bytes of the file up to its end
    record: Record  # field -> what stands in its column, None for nothing; {} where unreadable
    kept: Record  # column -> what stands there, as it is
    fault: str = ""


def rows(spec: str, fields: Sequence[str], kept: Sequence[str] = ()) -> Iterator[Row]:
    """Read a file of any size row by row, on past rows that cannot be read.

    A record holds `fields` alone, unchecked. UserError, before the first row, for a column that is
    not there.
    """
    reader, location, options = _row_reader(spec)
    found: Iterator[Row] = reader.rows(location, options, fields, kept)
    return found


def row_file(spec: str) -> tuple[Path, dict[str, str]]:
    """Name the file whose rows `rows` reads, and the options that it reads them with."""
    _, location, options = _row_reader(spec)
    return Path(location).expanduser(), options


def _row_reader(spec: str) -> tuple[ModuleType, str, dict[str, str]]:
    scheme, location, options = _parse(spec)
    known = schemes()
    if not hasattr(known[scheme], "rows"):
        able = ", ".join(sorted(name for name in known if hasattr(known[name], "rows")))
        raise UserError(f"{spec!r} is not read row by row; choose one of: {able}.")
    return known[scheme], location, {**known[scheme].SCHEMES[scheme], **options}


def read(spec: str) -> Iterator[Record]:
    """Read one dataset; of a location with several splits, the training split."""
    scheme, location, options = _parse(spec)
    reader = schemes()[scheme]
    records: Iterator[Record] = reader.read(location, {**reader.SCHEMES[scheme], **options})
    return records


def split_specs(spec: str) -> dict[Split, str]:
    """Name the dataset of each split that a spec holds; a single file counts as train."""
    scheme, location, options = _parse(spec)
    reader = schemes()[scheme]
    if not hasattr(reader, "splits"):
        return {"train": spec}
    found = reader.splits(location, {**reader.SCHEMES[scheme], **options})
    return {split: _format(scheme, found[split][0], {**options, **found[split][1]})
            for split in SPLITS if split in found}


def schemes() -> dict[str, ModuleType]:
    """Map each scheme to the reader that declares it."""
    readers = [plugins.load(datasets, name) for name in plugins.names(datasets)]
    return {scheme: reader for reader in readers for scheme in sorted(reader.SCHEMES)}


def _parse(spec: str) -> tuple[str, str, dict[str, str]]:
    """Split a spec into scheme, location and the user's options, and check all three."""
    rest, _, query = spec.partition("?")
    match = SCHEME.match(rest)
    scheme = match[1] if match else _scheme_of_path(rest)
    location = rest[match.end():] if match else rest
    readers = schemes()
    if spec.startswith(PREPARED):
        raise UserError(f"{spec!r} holds token ids, which `train --train` alone reads. Give the "
                        "texts here.")
    if scheme not in readers:
        raise UserError(f"Unknown scheme {scheme!r} in {spec!r}. Choose one of: "
                        f"{', '.join(sorted(readers))}; e.g. csv:{location or 'reviews.csv'}.")
    if not location:
        raise UserError(f"{spec!r} names no location. Write {scheme}:LOCATION.")
    options = parse_options(query, spec)
    allowed = readers[scheme].OPTIONS
    unknown = next((key for key in options if key not in allowed), None)
    if unknown is not None:
        raise UserError(f"Unknown option {unknown!r} in {spec!r}. "
                        f"Allowed for {scheme}: {', '.join(allowed) or 'none'}.")
    return scheme, location, options


def parse_options(query: str, spec: str) -> dict[str, str]:
    """Take `key=value&key=value` apart; errors name `spec`, of which it is a part."""
    options: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        key, equals, value = pair.partition("=")
        if not equals or key in options:
            problem = "is given twice" if equals else "has no value"
            raise UserError(f"Option {key!r} {problem} in {spec!r}. "
                            "Write each as key=value, with & between two of them.")
        options[key] = unquote(value)
    return options


def _scheme_of_path(location: str) -> str:
    """Find the scheme of a bare path: the file's extension, or the only fitting one in a folder."""
    path = Path(location).expanduser()
    files = list(path.iterdir()) if location and path.is_dir() else [path]
    known = sorted(schemes())
    fitting = sorted({f.suffix.lower().removeprefix(".") for f in files} & set(known))
    if len(fitting) != 1:
        reason = f"fits {' and '.join(fitting)}" if fitting else "names no scheme"
        raise UserError(f"Dataset {location!r} {reason}. Write SCHEME:{location or 'LOCATION'} "
                        f"with one of these schemes: {', '.join(known)}.")
    return fitting[0]


def _format(scheme: str, location: str, options: dict[str, str]) -> str:
    """Write a spec that `_parse` takes apart again; only & and % have a meaning in a value."""
    query = "&".join(f"{key}={value.replace('%', '%25').replace('&', '%26')}"
                     for key, value in options.items())
    return f"{scheme}:{location}" + ("?" + query if query else "")
