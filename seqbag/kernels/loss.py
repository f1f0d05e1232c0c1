"""The cross-entropy of a batch and its gradient, row by row while it is in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def softmax_loss(logits: Any, target: Any, weight: Any, gradient: Any) -> float:
    """Sum over the rows of weight times cross-entropy; fills gradient (n, classes), that of its mean over the n rows.

    logits, target: (n, classes) float32; a target's sum need not be 1; weight: (n,) float32.
    """
    total = 0.0
    for i in range(len(logits)):
        row, wanted, own = logits[i], target[i], gradient[i]
        largest = row[0]
        for c in range(1, len(row)):
            largest = max(largest, row[c])
        powers, mass, met = np.float32(0), np.float32(0), np.float32(0)
        for c in range(len(row)):
            own[c] = np.exp(row[c] - largest)
            powers += own[c]
            mass += wanted[c]
            met += wanted[c] * (row[c] - largest)
        total += weight[i] * (mass * np.log(powers) - met)
        share = mass / powers
        each = weight[i] / np.float32(len(logits))
        for c in range(len(row)):
            own[c] = (own[c] * share - wanted[c]) * each
    return total
