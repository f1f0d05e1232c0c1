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

    One and three channels (token ids, colours) have loops of their own: copying a few bytes is all overhead. Unsigned,
    a negative site is a huge one, so that one comparison finds both; and it spares numba's count from the end.
    """
    n, sites, channels = len(values), np.uint64(values.shape[1]), values.shape[2]
    rows = len(index)
    flat = index.reshape(-1)
    zero, one, two, three = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3)
    for example in range(n):
        source = values[example].reshape(-1)
        target = out[example * rows : (example + 1) * rows].reshape(-1)
        if channels == 1:
            for j in range(len(flat)):
                site = np.uint64(np.int64(flat[j]))
                value = source[site if site < sites else zero]
                target[j] = value if site < sites else 0
        elif channels == 3:
            for j in range(len(flat)):
                site, to = np.uint64(np.int64(flat[j])), three * np.uint64(j)
                if site < sites:
                    at = three * site
                    target[to], target[to + one], target[to + two] = source[at], source[at + one], source[at + two]
                else:
                    target[to], target[to + one], target[to + two] = 0, 0, 0
        else:
            for row in range(rows):
                for j in range(index.shape[1]):
                    site, to = np.uint64(np.int64(index[row, j])), j * channels
                    if site < sites:
                        for c in range(channels):
                            out[example * rows + row, to + c] = values[example, site, c]
                    else:
                        for c in range(channels):
                            out[example * rows + row, to + c] = 0
