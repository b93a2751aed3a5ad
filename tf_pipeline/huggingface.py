"""A model's weights under the names that transformers gives them, head included."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from . import heads
from .backbone import get_weights, set_weights
from .task import Pretrained, Task

if TYPE_CHECKING:
    import keras

_WITH_POOLER = ("BertForSequenceClassification", "BertModel")


def weights_of(model: "keras.Model", task: Task) -> dict[str, np.ndarray]:
    """Read a task's model as `task.ARCHITECTURE` stores it."""
    prefix = "" if task.ARCHITECTURE == "BertModel" else "bert."
    found = {prefix + name: array for name, array in get_weights(
        model.get_layer("backbone")).items()
        if task.ARCHITECTURE in _WITH_POOLER or not name.startswith("pooler.")}
    if isinstance(task, Pretrained):
        found |= task.head_weights(model)
    elif prefix:
        kernel, bias = model.get_layer("logits").get_weights()
        found |= {"classifier.weight": kernel.T, "classifier.bias": bias}
    return {name: np.ascontiguousarray(array, np.float32) for name, array in found.items()}


def load(model: "keras.Model", task: Task, weights: Mapping[str, np.ndarray]) -> None:
    """Set what `weights_of` gave."""
    set_weights(model.get_layer("backbone"),
                {name.removeprefix("bert."): array for name, array in weights.items()})
    if isinstance(task, Pretrained):
        heads.set_vocabulary_weights(model, weights)
    elif task.ARCHITECTURE != "BertModel":
        model.get_layer("logits").set_weights([weights["classifier.weight"].T,
                                               weights["classifier.bias"]])
