"""Tagged tokens, one a line, a blank line after each sentence: `conll:folder?columns=0,3`.

A folder holds files such as train.txt, dev.conll, eng.testa or weibo.test.
"""

import re
from collections.abc import Iterator

from ..errors import UserError
from ..sources import Record, Split
from . import _files

SCHEMES: dict[str, dict[str, str]] = {"conll": {}}
OPTIONS = {"columns": "token and tag column from 0, e.g. 0,3; default: first and last"}
EXTENSIONS = ("", ".txt", ".conll", ".bio", ".tsv")

# Not str.split(): U+3000, the ideographic space, is a token of its own in Chinese files.
BLANKS = " \t\r\n"
SEPARATOR = re.compile(r"[ \t]+")


def read(location: str, options: dict[str, str]) -> Iterator[Record]:
    """Yield {"tokens", "tags"} for each sentence; of a folder, its train file."""
    token_column, tag_column = _columns(options.get("columns", "0,-1"))
    path = _files.split_files(location, EXTENSIONS)["train"]
    tokens: list[str] = []
    tags: list[str] = []
    width = sentences = 0
    for row, line in enumerate(_files.text_lines(path), 1):
        stripped = line.strip(BLANKS)
        if not stripped or stripped.startswith("-DOCSTART-"):
            if tokens:
                yield {"tokens": tokens, "tags": tags}
                sentences += 1
            tokens, tags = [], []
            continue
        # Only the right end is stripped: a leading separator means that the token is missing.
        line = line.rstrip(BLANKS)
        columns = SEPARATOR.split(line)
        width = width or len(columns)
        needed = max(token_column, tag_column, 1) + 1
        if len(columns) != width or width < needed or not columns[token_column]:
            allowed = f"{width}, as in the rows before" if width >= needed else f"{needed} or more"
            raise UserError(f"{path}, row {row}: {len(columns)} columns in {line!r}; "
                            f"allowed: {allowed}. A row is a token, blanks or a tab, and its tag.")
        tokens.append(columns[token_column])
        tags.append(columns[tag_column])
    if tokens:
        yield {"tokens": tokens, "tags": tags}
    elif not sentences:
        raise UserError(f"{path} has no sentence in it. A row is a token, a blank and its tag.")


def splits(location: str, options: dict[str, str]) -> dict[Split, tuple[str, dict[str, str]]]:
    """Name a folder's split files."""
    found = _files.split_files(location, EXTENSIONS)
    return {split: (str(path), {}) for split, path in found.items()}


def _columns(option: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+),(-1|\d+)", option.replace(" ", ""))
    if not match:
        raise UserError(f"Option columns is {option!r}. Give two column numbers, counted from 0: "
                        "the token's and the tag's, e.g. columns=0,3 (-1 as tag: the last).")
    return int(match[1]), int(match[2])
