"""The exact codebook of discrete windows: every distinct window is a code, up to a capacity.

Once full, a window that is not kept takes the code of a kept one that shares most of its tokens, and is counted there;
it is never dropped. (The codebook of vectors is `kmeans.KMeans`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from seqbag.batch import Int32s, Int64s
from seqbag.errors import UsageError
from seqbag.kernels.counting import find_codes, find_near, index_masked

_START = 1 << 12  # windows there is room for at first


class ExactCodebook:
    """Distinct windows of `width` token ids, with the number of times each was seen.

    windows: (size, width) int32 in the order first seen; counts: (size,) int64; overflowed: windows counted under a
    near one. Merging adds counts exactly as long as the union fits the capacity.
    """

    def __init__(self, width: int, capacity: int) -> None:
        if width < 1 or capacity < 1:
            raise UsageError(f"a codebook of {capacity} windows of {width} tokens is empty: both must be 1 or more")
        self.width, self.capacity = width, capacity
        self.size = 0
        self.overflowed = 0
        room = min(capacity, _START)
        self._keys: Int32s = np.empty((room, width), np.int32)
        self._counts: Int64s = np.zeros(room, np.int64)
        self._slots: Int32s = np.full(2 * _START, -1, np.int32)
        self._near: tuple[Int32s, Int32s] | None = None
        self._near_size = 0

    @property
    def windows(self) -> Int32s:
        return self._keys[: self.size]

    @property
    def counts(self) -> Int64s:
        return self._counts[: self.size]

    def update(self, windows: Int32s, weights: Int64s | None = None) -> Int32s:
        """Count windows (m, width) int32, `weights` (m,) times each; returns their codes (m,) int32."""
        codes = np.empty(len(windows), np.int32)
        self._reserve(len(windows))
        self.size = find_codes(windows, self._keys[: self._room()], self._slots, self.size, True, codes)
        missing = codes < 0
        self._approximate(windows, codes)
        self.overflowed += int(np.count_nonzero(missing) if weights is None else weights[missing].sum())
        amounts = np.bincount(codes, weights, minlength=self.size)
        self._counts[: self.size] += amounts.astype(np.int64)
        return codes

    def assign(self, windows: Int32s) -> Int32s:
        """Codes (m,) int32 of windows (m, width), without counting: the same window or one near it."""
        codes = np.empty(len(windows), np.int32)
        find_codes(windows, self._keys[: self.size], self._slots, self.size, False, codes)
        self._approximate(windows, codes)
        return codes

    def merge(self, other: Self) -> Int32s:
        """Add what `other` counted. Returns (other.size,) int32: the code here of each of its codes."""
        if (self.width, self.capacity) != (other.width, other.capacity):
            raise UsageError("codebooks of different widths or capacities do not merge: make both by `empty` of one")
        self.overflowed += other.overflowed
        return self.update(other.windows, other.counts)

    def empty(self) -> Self:
        """A codebook that merging leaves unchanged."""
        return type(self)(self.width, self.capacity)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state, for a file."""
        shape = np.array((self.width, self.capacity, self.overflowed), np.int64)
        return {"shape": shape, "windows": self.windows, "counts": self.counts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The codebook whose `arrays` these are. Raises ValueError or KeyError if they cannot be."""
        width, capacity, overflowed = arrays["shape"].tolist()
        book = cls(width, capacity)
        windows, counts = arrays["windows"].astype(np.int32), arrays["counts"].astype(np.int64)
        if windows.shape != (len(counts), width) or len(counts) > capacity:
            raise ValueError("the windows of the codebook do not fit its counts")
        codes = book.update(windows, counts)
        if not np.array_equal(codes, np.arange(len(counts))):
            raise ValueError("the codebook holds a window twice")
        book.overflowed = overflowed
        return book

    def _room(self) -> int:
        return min(self.capacity, len(self._keys))

    def _reserve(self, more: int) -> None:
        """Make room for `more` new windows, as far as the capacity goes."""
        need = min(self.capacity, self.size + more)
        if need <= len(self._keys):
            return
        room = min(self.capacity, max(need, 2 * len(self._keys)))
        keys, counts = np.empty((room, self.width), np.int32), np.zeros(room, np.int64)
        keys[: self.size], counts[: self.size] = self.windows, self.counts
        self._keys, self._counts = keys, counts
        self._slots = np.full(1 << (2 * room - 1).bit_length(), -1, np.int32)
        find_codes(self.windows.copy(), self._keys, self._slots, 0, True, np.empty(self.size, np.int32))

    def _approximate(self, windows: Int32s, codes: Int32s) -> None:
        """Fill in the codes that are -1."""
        missing = bool((codes < 0).any())
        if missing and self.size == 0:
            raise UsageError("an empty codebook has no window to assign to: update it first")
        if missing:
            if self._near is None or self._near_size != self.size:
                entries = 2 * self.width * self.size
                slots = np.full(1 << (2 * entries - 1).bit_length(), -1, np.int32)
                masked = np.empty((entries, 2), np.int32)
                index_masked(self._keys, self.size, slots, masked)
                self._near, self._near_size = (slots, masked), self.size
            find_near(windows, codes, self._keys, *self._near)
