"""Retrieval scores against values worked out by hand, and nearest neighbours."""

import numpy as np
import pytest

from tf_pipeline import ranking
from tf_pipeline.errors import UserError

# Cosines of the two queries with four documents: places by row are 0 1 2 3, and 3 2 1 0.
QUERIES = np.array([[0.9, 0.7, 0.5, 0.3], [0.1, 0.2, 0.4, 0.8]])
DOCUMENTS = np.eye(4)


def test_scores_are_those_worked_out_by_hand() -> None:
    found = ranking.retrieval(QUERIES, DOCUMENTS, [{1: 2, 3: 1}, {3: 1}], depths=(1, 2, 3))
    gain = (2 / np.log2(3) + 1 / np.log2(5)) / (2 / np.log2(2) + 1 / np.log2(3))
    assert found == pytest.approx({
        "recall@1": (0 + 1) / 2, "hit@1": (0 + 1) / 2,
        "recall@2": (1 / 2 + 1) / 2, "hit@2": 1.0,
        "recall@3": (1 / 2 + 1) / 2, "hit@3": 1.0,
        "mrr": (1 / 2 + 1) / 2, "ndcg@10": (gain + 1) / 2})


def test_ndcg_looks_at_ten_places_and_mrr_at_all() -> None:
    documents = np.eye(20)
    query = np.linspace(1, 0, 20)[None]
    found = ranking.retrieval(query, documents, [{15: 1}])
    assert (found["ndcg@10"], found["recall@10"]) == (0.0, 0.0)
    assert found["mrr"] == pytest.approx(1 / 16)


def test_many_queries_are_ranked_as_one_by_one() -> None:
    random = np.random.default_rng(0)
    queries, documents = random.normal(size=(600, 8)), random.normal(size=(50, 8))
    relevant = [{i % 50: 1.0, (i + 7) % 50: 3.0} for i in range(600)]
    whole = ranking.retrieval(queries, documents, relevant)
    single = [ranking.retrieval(queries[i:i + 1], documents, relevant[i:i + 1])
              for i in range(600)]
    assert whole == pytest.approx({name: np.mean([s[name] for s in single]) for name in whole})


@pytest.mark.parametrize(("relevant", "message"), [
    ([{0: 1}], "2 queries come with 1 judgements"),
    ([{0: 1}, {4: 1}], "Query 1 names the document 4; there are rows 0 to 3"),
    ([{0: 1}, {}], "Query 1 has the grades {}"),
    ([{0: 0}, {1: 1}], "Query 0 has the grades {0: 0}"),
    ([{0: 1, 1: -1}, {1: 1}], "Query 0 has the grades {0: 1, 1: -1}"),
])
def test_judgements_that_say_nothing_are_named(relevant: list[dict], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ranking.retrieval(QUERIES, DOCUMENTS, relevant)


def test_nearest_neighbours_and_their_lead() -> None:
    angles = np.deg2rad([0, 10, 30, 90, 90])  # the last two are one text
    rows = np.stack([np.cos(angles), np.sin(angles)], 1)
    nearest, margins = ranking.neighbours(rows)
    assert nearest.tolist() == [1, 0, 1, 2, 2]
    lead = np.cos(np.deg2rad(10)) - np.cos(np.deg2rad(30))
    assert margins[0] == pytest.approx(lead)
    assert margins[3] == margins[4]


@pytest.mark.parametrize("rows", [1, 3])
def test_where_all_texts_are_equal_every_neighbour_is_right(rows: int) -> None:
    nearest, margins = ranking.neighbours(np.ones((rows, 4)))
    assert nearest.tolist() == [0] * rows
    assert margins.tolist() == [0.0] * rows
