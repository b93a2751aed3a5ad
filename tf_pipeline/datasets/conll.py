"""Tagged tokens, one a line, a blank line after each sentence: `conll:folder?columns=0,3`.

A folder holds files such as train.txt, dev.conll, eng.testa or weibo.test. With `unit=document`
sentences up to the next -DOCSTART- line are one record, so that each is read with its neighbours.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from ..sources import Record, Split
from . import _files

SCHEMES: dict[str, dict[str, str]] = {"conll": {}}
OPTIONS = {"columns": "token and tag column from 0, e.g. 0,3; default: first and last",
           "unit": "sentence, or document for all sentences up to the next -DOCSTART- line; "
                   "default: sentence"}
DOCUMENT = "-DOCSTART-"
EXTENSIONS = ("", ".txt", ".conll", ".bio", ".tsv")

# Not str.split(): U+3000, the ideographic space, is a token of its own in Chinese files.
BLANKS = " \t\r\n"
SEPARATOR = re.compile(r"[ \t]+")


def read(location: str, options: dict[str, str]) -> Iterator[Record]:
    """Yield {"tokens", "tags"} for each sentence or document; of a folder, its train file."""
    unit = options.get("unit", "sentence")
    if unit not in ("sentence", "document"):
        raise UserError(f"Option unit is {unit!r}; allowed: sentence, document.")
    path = _files.split_files(location, EXTENSIONS)["train"]
    sentences = _sentences(path, options)
    if unit == "sentence":
        for tokens, tags, _ in sentences:
            yield {"tokens": tokens, "tags": tags}
        return
    from .. import spans  # brings numpy: listing readers needs none

    words: list[str] = []
    bio: list[str] = []
    for tokens, tags, opens in sentences:
        if opens and words:
            yield {"tokens": words, "tags": bio}
            words, bio = [], []
        words += tokens
        # In IOB1 a span that ends a sentence would run on into one that opens the next.
        bio += spans.to_bio(tags)[0]
    yield {"tokens": words, "tags": bio}


def _sentences(path: Path, options: dict[str, str]) -> Iterator[tuple[list[str], list[str], bool]]:
    """Yield each sentence's tokens and tags, and whether it opens a document."""
    token_column, tag_column = _columns(options.get("columns", "0,-1"))
    tokens: list[str] = []
    tags: list[str] = []
    width = sentences = 0
    opens = False
    for row, line in enumerate(_files.text_lines(path), 1):
        stripped = line.strip(BLANKS)
        if not stripped or stripped.startswith(DOCUMENT):
            if tokens:
                yield tokens, tags, opens
                sentences += 1
                opens = False
            tokens, tags = [], []
            opens = opens or stripped.startswith(DOCUMENT)
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
        yield tokens, tags, opens
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
