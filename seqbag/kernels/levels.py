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
    codes: Any, examples: Any, sites: Any, index: Any, shift: int, bits: int, factor: Any, raised: Any, padding: Any,
    out: Any,
) -> None:  # fmt: skip
    """Fill out (b * m, window * channels) with windows of sampled sites: code * factor + raised; `padding` outside.

    codes: (n, sites, words) unsigned, up to 32 bits, of which those from `shift` on are the first of the channels read;
    the rest as for `sample_windows`.
    """
    channels = len(factor) // index.shape[1]
    samples, places, mask = sites.shape[1], codes.shape[2], np.int32((1 << bits) - 1)
    # Flat, and indexed by numbers without a sign: arrays of their own for each few values take most of the time.
    flat, filled = codes.reshape(-1), out.reshape(-1)
    for row in range(len(out)):
        example, window = examples[row // samples], index[sites[row // samples, row % samples]]
        for j in range(len(window)):
            at = j * channels
            to = row * out.shape[1] + at
            if window[j] < 0:
                for c in range(channels):
                    filled[np.uintp(to + c)] = padding[np.uintp(at + c)]
                continue
            source = (example * codes.shape[1] + window[j]) * places
            for plane in range(8 // bits):
                low, first = np.int32(shift + plane * bits), plane * places
                for c in range(min(places, channels - first)):  # the last plane may be short of channels
                    code = np.float32((np.int32(flat[np.uintp(source + c)]) >> low) & mask)
                    filled[np.uintp(to + first + c)] = (
                        code * factor[np.uintp(at + first + c)] + raised[np.uintp(at + first + c)]
                    )
