"""Which features each unit of a hidden layer reads: all of them, or in a vote those that its voter answers from.

What is nought is neither multiplied nor kept in files.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from seqbag.batch import Int32s

Run = tuple[slice, slice]  # features, and the units that read them


def runs_of(spans: Int32s) -> list[Run]:
    """spans: (units, 2) int32, of each unit the first feature it reads and the one after the last."""
    changes = np.flatnonzero((spans[1:] != spans[:-1]).any(axis=1)) + 1
    edges = [0, *changes.tolist(), len(spans)]
    return [(slice(*spans[start].tolist()), slice(start, stop)) for start, stop in pairwise(edges) if start < stop]


def spans_of(runs: Sequence[Run]) -> Int32s:
    """The spans that `runs_of` was given."""
    parts = [np.full((units.stop - units.start, 2), (read.start, read.stop), np.int32) for read, units in runs]
    return np.concatenate(parts)


def joined(runs: Sequence[Run]) -> list[Run]:
    """Units side by side that read the same features are one run."""
    return runs_of(spans_of(runs)) if runs else []


def narrowed(weights: npt.NDArray[Any], spans: Int32s) -> npt.NDArray[Any]:
    """Weights (features, units) of what is read, unit by unit, (entries,)."""
    entries: npt.NDArray[Any] = weights.T[_mask(spans, len(weights))]
    return entries


def widened(entries: npt.NDArray[Any], spans: Int32s, features: int) -> npt.NDArray[Any]:
    """The weights (features, units) that `narrowed` was given. Raises ValueError if the two do not fit."""
    if (spans < 0).any() or (spans > features).any() or (spans[:, 0] > spans[:, 1]).any():
        raise ValueError("the spans of the hidden units do not fit the features")
    mask = _mask(spans, features)
    if entries.shape != (int(mask.sum()),):
        raise ValueError(f"the hidden units have {entries.shape} weights and not {mask.sum()}")
    weights = np.zeros(mask.shape, entries.dtype)
    weights[mask] = entries
    return np.ascontiguousarray(weights.T)


def _mask(spans: Int32s, features: int) -> npt.NDArray[np.bool_]:
    """(units, features) which features are read."""
    numbers = np.arange(features)
    return (numbers >= spans[:, :1]) & (numbers < spans[:, 1:])
