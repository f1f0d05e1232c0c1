"""Values of few levels in few bits: packing, unpacking, and sampled windows of them. See `seqbag.levels`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, fastmath={"contract"})
def to_levels(values: Any, signs: int, bits: int, out: Any) -> None:
    """Fill out (n, site_bytes) uint8 with codes of values (n, channels) float32 from -1 to 1."""
    half = np.float32(signs / 2)
    places = out.shape[1]
    for row in range(len(values)):
        own = out[row]
        own[:] = 0
        for plane in range(8 // bits):
            part = values[row, plane * places : (plane + 1) * places]
            for j in range(len(part)):
                own[j] |= np.uint8(np.int32(part[j] * half + half + np.float32(0.5)) << (plane * bits))


@njit(cache=True, nogil=True, fastmath={"contract"})
def from_levels(codes: Any, signs: int, bits: int, out: Any) -> None:
    """Fill out (n, channels) float32 with the values of codes (n, site_bytes) uint8."""
    unit, mask = np.float32(2 / signs), (1 << bits) - 1
    places = codes.shape[1]
    for row in range(len(out)):
        own = codes[row]
        for plane in range(8 // bits):
            part = out[row, plane * places : (plane + 1) * places]
            for j in range(len(part)):
                part[j] = np.float32((np.int32(own[j]) >> (plane * bits)) & mask) * unit - np.float32(1)


@njit(cache=True, nogil=True, fastmath={"contract"})
def sample_levels(
    codes: Any, examples: Any, sites: Any, index: Any, first: int, step: int, bits: int, factor: Any, raised: Any,
    padding: Any, out: Any,
) -> None:  # fmt: skip
    """Fill out (b * m, window * channels) with windows of sampled sites: code * factor + raised; `padding` outside.

    codes: (n, sites, site_bytes) uint8; the rest as for `sample_windows`.
    """
    channels = len(factor) // index.shape[1]
    samples, places, mask = sites.shape[1], codes.shape[2], np.int32((1 << bits) - 1)
    for row in range(len(out)):
        source = codes[examples[row // samples]]
        window = index[sites[row // samples, row % samples]]
        for j in range(len(window)):
            at = j * channels
            if window[j] < 0:
                for c in range(channels):
                    out[row, at + c] = padding[at + c]
                continue
            done = 0
            for plane in range(8 // bits):
                shift = np.int32(plane * bits)
                apart = source[window[j]][(first - plane * places) % step :: step]
                taken = min(len(apart), channels - done)  # the last plane may be short of channels
                begin = at + done
                own = out[row, begin : begin + taken]
                times, plus = factor[begin : begin + taken], raised[begin : begin + taken]
                for c in range(taken):
                    own[c] = np.float32((np.int32(apart[c]) >> shift) & mask) * times[c] + plus[c]
                done += taken
