"""Search with embeddings, before and after training, beside BM25: writes benchmarks/retrieval.md.

    python -m benchmarks.retrieval --data DIR --peer PYTHON

DIR holds bank_faqs and cranfield as benchmarks/data.md names them. PYTHON has what
benchmarks/peers/requirements.txt asks for, among it BM25. Trained runs in --work are used again.
"""

import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import shared
from benchmarks.shared import HERE
from tf_pipeline import command

SETTINGS = {"before": "--max-len 256 --epochs 0",
            "after": "--max-len 128 --epochs 8 --patience 8 --learning-rate 1e-4 --batch-size 64 "
                     "--mini-batch-size 16"}
SHOWN = ("recall@1", "recall@10", "mrr", "ndcg@10")


@dataclass(frozen=True)
class Collection:
    """Queries, documents, and for each query the grades of its documents by their row."""

    queries: Sequence[str]
    documents: Sequence[str]
    relevant: Sequence[Mapping[int, float]]


def bank_faqs(folder: Path, train: Path) -> Collection:
    """Write the pairs of 70 % of the answers to `train`; the others' questions are queries.

    All answers are documents. A question with answers on both sides is left out of the queries.
    """
    rows = shared.read(folder / "faqs.csv")
    documents = sorted({row["answer"] for row in rows})
    shuffled = random.Random(0).sample(documents, len(documents))
    learned = set(shuffled[:len(documents) * 7 // 10])
    number = {answer: i for i, answer in enumerate(documents)}
    relevant: dict[str, dict[int, float]] = {}
    for row in rows:
        relevant.setdefault(row["question"], {})[number[row["answer"]]] = 1.0
    shared.write(train, [{"text": row["question"], "text_b": row["answer"]} for row in rows
                         if row["answer"] in learned])
    asked = [question for question, grades in relevant.items()
             if not any(documents[i] in learned for i in grades)]
    return Collection(asked, documents, [relevant[question] for question in asked])


def cranfield(folder: Path) -> Collection:
    """Read the collection; two documents are empty in the original and stay so."""
    documents, queries = (shared.read(folder / f"{name}.jsonl") for name in ("corpus", "queries"))
    row = {document["_id"]: i for i, document in enumerate(documents)}
    found: dict[str, dict[int, float]] = {query["_id"]: {} for query in queries}
    for line in shared.text(folder / "qrels.tsv").splitlines()[1:]:
        query, document, grade = line.split("\t")
        if float(grade) > 0:
            found[query][row[document]] = float(grade)
    asked = [query for query in queries if found[query["_id"]]]
    return Collection([query["text"] for query in asked], [d["text"] for d in documents],
                      [found[query["_id"]] for query in asked])


def embedded(collection: Collection, run: Path) -> dict[str, float]:
    """Score a run's vectors."""
    from tf_pipeline import Predictor
    from tf_pipeline.ranking import retrieval

    predictor = Predictor(run)
    queries, documents = (np.array([answer["embedding"] for answer in predictor(texts)])
                          for texts in (collection.queries, collection.documents))
    return retrieval(queries, documents, collection.relevant)


def bm25(collection: Collection, python: str) -> dict[str, float]:
    """Score BM25, which the peer's interpreter computes."""
    from tf_pipeline.ranking import retrieval

    said = shared.call([python, str(HERE / "peers" / "bm25.py")], json.dumps(
        {"queries": collection.queries, "documents": collection.documents}))
    scores = np.array(json.loads(said.splitlines()[-1]))
    # `retrieval` ranks by products: with unit vectors as documents these are the scores.
    return retrieval(scores, np.eye(len(collection.documents)), collection.relevant)


def trained(name: str, train: Path, out: Path) -> Path:
    """Train with the settings of that name, unless it was done."""
    if not (out / "run.json").exists():
        shared.call([sys.executable, "-m", "tf_pipeline", "train", "--task", "embed", "--train",
                     f"csv:{train}", *SETTINGS[name].split(), "--out", str(out)])
    return out


def main() -> None:
    """Measure and write the page."""
    parser = command.Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"),
                        help="folder for what is trained (default: runs/benchmarks)")
    parser.add_argument("--peer", metavar="PYTHON", required=True, help="interpreter with BM25")
    flags = parser.parse_args()
    shared.interpreter(flags.peer)
    train = flags.work.resolve() / "faqs" / "train.csv"
    faqs, abstracts = bank_faqs(flags.data / "bank_faqs", train), cranfield(
        flags.data / "cranfield")
    runs = {name: trained(name, train, flags.work.resolve() / f"runs/embed-{name}")
            for name in SETTINGS}
    rows = [("Bank FAQs", "BM25", bm25(faqs, flags.peer)),
            *(("Bank FAQs", f"minilm, {name} training", embedded(faqs, run))
              for name, run in runs.items()),
            ("Cranfield", "BM25", bm25(abstracts, flags.peer)),
            ("Cranfield", "minilm, before training", embedded(abstracts, runs["before"]))]
    lines = ["# Retrieval", "", "Written by `python -m benchmarks.retrieval`. Bank FAQs: "
             f"{len(faqs.queries)} questions whose answers training did not see, all "
             f"{len(faqs.documents)} answers as documents. Cranfield: {len(abstracts.queries)} "
             f"queries, {len(abstracts.documents)} abstracts, no training. BM25: bm25s, its "
             "defaults, English stop words.", "",
             f"| collection | by | {' | '.join(SHOWN)} |", "| --- " * (2 + len(SHOWN)) + "|",
             *(f"| {name} | {by} | {' | '.join(f'{scores[s]:.4f}' for s in SHOWN)} |"
               for name, by, scores in rows), "",
             *(f"- {name} training: `--task embed --train csv:WORK/faqs/train.csv {words}`"
               for name, words in SETTINGS.items()),
             f"- commit {shared.commit()}, {shared.today()}"]
    (HERE / "retrieval.md").write_text("\n".join(lines) + "\n", "utf-8")
    print(f"Wrote {HERE / 'retrieval.md'}")


if __name__ == "__main__":
    main()
