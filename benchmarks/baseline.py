"""What a day of classical work gives: TF-IDF of character 1- and 2-grams, logistic regression.

Measured by `python -m benchmarks.quality --baseline`, on the rows that ours sees.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.rows import Row
from tf_pipeline import metrics, sources, spans, splits

Record = dict[str, Any]
Scores = dict[str, Any]


def measure(row: Row, places: dict[str, str]) -> dict[str, Any]:
    """Train on what ours trains and validates on; score its test rows and what else it has."""
    start = time.time()
    flags = argparse.ArgumentParser()
    for name in ("task", "train", "validation", "test"):
        flags.add_argument(f"--{name}")
    given, _ = flags.parse_known_args(row.train.format(**places).split())
    parts = splits.assemble(given.train, given.validation, given.test)
    train = parts.train + (parts.validation if "validation" in parts.cut else [])
    scored = (_tagger if given.task == "tag" else _classifier)(train)
    found = _chosen(row, scored(parts.test))
    for name, spec in row.also.items():
        others = scored(list(sources.read(spec.format(**places))))
        found |= {f"{name}_{key}": value for key, value in _chosen(row, others).items()}
    return {"scores": found, "device": "CPU", "precision": "float64",
            "duration_s": round(time.time() - start, 1)}


def _chosen(row: Row, scores: Scores) -> dict[str, float]:
    return {name: scores[name] for name in (*row.metrics, "majority") if name in scores}


def _classifier(train: Sequence[Record]) -> Callable[[Sequence[Record]], Scores]:
    """Fit labels; of pairs, to what the two vectors share and where they differ."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    fields = [field for field in ("text", "text_b") if field in train[0]]
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    vectors.fit(record[field] for record in train for field in fields)

    def features(records: Sequence[Record]) -> Any:
        columns = [vectors.transform(record[field] for record in records) for field in fields]
        if len(columns) == 1:
            return columns[0]
        first, second = columns
        return hstack([first.multiply(second), abs(first - second)]).tocsr()

    model = LogisticRegression(C=10.0, max_iter=2000)
    model.fit(features(train), [record["label"] for record in train])
    labels = model.classes_.tolist()
    answers = [record["label"] for record in train]
    majority = max(labels, key=answers.count)

    def scored(records: Sequence[Record]) -> Scores:
        known = np.array([labels.index(record["label"]) for record in records])
        return {**metrics.classification(known, model.predict_proba(features(records)), labels),
                "majority": float((known == labels.index(majority)).mean())}

    return scored


def _tagger(train: Sequence[Record]) -> Callable[[Sequence[Record]], Scores]:
    """Fit each word's tag to the words and pairs of words around it."""
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import SGDClassifier

    hasher = FeatureHasher(1 << 20, input_type="string")

    def features(records: Sequence[Record]) -> Any:
        return hasher.transform(_around(record["tokens"], place) for record in records
                                for place in range(len(record["tokens"])))

    def tags(records: Sequence[Record]) -> list[list[str]]:
        return [spans.to_bio(record["tags"])[0] for record in records]

    model = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=20, random_state=0)
    model.fit(features(train), [tag for row in tags(train) for tag in row])

    def scored(records: Sequence[Record]) -> Scores:
        known, flat = tags(records), iter(model.predict(features(records)).tolist())
        predicted = [[next(flat) for _ in row] for row in known]
        return metrics.tagging(known, predicted, model.classes_.tolist())

    return scored


def _around(tokens: Sequence[str], place: int) -> list[str]:
    """Name what stands within two words of a place, alone and in pairs."""
    near = ["^", "^", *tokens, "$", "$"][place:place + 5]
    return [*(f"{i}:{word}" for i, word in enumerate(near)),
            *(f"{i}:{a}{b}" for i, (a, b) in enumerate(zip(near, near[1:], strict=False)))]
