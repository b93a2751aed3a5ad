"""What is chosen on validation data after training: a temperature, and thresholds of labels."""

import numpy as np

_SPREAD = np.log(2)  # how far a temperature may stray without evidence: a factor of 2
_TEMPERATURES = (0.1, 10.0)
_FEW = 10  # positive examples below which a label has no threshold of its own


def temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Find the T for which softmax(logits / T) gives the targets the highest likelihood.

    (examples, classes) and (examples,) as in Guo et al. 2017; for labels that are independent,
    (examples, labels) of logits and of 0 and 1. A prior keeps T near 1 where examples are few:
    without one, a validation set without errors would call for T = 0.
    """
    from scipy.optimize import minimize_scalar

    from .decoding import log_sigmoid, log_softmax

    logits = logits.astype(np.float64)
    rows = np.arange(len(targets))

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        if targets.ndim == 2:
            likelihood = np.where(targets > 0, log_sigmoid(scaled), log_sigmoid(-scaled)).sum()
        else:
            likelihood = log_softmax(scaled)[rows, targets].sum()
        return log_t ** 2 / (2 * _SPREAD ** 2) - likelihood

    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def thresholds(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Choose for each label the probability from which on it is given: (labels,), best F1.

    Both arguments are (examples, labels). A label with few examples shares the threshold that is
    best for all labels together: its own would fit those few by chance.
    """
    shared = _best_f1(probabilities.ravel(), targets.ravel())
    return np.array([_best_f1(probabilities[:, i], targets[:, i])
                     if targets[:, i].sum() >= _FEW else shared
                     for i in range(targets.shape[1])])


def _best_f1(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Give the threshold with the best F1, halfway between the two examples that it parts."""
    if not targets.any():
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    sorted_, hits = probabilities[order], np.cumsum(targets[order])
    # With the first k taken, F1 = 2 * hits / (k + positives).
    scores = 2 * hits / (np.arange(1, len(order) + 1) + targets.sum())
    scores[:-1][sorted_[:-1] == sorted_[1:]] = -1  # equal probabilities cannot be parted
    best = int(scores.argmax())
    below = sorted_[best + 1] if best + 1 < len(order) else 0.0
    return float((sorted_[best] + below) / 2)
