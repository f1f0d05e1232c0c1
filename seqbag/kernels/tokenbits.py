"""Convolutions of signs over tokens by look-up.

What a token adds to a filter at one place of the window is a small integer known beforehand, so that a window's sums
are `width` additions of table rows. Windows of logs repeat: with a memory of windows, those met before cost no sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from seqbag.kernels.bitops import WORD
from seqbag.kernels.bitops import sums_above as _sums_above

_above: Any = _sums_above  # numba gives an intrinsic's context by itself
_MIX = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
def convolve_tokens(
    rows: Any, offsets: Any, out_offsets: Any, stride: int, before: int, width: int, tables: Any, thresholds: Any,
    seen: Any, answers: Any, out: Any, column: int,
) -> None:  # fmt: skip
    """Activation bits of every window, written to out[:, column:] (out_sites, words) uint64.

    rows: (sites,) int32 below tokens; offsets, out_offsets: (n + 1,) the sites of each example and of its output;
    stride, before: as in `patches`; tables: (width * tokens, filters) int16, filters a multiple of 64, row 0 of each
    place zeros, as padding reads row 0; thresholds: (filters,) int16; seen: (slots, width) int32 of -1, answers:
    (slots, filters / 64) uint64, slots a power of two: the memory of windows, or no slots for none.
    """
    filters = tables.shape[1]
    step = len(tables) // width * filters
    flat = tables.reshape(-1)
    words = filters // WORD
    slots = len(seen)
    window = np.zeros(width, np.int64)
    for example in range(len(offsets) - 1):
        first, last = offsets[example], offsets[example + 1]
        start = first - before
        for site in range(out_offsets[example], out_offsets[example + 1]):
            known = slots > 0
            slot = np.int64(0)
            if slots:
                h = np.uint64(0)
                for p in range(width):
                    row = rows[start + p] if first <= start + p < last else 0
                    h = (h ^ np.uint64(row)) * _MIX
                slot = np.int64((h >> np.uint64(32)) & np.uint64(slots - 1))
            for p in range(width):
                row = rows[start + p] if first <= start + p < last else np.int32(0)
                window[p] = np.int64(row) * filters
                if slots:
                    known &= seen[slot, p] == row
                    seen[slot, p] = row
            if known:
                for k in range(words):
                    out[site, column + k] = answers[slot, k]
            else:
                for k in range(words):
                    word = _above(flat, window, width, step, k * WORD, thresholds, k * WORD)
                    out[site, column + k] = word
                    if slots:
                        answers[slot, k] = word
            start += stride


@njit(cache=True, nogil=True)
def look_up_windows(
    rows: Any, offsets: Any, out_offsets: Any, stride: int, before: int, width: int, tokens: int, answers: Any,
    out: Any, column: int,
) -> None:  # fmt: skip
    """As `convolve_tokens`, from answers (tokens ** width, words) to every window there is."""
    words = answers.shape[1]
    for example in range(len(offsets) - 1):
        first, last = offsets[example], offsets[example + 1]
        start = first - before
        for site in range(out_offsets[example], out_offsets[example + 1]):
            at = np.uint64(0)
            for p in range(width):
                row = rows[start + p] if first <= start + p < last else np.int32(0)
                at = at * np.uint64(tokens) + np.uint64(row)
            for k in range(words):
                out[site, column + k] = answers[at, k]
            start += stride
