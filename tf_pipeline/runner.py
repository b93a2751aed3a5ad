"""A loaded model as a function of arrays, and the one loop that feeds it."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from .artifact import Graph
from .text import Arrays, Encoded, Shapes, batches
from .words import Words

# Takes the three standard inputs, int (batch, length); gives named outputs, (batch, ...).
Runner = Callable[[Arrays], Arrays]
# Runtimes that take every shape without compiling for it first.
_ANY_SHAPE = ("onnx", "saved_model")
_FEW = Shapes()


def shapes_of(graph: Graph) -> Shapes:
    """Say in which batches an artifact's file is asked."""
    return Shapes(graph.batch or 32, graph.length, graph.runtime not in _ANY_SHAPE)


def by_length(runners: Mapping[int, Runner]) -> Runner:
    """Make one Runner of files that take one length each: a row goes to the shortest that holds it.

    Inputs and outputs are as long as the longest. Which file answers depends on the row alone, so
    answers do not depend on the rows beside it.
    """
    lengths = sorted(runners)

    def run(inputs: Arrays) -> Arrays:
        given = np.asarray(inputs["attention_mask"])
        # Up to the last token; of a row without any, whole.
        needed = given.shape[1] - np.argmax(given[:, ::-1] != 0, 1)
        rows = []
        for i, tokens in enumerate(needed):
            length = next(length for length in lengths if length >= tokens)
            outputs = runners[length]({name: values[i:i + 1, :length]
                                       for name, values in inputs.items()})
            rows.append({name: widen(values, lengths[-1]) for name, values in outputs.items()})
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return run


def widen(values: np.ndarray, width: int) -> np.ndarray:
    """Bring what has a row for each token, (texts, tokens, ...), to one width, with zeros."""
    if values.ndim < 3:
        return values
    whole = np.zeros((len(values), max(width, values.shape[1]), *values.shape[2:]), values.dtype)
    whole[:, :values.shape[1]] = values
    return whole[:, :width]


def run_all(runner: Runner, encoded: Encoded, shapes: Shapes = _FEW) -> Arrays:
    """Run every text once and give outputs in the order of the texts.

    Where words were asked for, outputs with a row for each token come with a row for each word
    instead: (texts, most words, ...), zeros after a text's last. Of groups of texts the outputs
    are (groups, texts of each, ...), without those that have a row for each token.
    """
    results: Arrays = {}
    words = encoded.words
    numbers = None if words is None else words.at_first(len(encoded.ids))
    if words is not None:
        longest = shapes.length or int(encoded.lengths.max(initial=1))
        shapes = replace(shapes, size=max(1, min(shapes.size, words.tokens_a_batch // longest)))
    for rows, inputs in batches(encoded, shapes):
        for name, values in runner(inputs).items():
            values = np.asarray(values)[:len(rows)]
            if values.ndim > 2 and encoded.groups is not None:
                continue  # gigabytes for some thousand texts
            if values.ndim > 2 and words is not None and numbers is not None:
                for value, row in zip(values, rows, strict=True):
                    here = numbers[encoded.splits[row]:encoded.splits[row + 1]]
                    _put(results, words, name, value[:len(here)][here >= 0], here[here >= 0])
            elif values.ndim > 2:  # (batch, length, ...)
                # What a model gives for padding means nothing.
                values = values * inputs["attention_mask"][:len(rows), :, None]
                longest = shapes.length or int(encoded.lengths.max(initial=0))
                shape = (len(encoded), longest, *values.shape[2:])
                whole = results.setdefault(name, np.zeros(shape, values.dtype))
                values = values[:, :longest]
                whole[rows, :values.shape[1]] = values
            else:
                shape = (len(encoded), *values.shape[1:])
                results.setdefault(name, np.zeros(shape, values.dtype))[rows] = values
    if encoded.groups is not None:
        return {name: values[encoded.groups] for name, values in results.items()}
    if words is None:
        return results
    return {name: words.padded(values) for name, values in results.items()}


def _put(results: Arrays, words: Words, name: str, values: np.ndarray,
         numbers: np.ndarray) -> None:
    """Write a text's word rows at the words' numbers, as far as they are kept."""
    for key, kept in words.keep(name, values, numbers).items():
        shape = (len(words.first), *kept.shape[1:])
        results.setdefault(key, np.zeros(shape, kept.dtype))[numbers] = kept
