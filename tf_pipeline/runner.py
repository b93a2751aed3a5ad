"""A loaded model as a function of arrays, and the one loop that feeds it."""

from collections.abc import Callable

import numpy as np

from .text import Arrays, Encoded, batches

# Takes the three standard inputs, int (batch, length); gives named outputs, (batch, ...).
Runner = Callable[[Arrays], Arrays]


def run_all(runner: Runner, encoded: Encoded, size: int = 32, length: int | None = None) -> Arrays:
    """Run every text once and give outputs in the order of the texts.

    `size` texts at a time, padded to `length` or to the longest of the batch. Where words were
    asked for, outputs with a row for each token come with a row for each word instead:
    (texts, most words, ...), zeros after a text's last. Of groups of texts the outputs are
    (groups, texts of each, ...), without those that have a row for each token.
    """
    results: Arrays = {}
    for rows, inputs in batches(encoded, size, length):
        for name, values in runner(inputs).items():
            values = np.asarray(values)[:len(rows)]
            if values.ndim > 2 and encoded.groups is not None:
                continue  # gigabytes for some thousand texts
            if values.ndim > 2:  # what a model gives for padding means nothing
                values = values * inputs["attention_mask"][:len(rows), :, None]
            if values.ndim > 2 and encoded.words is not None:  # (batch, length, ...)
                _scatter(results, name, values, rows, encoded)
            elif values.ndim > 2:
                longest = length or int(encoded.lengths.max(initial=0))
                shape = (len(encoded), longest, *values.shape[2:])
                whole = results.setdefault(name, np.zeros(shape, values.dtype))
                values = values[:, :longest]
                whole[rows, :values.shape[1]] = values
            else:
                shape = (len(encoded), *values.shape[1:])
                results.setdefault(name, np.zeros(shape, values.dtype))[rows] = values
    if encoded.groups is not None:
        return {name: values[encoded.groups] for name, values in results.items()}
    if encoded.words is None:
        return results
    return {name: encoded.words.padded(values) for name, values in results.items()}


def _scatter(results: Arrays, name: str, values: np.ndarray, rows: np.ndarray,
             encoded: Encoded) -> None:
    """Write a batch's token rows at the places that the tokens have in `encoded.ids`."""
    flat = results.setdefault(name, np.zeros((len(encoded.ids), *values.shape[2:]), values.dtype))
    for value, row in zip(values, rows, strict=True):
        start, stop = encoded.splits[row], encoded.splits[row + 1]
        flat[start:stop] = value[:stop - start]
