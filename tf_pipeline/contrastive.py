"""Learning which texts belong together: losses over a batch of embeddings.

A record's texts stand one after the other, so embeddings are (batch * texts of each, hidden).
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

_NEVER = -1e9  # a score that adds nothing to a sum of exponentials


def in_batch_negatives(temperature: float) -> Callable[[Any, Any], Any]:
    """Give a loss for pairs: each first text must pick its second text among those of all records.

    Multiple negatives ranking (Henderson et al. 2017) over cosines divided by `temperature`; third
    texts are wrong answers for all. It takes a number for each text (batch, texts of each), the
    same for equal ones: what a record has as its own, or an equal first text has as its second, is
    no wrong answer. Gives (batch,).
    """
    def loss(numbers: Any, embeddings: Any) -> Any:
        texts = numbers.shape[1]
        vectors = ops.reshape(embeddings, (-1, texts, embeddings.shape[-1]))
        # All second texts, then all third ones: (batch * (texts - 1), hidden).
        answers = ops.reshape(ops.transpose(vectors[:, 1:], (1, 0, 2)),
                              (-1, embeddings.shape[-1]))
        scores = ops.matmul(vectors[:, 0], ops.transpose(answers)) / temperature
        found = ops.reshape(ops.transpose(numbers[:, 1:]), (1, -1))
        asked = ops.concatenate([numbers[:, 0], *[ops.full_like(numbers[:, 0], -1)] * (texts - 2)])
        rows = ops.arange(ops.shape(scores)[0])
        right = rows[:, None] == ops.arange(ops.shape(scores)[1])[None]
        known = (found == numbers[:, :1]) | (found == numbers[:, 1:2]) | (
            asked[None] == numbers[:, :1])
        scores = ops.where(known & ~right, _NEVER, scores)
        return ops.logsumexp(scores, -1) - ops.sum(ops.where(right, scores, 0.0), -1)

    return loss


def cosent(temperature: float) -> Callable[[Any, Any], Any]:
    """Give a loss for graded pairs: a higher score must have the higher cosine.

    CoSENT (Su 2022, kexue.fm/archives/8847; its factor 20 is a temperature of .05): the log of one
    plus, over all two pairs of the batch, e to the cosine of the lower less that of the higher.
    Takes scores (batch, 1); gives (batch,), the same for each.
    """
    def loss(scores: Any, embeddings: Any) -> Any:
        vectors = ops.reshape(embeddings, (-1, 2, embeddings.shape[-1]))
        cosines = ops.sum(vectors[:, 0] * vectors[:, 1], -1)
        excess = (cosines[None] - cosines[:, None]) / temperature
        terms = ops.where(scores > ops.transpose(scores), excess, _NEVER)
        return ops.logaddexp(0.0, ops.logsumexp(terms)) * ops.ones_like(cosines)

    return loss


def of_whole_batch(loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Let a loss that compares a batch's records see those of all TensorFlow replicas.

    JAX cuts batches without the loss's knowledge.
    """
    def whole(targets: Any, embeddings: Any) -> Any:
        if keras.backend.backend() != "tensorflow":
            return loss(targets, embeddings)
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:  # None while Keras builds
            return loss(targets, embeddings)
        records = ops.shape(targets)[0]
        found = loss(*(tf.ensure_shape(context.all_gather(values, 0), (None, *values.shape[1:]))
                       for values in (targets, embeddings)))
        first = context.replica_id_in_sync_group * records
        return found[first:first + records]

    return whole
