"""Hidden layers that stand side by side, as they are kept in a file: of each unit, only the features that it reads.

A vote's units read one layer's features or all of them (see `Classifier.voting`); most of its weights are nought.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from seqbag.batch import Int32s


def narrowed(weights: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Int32s | None]:
    """Weights (features, units) unit by unit, (entries,), and of each unit the first feature and the one after them.

    The weights as they are, and None, where that takes no more room.
    """
    used = weights != 0
    first, after = used.argmax(0), len(weights) - used[::-1].argmax(0)
    spans = np.where(used.any(0), np.stack([first, after]), 0).T.astype(np.int32)
    kept = weights.T[_mask(spans, len(weights))]
    return (weights, None) if kept.nbytes + spans.nbytes >= weights.nbytes else (kept, spans)


def widened(entries: npt.NDArray[Any], spans: Int32s, features: int) -> npt.NDArray[Any]:
    """The weights (features, units) that `narrowed` was given. Raises ValueError if the two do not fit."""
    if spans.ndim != 2 or spans.shape[1] != 2 or (spans < 0).any() or (spans > features).any():
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
