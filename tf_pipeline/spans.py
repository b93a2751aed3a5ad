"""Tags and spans: any scheme read into B- and I-, only valid sequences decoded; numpy only."""

from collections.abc import Sequence

import numpy as np

OUTSIDE = "O"
Span = tuple[int, int, str]  # first word, word after the last, type

_STARTS, _ENDS = "BSU", "ESL"  # BIO, BMES, BIOES and BILOU write a start and an end like this


def to_bio(tags: Sequence[str]) -> tuple[list[str], int]:
    """Rewrite IOB1, BIO, BMES, BIOES or BILOU tags as B- and I-; count what had to be repaired.

    Repaired are tags that continue an entity which the tag before does not belong to. IOB1 writes
    its entities so: there the count says how many, not how many are wrong.
    """
    result, repaired = [], 0
    kind, open_ = "", False
    for tag in tags:
        prefix, dash, name = tag.partition("-")
        if tag == OUTSIDE or not dash:
            result.append(OUTSIDE)
            kind, open_ = "", False
            continue
        if prefix in _STARTS:
            result.append(f"B-{name}")
        elif open_ and name == kind:
            result.append(f"I-{name}")
        else:
            result.append(f"B-{name}")
            repaired += 1
        kind, open_ = name, prefix not in _ENDS
    return result, repaired


def read(tags: Sequence[str]) -> list[Span]:
    """Give the spans of B- and I- tags; an I- that continues nothing opens a span."""
    spans: list[Span] = []
    for place, tag in enumerate(to_bio(tags)[0]):
        prefix, _, name = tag.partition("-")
        if prefix == "I":
            first, _, _ = spans.pop()
            spans.append((first, place + 1, name))
        elif prefix == "B":
            spans.append((place, place + 1, name))
    return spans


def best_tags(scores: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Give the likeliest valid sequence of labels, (words,), for log-probabilities (words, labels).

    I-x may only follow B-x or I-x, where the labels hold a B-x. The search is Viterbi's with
    transitions that are free or forbidden.
    """
    allowed, starts = _transitions(tuple(labels))
    best = np.where(starts, scores[0], -np.inf)
    back = np.zeros(scores.shape, np.int64)
    for word in range(1, len(scores)):
        paths = np.where(allowed, best[:, None], -np.inf)  # (from, to)
        back[word] = paths.argmax(0)
        best = paths.max(0) + scores[word]
    chosen = np.zeros(len(scores), np.int64)
    chosen[-1] = best.argmax()
    for word in range(len(scores) - 1, 0, -1):
        chosen[word - 1] = back[word, chosen[word]]
    return chosen


def _transitions(labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Say which label may follow which, (from, to), and which may come first, (labels,)."""
    known = set(labels)
    allowed = np.ones((len(labels), len(labels)), bool)
    starts = np.ones(len(labels), bool)
    for to, label in enumerate(labels):
        prefix, _, name = label.partition("-")
        if prefix == "I" and f"B-{name}" in known:
            starts[to] = False
            allowed[:, to] = [before in (f"B-{name}", f"I-{name}") for before in labels]
    return allowed, starts
