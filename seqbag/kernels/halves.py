"""Rows of features in half precision, as what is trained on them takes them: in single precision, and mixed by twos."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_SCALE = np.float32(2.0**112)  # between the exponents of the two precisions
_INFINITE = np.int32(0x7C00)  # from which on a half stands for infinity, or for no number


@njit(cache=True, nogil=True)
def _widen(halves: Any, out: Any, bits: Any) -> None:
    """out (d,) float32 = halves (d,), the bits of float16; bits: out as int32."""
    for d in range(len(halves)):
        size = np.int32(halves[d]) & np.int32(0x7FFF)
        bits[d] = size << np.int32(13)
    for d in range(len(halves)):
        out[d] *= _SCALE
    for d in range(len(halves)):
        half = np.int32(halves[d])
        sign = (half & np.int32(0x8000)) << np.int32(16)
        bits[d] |= sign | (np.int32(0x7F800000) if (half & np.int32(0x7FFF)) >= _INFINITE else np.int32(0))


@njit(cache=True, nogil=True)
def mixed_rows(halves: Any, chosen: Any, share: Any, rest: Any, out: Any) -> None:
    """out (b, d) float32 = share * halves[chosen] + rest * those of the row before, of the first the last.

    halves: (n, d) uint16, the bits of float16; chosen: (b,); share, rest: float32. Rows are as they are if rest is 0.
    """
    rows, dims = out.shape
    before, own = np.empty(dims, np.float32), np.empty(dims, np.float32)
    before_bits, own_bits = before.view(np.int32), own.view(np.int32)
    if rest != 0 and rows:
        _widen(halves[chosen[rows - 1]], before, before_bits)
    for row in range(rows):
        _widen(halves[chosen[row]], own, own_bits)
        to = out[row]
        for d in range(dims):
            to[d] = own[d] if rest == 0 else share * own[d] + rest * before[d]
        before, own = own, before
        before_bits, own_bits = own_bits, before_bits
