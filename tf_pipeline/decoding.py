"""A runtime's outputs to probabilities and decisions: numpy only, shared by score and serve."""

import numpy as np

from .text import Arrays


def class_probabilities(outputs: Arrays) -> np.ndarray:
    """Give probabilities that sum to 1, from `probabilities` or from `logits`: (..., classes)."""
    if "probabilities" in outputs:
        return outputs["probabilities"]
    return softmax(outputs["logits"])


def label_probabilities(outputs: Arrays) -> np.ndarray:
    """Give each label's own probability, from `probabilities` or from `logits`: (..., labels)."""
    if "probabilities" in outputs:
        return outputs["probabilities"]
    return np.exp(log_sigmoid(outputs["logits"]))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Normalize over the last axis, safely for large logits."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Give the logarithm of softmax, safely also where softmax is 0."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def log_sigmoid(logits: np.ndarray) -> np.ndarray:
    """Give the logarithm of 1 / (1 + exp(-x)), safely for large x of both signs."""
    return -np.logaddexp(0, -logits)
