"""A runtime's outputs to probabilities and decisions: numpy only, shared by score and serve."""

import numpy as np

from .text import Arrays


def probabilities(outputs: Arrays) -> np.ndarray:
    """Give class probabilities, from `probabilities` or from `logits`: (..., classes)."""
    if "probabilities" in outputs:
        return outputs["probabilities"]
    return softmax(outputs["logits"])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Normalize over the last axis, safely for large logits."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
