"""Windows of ragged sequences as gather indexes, and the gather itself."""

from __future__ import annotations

import numpy as np
from numba import njit

from seqbag.batch import Int64s


@njit(cache=True, nogil=True)
def ragged_windows(offsets: Int64s, out_offsets: Int64s, stride: int, before: int, index: np.ndarray) -> None:
    """Fill index (out_sites, window): the window of output site o of an example starts at o * stride - before."""
    for example in range(len(offsets) - 1):
        first, last = offsets[example], offsets[example + 1]
        start = first - before
        for row in range(out_offsets[example], out_offsets[example + 1]):
            for j in range(index.shape[1]):
                site = start + j
                index[row, j] = site if first <= site < last else -1
            start += stride


@njit(cache=True, nogil=True)
def gather_windows(values: np.ndarray, index: np.ndarray, out: np.ndarray) -> None:
    """out (n * out_sites, window * channels) from values (n, sites, channels); an index outside the sites reads 0.

    One and three channels (token ids, colours) have loops of their own: a copy of a few bytes is all overhead.
    """
    n, sites, channels = values.shape
    rows = len(index)
    flat = index.reshape(-1)
    for example in range(n):
        site_values = values[example].reshape(-1)
        windows = out[example * rows : (example + 1) * rows].reshape(-1)
        if channels == 1:
            for j in range(len(flat)):
                inside = 0 <= flat[j] < sites
                value = site_values[flat[j] if inside else 0]
                windows[j] = value if inside else 0
        elif channels == 3:
            for j in range(len(flat)):
                at = 3 * flat[j]
                if 0 <= flat[j] < sites:
                    windows[3 * j], windows[3 * j + 1], windows[3 * j + 2] = (
                        site_values[at],
                        site_values[at + 1],
                        site_values[at + 2],
                    )
                else:
                    windows[3 * j], windows[3 * j + 1], windows[3 * j + 2] = 0, 0, 0
        else:
            for row in range(rows):
                for j in range(index.shape[1]):
                    site = index[row, j]
                    at = j * channels
                    if 0 <= site < sites:
                        for c in range(channels):
                            out[example * rows + row, at + c] = values[example, site, c]
                    else:
                        for c in range(channels):
                            out[example * rows + row, at + c] = 0
