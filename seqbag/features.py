"""Pooled activations to the features a classifier sees: a signed logarithm, and the lengths of the regions.

The logarithm keeps a pattern's first occurrences apart and its hundredth and thousandth together, and, unlike a mean,
does not forget how long an example was. On held-out rows it was as good as a sum over sqrt(length) on short strings and
better on long repetitive sequences. Over the cells of a grid, all of one size, plain means do better: 2.3 points on
10,000 held-in images of CIFAR-10.
"""

from __future__ import annotations

import numpy as np

from seqbag.batch import Float32s
from seqbag.kernels.logarithm import log_features, log_gradient
from seqbag.regions import Regions


def takes_means(regions: Regions) -> bool:
    """Whether features are means over the regions."""
    return regions.kind == "grid"


def pooled_features(sums: Float32s, lengths: Float32s, means: bool = False) -> Float32s:
    """Sums (n, regions, f) of activations and lengths (n, regions) in sites to (n, regions * f + regions) features.

    means: sums over lengths instead of their logarithms.
    """
    n, regions, filters = sums.shape
    if means:
        values = sums / np.maximum(lengths, 1)[:, :, None]
        return np.concatenate([values.reshape(n, regions * filters), np.log1p(lengths)], axis=1)
    features = np.empty((n, regions * (filters + 1)), np.float32)
    log_features(sums.reshape(n, regions * filters), np.ascontiguousarray(lengths), features)
    return features


def pooled_gradient(gradient: Float32s, sums: Float32s, lengths: Float32s | None = None, first: int = 0) -> Float32s:
    """Adjoint of `pooled_features` in the sums; returns their shape.

    gradient: (n, at least first + regions * f + regions), from column `first` on; lengths: given where the features are
    means.
    """
    n, regions, filters = sums.shape
    if lengths is not None:
        own = gradient[:, first : first + regions * filters].reshape(sums.shape)
        return (own / np.maximum(lengths, 1)[:, :, None]).astype(np.float32, copy=False)
    pooled: Float32s = np.empty_like(sums)
    log_gradient(gradient, first, sums.reshape(n, regions * filters), pooled.reshape(n, regions * filters))
    return pooled
