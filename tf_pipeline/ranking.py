"""Scores of embeddings that search: retrieval with judgements of relevance, nearest neighbours.

Rows are unit vectors, so a product of two is their cosine. numpy only.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from .errors import UserError

_ROWS = 256  # at once: similarities to all documents are held for so many


def retrieval(queries: np.ndarray, documents: np.ndarray,
              relevant: Sequence[Mapping[int, float]],
              depths: Sequence[int] = (1, 10)) -> dict[str, float]:
    """Rank all documents by cosine for each query, and score the order.

    `queries` and `documents` are unit vectors (rows, hidden); `relevant[i]` gives query i's
    documents by their row with their grade, above 0. Averages over queries: `recall@k` is the
    share of the relevant documents among the first k, `hit@k` whether any of them is there, `mrr`
    one by the place of the first one, `ndcg@10` as trec_eval has it (gain = grade).
    """
    if len(relevant) != len(queries):
        raise UserError(f"{len(queries)} queries come with {len(relevant)} judgements; each query "
                        "needs one mapping from document rows to grades.")
    columns: dict[str, list[float]] = {}
    for start in range(0, len(queries), _ROWS):
        similarities = queries[start:start + _ROWS] @ documents.T
        orders = np.argsort(-similarities, axis=-1, kind="stable")
        for i, order in enumerate(orders, start):
            for name, value in _one_query(order, _grades(i, relevant[i], len(documents)),
                                          depths).items():
                columns.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in columns.items()}


def _grades(query: int, judged: Mapping[int, float], documents: int) -> np.ndarray:
    """Lay a query's grades out by document: (documents,)."""
    wrong = next((row for row in judged if not 0 <= row < documents), None)
    if wrong is not None:
        raise UserError(f"Query {query} names the document {wrong}; there are rows 0 to "
                        f"{documents - 1}.")
    grades = np.zeros(documents)
    grades[list(judged)] = list(judged.values())
    if not (grades > 0).any() or (grades < 0).any():
        raise UserError(f"Query {query} has the grades {dict(judged)}; needed are one or more "
                        "above 0 and none below. Leave out a query that no document answers.")
    return grades


def _one_query(order: np.ndarray, grades: np.ndarray,
               depths: Sequence[int]) -> dict[str, float]:
    ranked = grades[order]
    places = np.flatnonzero(ranked > 0)
    scores = {}
    for depth in depths:
        inside = int((places < depth).sum())
        scores[f"recall@{depth}"] = inside / len(places)
        scores[f"hit@{depth}"] = float(inside > 0)
    best = np.sort(grades)[::-1]
    return {**scores, "mrr": 1 / (1 + int(places[0])),
            "ndcg@10": _gain(ranked[:10]) / _gain(best[:10])}


def _gain(grades: np.ndarray) -> float:
    """Sum grades, discounted by the logarithm of their place (Järvelin and Kekäläinen 2002)."""
    return float((grades / np.log2(np.arange(len(grades)) + 2)).sum())


def neighbours(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find each row's nearest other row, and by how much it is nearer than the next: (rows,) each.

    Equal rows count as one, named by the first. Where all are equal, the margin is 0.
    """
    distinct, first, places = np.unique(embeddings, axis=0, return_index=True,
                                        return_inverse=True)
    nearest, margins = np.zeros(len(distinct), int), np.zeros(len(distinct))
    for start in range(0, len(distinct) if len(distinct) > 1 else 0, _ROWS):
        cosines = distinct[start:start + _ROWS] @ distinct.T
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -2.0
        second, best = np.partition(cosines, -2)[:, -2:].T
        nearest[start:start + _ROWS] = cosines.argmax(-1)
        margins[start:start + _ROWS] = best - second
    return first[nearest][places.ravel()], margins[places.ravel()]
