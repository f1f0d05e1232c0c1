"""Feature maps on grids: pooling between layers, sampled windows of half-precision maps, and sums over samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic


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
def pool_max(values: Any, index: Any, out: Any) -> None:
    """As `pool_mean`, but the largest: of bits, whether any is set."""
    channels = values.shape[2]
    for example in range(len(values)):
        for site in range(len(index)):
            for c in range(channels):
                out[example, site, c] = values[example, index[site, 0], c]
            for j in range(1, index.shape[1]):
                source = index[site, j]
                for c in range(channels):
                    out[example, site, c] = max(out[example, site, c], values[example, source, c])


@intrinsic
def _from_half(typing: Any, bits: Any) -> tuple[Any, Callable[..., Any]]:
    """The float32 of a float16 given as its bits; numba knows no float16 on CPUs, LLVM does."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), codegen


@njit(cache=True, nogil=True)
def sample_windows(halves: Any, examples: Any, sites: Any, index: Any, mean: Any, scale: Any, out: Any) -> None:
    """Fill out (b * m, window * channels) with standardised windows of sampled sites.

    halves: (n, sites, channels) the bits of float16 maps; examples: (b,) int; sites: (b, m) int32 rows of
    index (s, window) int32, -1 for padding; mean, scale: (window * channels,), out = (window - mean) * scale.
    """
    channels = halves.shape[2]
    samples = sites.shape[1]
    for row in range(len(out)):
        source = halves[examples[row // samples]]
        window = index[sites[row // samples, row % samples]]
        for j in range(len(window)):
            at = j * channels
            if window[j] < 0:
                for c in range(channels):
                    out[row, at + c] = -mean[at + c] * scale[at + c]
            else:
                pixel = source[window[j]]
                for c in range(channels):
                    out[row, at + c] = (_from_half(pixel[c]) - mean[at + c]) * scale[at + c]  # type: ignore[call-arg]


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
