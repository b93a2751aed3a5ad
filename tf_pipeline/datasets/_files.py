"""Text files as readers need them: named line by line when something is wrong in one."""

import codecs
import difflib
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
    if 0 in raw:
        raise UserError(f"{path}, row {row}, byte offset {offset + raw.index(0)}: a NUL byte, "
                        "which no text has. Remove it, or save the file as UTF-8 if it is UTF-16.")
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, row {row}, byte offset {offset + error.start}: "
                        f"{raw[error.start:error.start + 1]!r} is not UTF-8. "
                        "Save the file as UTF-8.") from None
    return line.removeprefix("\ufeff") if row == 1 else line
