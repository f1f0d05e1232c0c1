"""Batch normalisation, forward and backward (Ioffe and Szegedy 2015, arXiv 1502.03167), on rows that carry weights.

All arrays are contiguous float32: n rows of d features. Each is read row by row, with d sums that stay in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_CONSTANT = np.float32(1e-8)  # the variance of a feature that does not vary but for rounding, at most


@njit(cache=True, nogil=True, error_model="numpy")
def scales(variance: Any) -> Any:
    """One over the standard deviation, bounded; 0 where rounding alone would be scaled up to the size of a signal."""
    mean = np.float32(0)
    for j in range(len(variance)):
        mean += variance[j] / np.float32(len(variance))
    scale = np.zeros_like(variance)
    for j in range(len(variance)):
        if variance[j] > _CONSTANT:
            scale[j] = np.float32(1) / np.sqrt(variance[j] + np.float32(1e-6) + np.float32(1e-4) * mean)
    return scale


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def weighted_moments(features: Any, share: Any) -> Any:
    """Mean and variance (d,) of features (n, d); share: (n,) of each row, 1 in all."""
    mean = np.zeros(features.shape[1], np.float32)
    variance = np.zeros(features.shape[1], np.float32)
    for i in range(len(features)):
        row, part = features[i], share[i]
        for j in range(len(row)):
            mean[j] += part * row[j]
    for i in range(len(features)):
        row, part = features[i], share[i]
        for j in range(len(row)):
            apart = row[j] - mean[j]
            variance[j] += part * apart * apart
    return mean, variance


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def normalise(features: Any, mean: Any, scale: Any, out: Any) -> None:
    """out (n, d) = (features - mean) * scale."""
    for i in range(len(features)):
        row, own = features[i], out[i]
        for j in range(len(row)):
            own[j] = (row[j] - mean[j]) * scale[j]


@njit(cache=True, nogil=True)
def standardise(features: Any, weights: Any) -> Any:
    """Rows of features (n, d) that stand for weights (n,) rows each, brought to mean 0 and variance 1.

    Returns the share (n,) of each in the weights, the mean, variance and `scales` (d,), and what became of them (n, d).
    """
    share = weights / weights.sum()
    mean, variance = weighted_moments(features, share)
    scale, out = scales(variance), np.empty_like(features)
    normalise(features, mean, scale, out)
    return share, mean, variance, scale, out


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def normalise_gradient(gradient: Any, normal: Any, share: Any, scale: Any) -> None:
    """Gradient (n, d) of what `normalise` gave, `normal`, to that of the features, in place.

    The mean and the scale are those of the rows themselves, so that a feature moves all rows.
    """
    through_mean = np.zeros(gradient.shape[1], np.float32)
    through_variance = np.zeros(gradient.shape[1], np.float32)
    for i in range(len(gradient)):
        own, values = gradient[i], normal[i]
        for j in range(len(own)):
            through_mean[j] += own[j]
            through_variance[j] += own[j] * values[j]
    for i in range(len(gradient)):
        own, values, part = gradient[i], normal[i], share[i]
        for j in range(len(own)):
            own[j] = (own[j] - part * (through_mean[j] + values[j] * through_variance[j])) * scale[j]
