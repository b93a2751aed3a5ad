"""What a user should know about the data before training: sizes, balance, lengths, leaks."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import numpy as np

from .sources import SPLITS, Record, Split
from .splits import Splits, text_key

EXAMPLES = 3
SHOWN_LABELS = 20
SHOWN_CHARACTERS = 80
PERCENTILES = (50, 90, 99)


def report(splits: Splits, lengths: Callable[[list[Record]], Sequence[int]] | None,
           max_len: int) -> dict[str, object]:
    """Count what matters in each split; the result is plain JSON.

    `lengths` gives each record's tokens before any cut. "duplicates" counts the records beyond
    the first of each text, "overlap" and "conflicts" count different texts.
    """
    records = splits.records()
    keys = {split: Counter(map(text_key, records[split])) for split in SPLITS}
    return {
        "specs": dict(splits.specs),
        "sizes": {split: len(records[split]) for split in SPLITS},
        "labels": {split: _balance(records[split]) for split in SPLITS},
        "lengths": None if lengths is None else {
            split: _lengths(lengths(records[split]), max_len) for split in SPLITS},
        "max_len": max_len,
        "duplicates": {split: len(records[split]) - len(keys[split]) for split in SPLITS},
        "overlap": _overlap(keys, records),
        "conflicts": _conflicts(records),
        "notes": list(splits.notes),
    }


def as_text(report: dict) -> str:
    """Write a report as a block of plain text with aligned columns."""
    head = ["", *SPLITS]
    rows = [head, ["examples", *(_count(report["sizes"][s]) for s in SPLITS)],
            ["duplicates", *(_count(report["duplicates"][s]) for s in SPLITS)]]
    blocks = [_align(rows)]
    if any(report["labels"].values()):
        blocks.append(_align(_label_rows(report["labels"])))
    if report["lengths"]:
        longest = [name for name in report["lengths"]["train"] if name != "cut"]
        rows = [["tokens", *SPLITS]]
        rows += [[name, *(_count(report["lengths"][s][name]) for s in SPLITS)] for name in longest]
        rows.append([f"cut at {report['max_len']}",
                     *(_share(report["lengths"][s]["cut"], report["sizes"][s]) for s in SPLITS)])
        blocks.append(_align(rows))
    for pair, overlap in report["overlap"].items():
        if overlap["texts"]:
            blocks.append(f"Texts in both {pair}: {_count(overlap['texts'])}, e.g.\n"
                          + "\n".join(f"  {_shorten(text)}" for text in overlap["examples"]))
    conflicts = report["conflicts"]
    if conflicts["texts"]:
        blocks.append(f"Texts with more than one label: {_count(conflicts['texts'])}, e.g.\n"
                      + "\n".join(f"  {' | '.join(map(_shorten, one['labels']))}: "
                                  f"{_shorten(one['text'])}" for one in conflicts["examples"]))
    if report["notes"]:
        blocks.append("\n".join(f"Note: {note}" for note in report["notes"]))
    return "\n\n".join(blocks)


def _answers(record: Record) -> list[str]:
    """Give what a record is labelled with: its tags, its labels or its one label."""
    for field in ("tags", "labels"):
        if isinstance(answers := record.get(field), list):
            return answers
    return [str(record["label"])] if "label" in record else []


def _balance(records: Iterable[Record]) -> dict[str, int]:
    counts = Counter(answer for record in records for answer in _answers(record))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _lengths(lengths: Sequence[int], max_len: int) -> dict[str, int]:
    """Give percentiles that occur (no averages of two lengths), and how many are cut."""
    if len(lengths) == 0:
        return {**{f"p{p}": 0 for p in PERCENTILES}, "max": 0, "cut": 0}
    values = np.asarray(lengths)
    marks = np.percentile(values, PERCENTILES, method="inverted_cdf")
    return {**{f"p{p}": int(mark) for p, mark in zip(PERCENTILES, marks, strict=True)},
            "max": int(values.max()), "cut": int((values > max_len).sum())}


def _overlap(keys: dict[Split, Counter[str]],
             records: dict[Split, list[Record]]) -> dict[str, dict[str, object]]:
    result: dict[str, dict[str, object]] = {}
    for first, second in combinations(SPLITS, 2):
        both = keys[first].keys() & keys[second].keys()
        # In the order of the later split, so that two runs show the same examples.
        shown = {key: _show(r) for r in records[second] if (key := text_key(r)) in both}
        result[f"{first} and {second}"] = {
            "texts": len(both), "examples": list(shown.values())[:EXAMPLES]}
    return result


def _conflicts(records: dict[Split, list[Record]]) -> dict[str, object]:
    """Find equal texts with different answers, in all splits together."""
    answers: dict[str, dict[str, None]] = defaultdict(dict)  # a dict keeps the order seen
    texts: dict[str, str] = {}
    for record in (r for split in SPLITS for r in records[split]):
        found = _answers(record)
        if found:
            key = text_key(record)
            texts.setdefault(key, _show(record))
            # Tags have an order that counts; several labels of one text have none.
            answers[key][" ".join(found) if "tags" in record else ", ".join(sorted(found))] = None
    conflicts = [key for key, labels in answers.items() if len(labels) > 1]
    return {"texts": len(conflicts),
            "examples": [{"text": texts[key], "labels": list(answers[key])}
                         for key in conflicts[:EXAMPLES]]}


def _show(record: Record) -> str:
    tokens = record.get("tokens")
    if isinstance(tokens, list):
        return " ".join(tokens)
    return " | ".join(str(record[field]) for field in ("text", "text_b") if field in record)


def _label_rows(labels: dict[str, dict[str, int]]) -> list[list[str]]:
    totals = {split: sum(labels[split].values()) for split in SPLITS}
    # Train's order is by frequency; labels that only other splits have come last.
    names = list(dict.fromkeys(label for split in SPLITS for label in labels[split]))
    rows = [["label", *SPLITS]]
    rows += [[_shorten(name), *(_share(labels[s].get(name, 0), totals[s]) for s in SPLITS)]
             for name in names[:SHOWN_LABELS]]
    rest = names[SHOWN_LABELS:]
    if rest:
        rows.append([f"{len(rest)} more", *(_share(sum(labels[s].get(name, 0) for name in rest),
                                                   totals[s]) for s in SPLITS)])
    return rows


def _count(number: int) -> str:
    return f"{number:,}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / max(whole, 1):4.1f} %)"


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS - 3] + "..."


def _align(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]),
                                *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:],
                                                                   strict=True))]).rstrip()
                     for row in rows)
