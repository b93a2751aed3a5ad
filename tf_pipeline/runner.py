"""A loaded model as a function of arrays, and the one loop that feeds it."""

from collections.abc import Callable

import numpy as np

from .text import Arrays, Encoded, batches

# Takes the three standard inputs, int (batch, length); gives named outputs, (batch, ...).
Runner = Callable[[Arrays], Arrays]


def run_all(runner: Runner, encoded: Encoded, size: int = 32, length: int | None = None) -> Arrays:
    """Run every text once and give outputs in the order of the texts.

    `size` texts at a time, padded to `length` or to the longest of the batch. Outputs with a row
    for each token are padded with zeros to the longest text.
    """
    results: Arrays = {}
    longest = length or int(encoded.lengths.max(initial=0))
    for rows, inputs in batches(encoded, size, length):
        for name, values in runner(inputs).items():
            values = np.asarray(values)[:len(rows)]
            if values.ndim > 2:  # (batch, length, ...)
                values = values[:, :longest]
                if name not in results:
                    shape = (len(encoded), longest, *values.shape[2:])
                    results[name] = np.zeros(shape, values.dtype)
                results[name][rows, :values.shape[1]] = values
            else:
                if name not in results:
                    shape = (len(encoded), *values.shape[1:])
                    results[name] = np.zeros(shape, values.dtype)
                results[name][rows] = values
    return results
