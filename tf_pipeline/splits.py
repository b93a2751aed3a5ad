"""Training, validation and test records from specs; what is not given is cut from train."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from . import sources
from .errors import UserError
from .sources import SPLITS, Record, Split

# A text's place in [0, 1) decides: it stays where it is whatever else is added or cut.
CUTS: dict[Split, tuple[float, float]] = {"validation": (0.8, 0.9), "test": (0.9, 1.0)}
# More would cost training examples and time, and sharpen no score: at 2,000 the standard error of
# an accuracy of 90 % is 0.7 points.
ENOUGH: dict[Split, int] = {"validation": 2000, "test": 5000}

ANSWERS = ("label", "labels", "score", "tags")


@dataclass(frozen=True)
class Splits:
    """The records of each split and where they come from.

    `specs` names for each split the data that it was read from, and `cut` the splits that are a
    part of train's; `hashes` are sha256 of each split's records; `notes` are for the user.
    """

    train: list[Record]
    validation: list[Record]
    test: list[Record]
    specs: dict[Split, str]
    cut: tuple[Split, ...]
    hashes: dict[Split, str]
    notes: tuple[str, ...]

    def records(self) -> dict[Split, list[Record]]:
        """Give the three lists by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def assemble(train: str, validation: str | None = None, test: str | None = None) -> Splits:
    """Read the given specs and cut from train what neither they nor train's folder hold.

    Raises UserError if a cut leaves a split empty.
    """
    found = sources.split_specs(train)
    asked: dict[Split, str | None] = {"train": train, "validation": validation, "test": test}
    specs: dict[Split, str] = {}
    records: dict[Split, list[Record]] = {}
    notes: list[str] = []
    for split in SPLITS:
        own, given = found.get(split), asked[split]
        spec = _own_split(given, split) if given is not None else own
        if spec is None:
            continue
        rows = list(sources.read(spec))
        kept = _answered(rows, records.get("train", rows))
        if rows and not kept and given is None:
            notes.append(f"{spec} has no labels and is not used as {split} data.")
            continue
        # Data that was asked for stays: a task may do without labels, others say what they miss.
        if kept and len(kept) < len(rows):
            notes.append(f"{spec}: {len(rows) - len(kept)} of {len(rows)} records have no label "
                         "and were left out.")
        specs[split], records[split] = spec, kept or rows
    notes += _used_twice(specs, records)
    cut = tuple(split for split in SPLITS if split not in records)
    if cut:
        records = {**records, **_cut(records["train"], cut, specs["train"])}
        specs = {split: specs.get(split, specs["train"]) for split in SPLITS}
        sizes = ", ".join(f"{split} {len(records[split])}" for split in ("train", *cut))
        notes.append(f"Cut from {specs['train']} by a hash of the text: {sizes} examples.")
    hashes = {split: content_hash(records[split]) for split in SPLITS}
    return Splits(records["train"], records["validation"], records["test"], specs, cut, hashes,
                  tuple(notes))


def text_key(record: Record) -> str:
    """Give a record's text such that texts which differ only in case, width or blanks are equal.

    Tokens count as joined by blanks, a pair as its first and second text.
    """
    tokens = record.get("tokens")
    parts = [" ".join(tokens)] if isinstance(tokens, list) else [
        str(record[field]) for field in ("text", "text_b") if field in record]
    folded = (unicodedata.normalize("NFKC", part).casefold() for part in parts)
    return "\n".join(" ".join(part.split()) for part in folded)


def content_hash(records: Iterable[Record]) -> str:
    """Hash records in their order: sha256 of one JSON line each."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record, ensure_ascii=True, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _own_split(spec: str, split: Split) -> str:
    """Choose from a folder given as `--test` its test file; a single file is all there is."""
    found = sources.split_specs(spec)
    return found.get(split, found["train"])


def _answered(rows: list[Record], train: list[Record]) -> list[Record]:
    """Keep the rows with an answer of a kind that the training data have, if they have any."""
    kinds = [field for field in ANSWERS if any(field in record for record in train)]
    return [row for row in rows if any(field in row for field in kinds)] if kinds else rows


def _used_twice(specs: dict[Split, str], records: dict[Split, list[Record]]) -> list[str]:
    """Note equal data in two splits, also under two names. Looks before anything is cut."""
    splits = list(specs)
    hashes = {split: content_hash(records[split]) for split in splits}
    return [f"{first} and {second} are the same data ({specs[first]}"
            + (f" and {specs[second]}" if specs[second] != specs[first] else "")
            + f"): {second} scores will look too good."
            for i, first in enumerate(splits) for second in splits[i + 1:]
            if hashes[first] == hashes[second]]


def _cut(train: list[Record], missing: tuple[Split, ...], spec: str) -> dict[Split, list[Record]]:
    """Split records by their text's hash: equal texts fall together.

    Adding rows moves none from one cut to another; where there are many, some join train.
    """
    bounds = {split: (CUTS[split][0], min(CUTS[split][1], CUTS[split][0] + ENOUGH[split]
                                          / len(train))) for split in missing}
    parts: dict[Split, list[Record]] = {split: [] for split in ("train", *missing)}
    for record in train:
        place = _place(record)
        inside = [s for s, (low, high) in bounds.items() if low <= place < high]
        split: Split = inside[0] if inside else "train"
        parts[split].append(record)
    empty = [split for split, rows in parts.items() if not rows]
    if empty:
        sizes = ", ".join(f"{split} {len(rows)}" for split, rows in parts.items())
        distinct = len({text_key(record) for record in train})
        raise UserError(f"{spec} has {len(train)} examples ({distinct} different texts), and the "
                        f"cut into 80/10/10 leaves {' and '.join(empty)} empty ({sizes}); each "
                        f"needs at least 1. Add examples, or give {_flags(missing)}.")
    return parts


def _place(record: Record) -> float:
    digest = hashlib.sha256(text_key(record).encode()).digest()
    # 53 bits are what a float holds exactly, so the place is always below 1.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _flags(splits: tuple[Split, ...]) -> str:
    return " and ".join(f"--{split} SPEC" for split in splits)
