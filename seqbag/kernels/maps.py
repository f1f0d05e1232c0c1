"""Feature maps on grids: pooling between layers, maps as bytes, sampled windows of those, and sums over samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def pool_mean(values: Any, index: Any, out: Any) -> None:
    """out (n, out_sites, channels): the mean over the sites index (out_sites, m) of values (n, sites, channels)."""
    scale = np.float32(1 / index.shape[1])
    channels = values.shape[2]
    for example in range(len(values)):
        for site in range(len(index)):
            for c in range(channels):
                out[example, site, c] = 0
            for j in range(index.shape[1]):
                source = index[site, j]
                for c in range(channels):
                    out[example, site, c] += values[example, source, c]
            for c in range(channels):
                out[example, site, c] *= scale


@njit(cache=True, nogil=True)
def to_bytes(values: Any, inverse: Any, out: Any) -> None:
    """out (n, channels) int8: values (n, channels) float32 times inverse (channels,), rounded, from -127 to 127."""
    for row in range(len(values)):
        for c in range(values.shape[1]):
            scaled = min(max(values[row, c] * inverse[c], np.float32(-127)), np.float32(127))
            out[row, c] = np.int8(np.rint(scaled))


@njit(cache=True, nogil=True, fastmath={"contract"})
def sample_windows(
    codes: Any, examples: Any, sites: Any, index: Any, first: int, step: int, factor: Any, offset: Any, out: Any
) -> None:
    """Fill out (b * m, window * channels) with windows of sampled sites, window * factor + offset.

    codes: (n, sites, channels) int8 maps; examples: (b,) int; sites: (b, m) int32 rows of index (s, window) int32, -1
    for padding, which reads 0; first, step: every step-th channel of the maps is read, from number `first` on; factor,
    offset: (window * channels read,).
    """
    channels = len(offset) // index.shape[1]
    samples = sites.shape[1]
    for row in range(len(out)):
        source = codes[examples[row // samples]]
        window = index[sites[row // samples, row % samples]]
        for j in range(len(window)):
            at = j * channels
            if window[j] < 0:
                for c in range(channels):
                    out[row, at + c] = offset[at + c]
            else:
                # Arrays of their own, else the compiler reckons with indexes below nought and uses no vectors.
                if step == 1:  # half the time of what may be apart
                    beside = source[window[j]][first:]
                    for c in range(channels):
                        out[row, at + c] = np.float32(beside[c]) * factor[at + c] + offset[at + c]
                else:
                    apart = source[window[j]][first::step]
                    for c in range(channels):
                        out[row, at + c] = np.float32(apart[c]) * factor[at + c] + offset[at + c]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def sum_samples(values: Any, segments: Any, weights: Any, out: Any) -> None:
    """out (b, regions, f): weighted sums of values (b * m, f), sample j in segments[j]."""
    samples = len(segments)
    for example in range(len(out)):
        for r in range(out.shape[1]):
            for f in range(out.shape[2]):
                out[example, r, f] = 0
        for j in range(samples):
            r, weight, row = segments[j], weights[j], example * samples + j
            for f in range(out.shape[2]):
                out[example, r, f] += weight * values[row, f]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def spread_samples(gradient: Any, segments: Any, weights: Any, out: Any) -> None:
    """Adjoint of `sum_samples`: gradient (b, regions, f) to out (b * m, f)."""
    samples = len(segments)
    for example in range(len(gradient)):
        for j in range(samples):
            r, weight, row = segments[j], weights[j], example * samples + j
            for f in range(gradient.shape[2]):
                out[row, f] = weight * gradient[example, r, f]
