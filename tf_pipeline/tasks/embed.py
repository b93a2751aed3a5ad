"""Texts as vectors, near where texts belong together: search, questions, recommendation.

Records: `text`, `text_b`, and a `negative` each or none; or `text`, `text_b` and their `score`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import decoding, ranking, task
from ..config import option
from ..errors import UserError
from ..task import Answer, Record, Scores
from ..text import Arrays, Encoded, TextEncoder

if TYPE_CHECKING:
    import keras

_NAME = "sentence_embedding"
_TEXTS = ("text", "text_b", "negative")
_LOSS_ROWS = 64  # an evaluation loss is that of batches of so many


@dataclass(frozen=True)
class Options:
    """Settings of this task alone."""

    temperature: float = option(0.05, help="what the loss divides cosines by; lower looks harder "
                                "at what is nearly right")
    score_range: tuple[float, ...] = option(
        (), help="least and largest score that data may hold, e.g. 0,5; default: the training "
        "scores', widened to whole numbers")

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"--temperature is {self.temperature}; allowed: above 0, e.g. 0.05.")
        limits = self.score_range
        if limits and not (len(limits) == 2 and limits[0] < limits[1]):
            raise UserError(f"--score-range is {','.join(map(str, limits))}; expected the least "
                            "and the largest score, e.g. 0,5.")


class Task(task.Task):
    """Mean of the tokens, scaled to length 1 (Reimers and Gurevych 2019); no head of its own.

    A task with a score range is one of graded pairs.
    """

    FIELDS = ("text", "text_b")
    ARCHITECTURE = "BertModel"
    COMPARES = True
    OUTPUTS = {"onnx": ("last_hidden_state", _NAME), "tflite": (_NAME,),
               "tokens": ("last_hidden_state", _NAME), "text": (_NAME,)}

    @property
    def METRIC(self) -> str:  # noqa: N802
        """Rank correlation for graded pairs, else the mean reciprocal rank."""
        return "spearman" if self.options.score_range else "mrr"

    @classmethod
    def learn(cls, records: Sequence[Record], options: Options) -> "Task":
        """See whether pairs have scores, and take their range where none was given."""
        if "score" not in records[0]:
            if options.score_range:
                raise UserError(f"--score-range is {','.join(map(str, options.score_range))}, and "
                                "the training data has no score. Leave it out, or name the "
                                "column: ?score=COLUMN.")
            return cls((), options)
        if "negative" in records[0]:
            raise UserError(f"The training data has score and negative ({', '.join(records[0])}); "
                            "a graded pair takes no negative. Leave one out: ?score= or "
                            "?negative=.")
        scores = [record["score"] for record in records]
        if min(scores) == max(scores):
            raise UserError(f"All {len(records)} training records have the score {scores[0]}; "
                            "there is nothing to learn. Check the score column.")
        found = (float(math.floor(min(scores))), float(math.ceil(max(scores))))
        return cls((), replace(options, score_range=options.score_range or found))

    def encode(self, records: Sequence[Record], encoder: TextEncoder,
               max_len: int | None = None) -> Encoded:
        """Encode each different text once; a record is a group of one to three."""
        fields = _fields(records)
        rows: dict[str, int] = {}
        groups = [[rows.setdefault(record[field], len(rows)) for field in fields]
                  for record in records]
        return replace(encoder.encode(list(rows), max_len=max_len),
                       groups=np.array(groups, np.int64).reshape(len(records), len(fields)))

    def targets(self, records: Sequence[Record]) -> Arrays:
        """Give scores: float32 (records, 1); or a number for each text, int32 (records, texts)."""
        fields, limits = _fields(records), self.options.score_range
        odd = next((record for record in records if ("score" in record) != bool(limits)), None)
        if odd is not None:
            raise UserError(f"records with {', '.join(odd)}, and the model was trained on pairs "
                            f"with{'' if limits else 'out'} a score. Name the column with "
                            "?score=COLUMN, or read none with ?score=.")
        if not limits:
            numbers: dict[str, int] = {}
            return {_NAME: np.array([[numbers.setdefault(record[field], len(numbers))
                                      for field in fields] for record in records], np.int32)}
        for record in records:
            if not limits[0] <= record["score"] <= limits[1]:
                raise UserError(f"the score {record['score']:g} of {record['text'][:40]!r}; "
                                f"allowed: {limits[0]:g} to {limits[1]:g}. Correct it, or train "
                                "with --score-range LEAST,LARGEST.")
        return {_NAME: np.array([[record["score"]] for record in records], np.float32)}

    def build(self, backbone: "keras.Model") -> "keras.Model":
        """Give token vectors (batch, length, hidden) and the text's (batch, hidden)."""
        import keras
        from keras import ops

        from .. import heads

        tokens = ops.cast(backbone(backbone.input)["sequence_output"], "float32")
        mean = heads.mean_of_tokens(backbone, tokens)
        return keras.Model(backbone.input, {"last_hidden_state": tokens,
                                            _NAME: ops.normalize(mean)}, name="embed")

    def trainer(self, model: "keras.Model") -> "keras.Model":
        """Leave the token vectors out."""
        import keras

        return keras.Model(model.input, {_NAME: model.output[_NAME]})

    def compile_args(self) -> dict[str, Any]:
        """Use CoSENT for graded pairs, else in-batch negatives."""
        from .. import contrastive

        kind = contrastive.cosent if self.options.score_range else contrastive.in_batch_negatives
        return {"loss": {_NAME: contrastive.of_whole_batch(kind(self.options.temperature))}}

    def decode(self, outputs: Arrays, records: Sequence[Record],
               encoded: Encoded) -> list[Answer]:
        """Give the text's `embedding`, and of a pair the two texts' cosine as `similarity`."""
        answers = []
        for vectors in outputs[_NAME]:
            answer: Answer = {"embedding": vectors[0].tolist()}
            if len(vectors) > 1:
                answer["similarity"] = float(vectors[0] @ vectors[1])
            answers.append(answer)
        return answers

    def decisions(self, outputs: Arrays) -> tuple[list[set[Any]], np.ndarray]:
        """Give each text's nearest other text; by the lead over the next one, in cosine."""
        values = outputs[_NAME]
        nearest, margins = ranking.neighbours(values.reshape(-1, values.shape[-1]))
        return [{number} for number in nearest.tolist()], margins

    def score(self, outputs: Arrays, records: Sequence[Record]) -> Scores:
        """Give correlations for graded pairs; else search all second texts for each first one."""
        values = outputs[_NAME]
        targets = self.targets(records)[_NAME]
        scores: Scores = {"examples": len(records)}
        if self.options.score_range:
            from .. import metrics

            cosines = (values[:, 0] * values[:, 1]).sum(-1)
            scores |= metrics.correlation(targets[:, 0], cosines)
        else:
            scores |= _search(values, targets)
        parts = [slice(start, start + _LOSS_ROWS) for start in range(0, len(records), _LOSS_ROWS)]
        losses = [self._loss(values[part].astype(np.float64), targets[part]) for part in parts]
        return {**scores, "loss": float(np.mean(np.concatenate(losses)))}

    def _loss(self, values: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Give the training loss of one batch, hard negatives left out: (records,)."""
        if self.options.score_range:
            cosines = (values[:, 0] * values[:, 1]).sum(-1)
            excess = (cosines[None] - cosines[:, None])[targets > targets.T]
            return np.full(len(values), np.logaddexp.reduce(excess / self.options.temperature,
                                                            initial=0.0))
        first, second = targets[:, :1], targets[:, 1:2]
        known = (second == second.T) | (first == second.T) | (first == first.T)
        cosines = values[:, 0] @ values[:, 1].T / self.options.temperature
        cosines[known & ~np.eye(len(values), dtype=bool)] = -np.inf
        return -np.diag(decoding.log_softmax(cosines))


def _fields(records: Sequence[Record]) -> tuple[str, ...]:
    """Give the texts that each record has; UserError where records differ."""
    forms = [tuple(field for field in _TEXTS if record.get(field) is not None)
             for record in records]
    for number, form in enumerate(forms):
        if form != forms[0]:
            raise UserError(f"records of two forms: the first has {', '.join(forms[0])}, and "
                            f"record {number + 1} {', '.join(form)}. Give all the same texts.")
    return forms[0] if forms else ()


def _search(values: np.ndarray, numbers: np.ndarray) -> dict[str, float]:
    """Rank all different second texts for each different first one: recall@k, hit@k, mrr, nDCG."""
    _, asked, queries = np.unique(numbers[:, 0], return_index=True, return_inverse=True)
    _, found, documents = np.unique(numbers[:, 1], return_index=True, return_inverse=True)
    relevant: list[dict[int, float]] = [{} for _ in asked]
    for query, document in zip(queries.tolist(), documents.tolist(), strict=True):
        relevant[query][document] = 1.0
    return {"queries": len(asked), "documents": len(found),
            **ranking.retrieval(values[asked, 0], values[found, 1], relevant)}
