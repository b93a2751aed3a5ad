"""A loaded model as a function of arrays, and the one loop that feeds it."""

from collections.abc import Callable

import numpy as np

from .text import Arrays, Encoded, batches
from .words import Words

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
    words = encoded.words
    numbers = None if words is None else words.at_first(len(encoded.ids))
    if words is not None:
        size = max(1, min(size, words.tokens_a_batch // (length or encoded.lengths.max(initial=1))))
    for rows, inputs in batches(encoded, size, length):
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
    if words is None:
        return results
    return {name: words.padded(values) for name, values in results.items()}


def _put(results: Arrays, words: Words, name: str, values: np.ndarray,
         numbers: np.ndarray) -> None:
    """Write a text's word rows at the words' numbers, as far as they are kept."""
    for key, kept in words.keep(name, values, numbers).items():
        shape = (len(words.first), *kept.shape[1:])
        results.setdefault(key, np.zeros(shape, kept.dtype))[numbers] = kept
