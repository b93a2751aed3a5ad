"""BM25 of all documents for each query: JSON in on stdin, a matrix of scores out."""

import json
import sys

import bm25s

given = json.load(sys.stdin)
documents, queries = (bm25s.tokenize(given[name], stopwords="en", return_ids=False,
                                     show_progress=False) for name in ("documents", "queries"))
index = bm25s.BM25()
index.index(documents, show_progress=False)
print(json.dumps([index.get_scores(query).tolist() if query else [0.0] * len(documents)
                  for query in queries]))
