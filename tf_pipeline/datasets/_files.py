"""Text files as readers need them: named line by line when something is wrong in one."""

import codecs
import difflib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import UserError
from ..sources import Split

# The last word of a file's name before its extension: train.csv, reviews.dev.csv, eng.testa
SPLIT_WORDS: dict[str, Split] = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "testa": "validation",
    "test": "test", "testb": "test",
}
LONGEST_LINE = 1 << 24  # bytes that `Lines` takes at once


def split_files(location: str, extensions: Sequence[str]) -> dict[Split, Path]:
    """Find a folder's split files, one for each split; a single file counts as train.

    `extensions` are lower case with their dot; "" allows a name that ends in its split word.
    Raises UserError if there is no such path, no train file, or a choice between two files.
    """
    path = existing(location)
    if not path.is_dir():
        return {"train": path}
    found: dict[Split, Path] = {}
    for file in sorted(p for p in path.iterdir() if p.is_file()):
        name = file.name.lower()
        extension = next((e for e in extensions if e and name.endswith(e)), "")
        split = SPLIT_WORDS.get(name.removesuffix(extension).rpartition(".")[2])
        if split is None or extension not in extensions:
            continue
        if split in found:
            raise UserError(f"{location} has two {split} files, {found[split].name} and "
                            f"{file.name}; allowed is one. Name the file instead of the folder.")
        found[split] = file
    if "train" not in found:
        allowed = ", ".join(f"train{extension}" for extension in extensions)
        there = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise UserError(f"Folder {location} has no train file; in it: {there}. "
                        f"Call one {allowed}, or name the file instead of the folder.")
    return found


def existing(location: str) -> Path:
    """Give the path, or raise UserError with the closest names in its folder."""
    path = Path(location).expanduser()
    if path.exists():
        return path
    parent = path.parent
    if not parent.is_dir():
        raise UserError(f"No file {location}: its folder {parent} does not exist. "
                        "Check the path.")
    names = [p.name for p in parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=3)
    hint = f"Did you mean {' or '.join(close)}?" if close else "Check the path."
    raise UserError(f"No file {location}. {hint}")


def text_lines(path: Path) -> Iterator[str]:
    """Yield a file's lines with their endings; line n of an editor is the n-th.

    Only a line feed ends a line: a row of a CSV file may hold other breaks, and U+2028 is text.
    Raises UserError for a folder, an empty file, and bytes that are not UTF-8 text.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; a file is needed. Name a file in it.")
    offset = 0
    blank = True
    try:
        with path.open("rb") as file:
            for row, raw in enumerate(file, 1):
                line = _decode(path, row, offset, raw)
                blank = blank and not line.strip()
                yield line
                offset += len(raw)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}. Check the file's rights.") from None
    if blank:
        raise UserError(f"{path} is empty ({offset} bytes). Give a file with at least one row.")


def _decode(path: Path, row: int, offset: int, raw: bytes) -> str:
    if row == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{path} is UTF-16, not UTF-8 (row 1, byte offset 0). Save it as UTF-8.")
    if damage := _damage(offset, raw):
        raise UserError(f"{path}, row {row}, {damage}")
    line = raw.decode("utf-8")
    return line.removeprefix("\ufeff") if row == 1 else line


def _damage(offset: int, raw: bytes) -> str:
    """Say why a line is no text; nothing if it is."""
    if 0 in raw:
        return (f"byte offset {offset + raw.index(0)}: a NUL byte, which no text has. Remove it, "
                "or save the file as UTF-8 if it is UTF-16.")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return (f"byte offset {offset + error.start}: {raw[error.start:error.start + 1]!r} is not "
                "UTF-8. Save the file as UTF-8.")
    return ""


class Lines:
    """Iterates over a file's lines, on past those that are no text, in memory of any file's size.

    A row is a line or several: `begin` starts one, and `damage` then says what is wrong with the
    bytes of its lines so far.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise UserError(f"{path} is no file; a file of rows is needed. Name one.")
        self.path, self.number, self.end = path, 0, 0  # lines and bytes that were given
        self._read_to = 0
        self._row: list[tuple[str, str, int]] = []  # lines with their damage and size in bytes
        self._again: deque[tuple[str, str, int]] = deque()
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror}. Check the file's rights."
                            ) from None

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        self._row.append(line)
        self.number += 1
        self.end += line[2]
        return line[0]

    def begin(self) -> None:
        """Start a row behind the lines that were given."""
        self._row.clear()

    @property
    def damage(self) -> str:
        """Say why the row's lines are no text; nothing if they are."""
        return next((damage for _, damage, _ in self._row if damage), "")

    def give_up_first(self) -> None:
        """Go back to the row's second line."""
        back = self._row[1:]
        self._again.extendleft(reversed(back))
        self.number -= len(back)
        self.end -= sum(size for _, _, size in back)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> tuple[str, str, int]:
        try:
            raw = self._file.readline(LONGEST_LINE)
            size = len(raw)
            rest = raw
            while len(rest) == LONGEST_LINE and not rest.endswith(b"\n"):
                rest = self._file.readline(LONGEST_LINE)
                size += len(rest)
        except OSError as error:
            raise UserError(f"Cannot read {self.path}: {error.strerror}. Check the disk."
                            ) from None
        if not size:
            raise StopIteration
        offset, first = self._read_to, not self._read_to
        self._read_to += size
        if size > LONGEST_LINE:
            return "\n", f"a line of {size:,} bytes; allowed are {LONGEST_LINE:,}.", size
        if first and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            _decode(self.path, 1, 0, raw)  # nothing in the file could be read
        # Escaped, what is no text still keeps its place between quotes.
        text = raw.decode("utf-8", "surrogateescape")
        return text.removeprefix("\ufeff") if first else text, _damage(offset, raw), size
