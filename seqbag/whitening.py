"""The first layer over pixels: frozen filters that whiten patches, each in both signs.

Neighbouring pixels say nearly the same; after whitening, every filter speaks of variance of its own (Coates, Lee and Ng
2011, who found its constant to matter more than anything learned on top of it). Of a relu pair with both signs nothing
is lost.
"""

from __future__ import annotations

from math import prod

import numpy as np

from seqbag.batch import Float32s
from seqbag.head import Activation
from seqbag.layer import Layer, Maps
from seqbag.patches import Patcher
from seqbag.projection import Moments, Projection
from seqbag.regions import Regions

EPSILON = 1e-2  # of the mean variance; see Projection.fit
_THRESHOLDS = (0.25, 1.0)  # of sign filters, in standard deviations: two bits tell weak from strong
_SITES = 1 << 16  # whose patches are cut at once


def whitening(
    sample: Maps, patcher: Patcher, activation: Activation, halved: tuple[int, ...], epsilon: float = EPSILON
) -> Layer:
    """A layer fitted to a sample of images (uint8 maps), whose moments are taken in integers; it pools no features."""
    dims = prod(patcher.window) * sample.values.shape[1]
    moments = Moments.of(dims, sample.values.dtype)
    for _, part in sample.parts(_SITES):
        moments.update(part.windows(patcher)[0])
    projection = Projection.fit(moments, dims, epsilon)
    matrix, bias = projection.matrix, -(projection.mean @ projection.matrix)
    weights = np.concatenate([matrix, -matrix], axis=1)
    biases = np.concatenate([bias, -bias])
    if activation == "sign":
        spread = _spread(moments, matrix)
        steps = [np.concatenate([spread, spread]) * np.float32(threshold) for threshold in _THRESHOLDS]
        weights = np.concatenate([weights] * len(steps), axis=1)
        biases = np.concatenate([biases - step for step in steps])
    arrays = (np.ascontiguousarray(weights, np.float32),), (biases.astype(np.float32),)
    return Layer((patcher,), *arrays, activation, Regions("none"), pooling=halved)


def _spread(moments: Moments, matrix: Float32s) -> Float32s:
    """(P,) standard deviations of the projections."""
    wide = matrix.astype(np.float64)
    spread: Float32s = np.sqrt(np.einsum("dp,de,ep->p", wide, moments.covariance(), wide)).astype(np.float32)
    return spread
