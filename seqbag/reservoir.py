"""A uniform sample of a stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Reservoir:
    """A uniform sample of the rows of a stream (Vitter 1985, algorithm R), and the number of rows seen."""

    def __init__(self, capacity: int, dims: int, dtype: npt.DTypeLike, rng: np.random.Generator) -> None:
        self.seen = 0
        self._room = np.empty((capacity, dims), dtype)
        self._rng = rng

    @property
    def rows(self) -> npt.NDArray[Any]:
        """(min(seen, capacity), D): the sample."""
        return self._room[: self.seen]

    def update(self, x: npt.NDArray[Any]) -> None:
        """Offer the rows of x (n, D)."""
        slots = np.arange(self.seen, self.seen + len(x))
        full = slots >= len(self._room)
        slots[full] = self._rng.integers(0, slots[full] + 1)
        kept = np.flatnonzero(slots < len(self._room))
        self._room[slots[kept]] = x[kept]
        self.seen += len(x)

    def merge(self, other: Reservoir) -> None:
        """Sample both streams, as if one: the share of each is drawn, then the rows of each."""
        size = min(len(self._room), self.seen + other.seen)
        if self.seen + other.seen <= len(self._room):
            share = self.seen
        else:
            share = int(self._rng.hypergeometric(self.seen, other.seen, size))
            share = min(max(share, size - len(other.rows)), len(self.rows))
        mine = self.rows[self._rng.choice(len(self.rows), share, replace=False)]
        theirs = other.rows[self._rng.choice(len(other.rows), size - share, replace=False)]
        self._room[:size] = np.concatenate([mine, theirs])
        self.seen += other.seen
