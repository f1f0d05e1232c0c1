"""How much each of several classifiers has to say: stacking (Wolpert 1992, doi 10.1016/S0893-6080(05)80023-1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seqbag.batch import Int32s, Int64s

Floats = npt.NDArray[np.float64]
_PRIOR = 1.0  # of equal shares, in rows: what is right anyway does not make weights grow without end
_STEPS = 30


def stacked(logits: Floats, labels: Int32s, counts: Int64s) -> Floats:
    """(k,) weights from 0 on, such that the weighted sum of the logits says most of rows none of them learned from.

    logits: (k, n, classes) of k classifiers; labels: (n,); counts: (n,), how many rows each stands for. The sum of
    their cross-entropy is convex in the weights, and Newton's method finds where it is least. All weigh alike if none
    is of use.
    """
    equal, used = np.full(len(logits), 1 / len(logits)), np.ones(len(logits), np.bool_)
    while used.any() and len(labels):
        weights = np.zeros(len(logits))
        weights[used] = _least(logits[used], labels, counts, equal[0])
        if weights.min() >= 0:
            return weights
        used &= weights > 0
    return equal


def _least(logits: Floats, labels: Int32s, counts: Int64s, prior: float) -> Floats:
    """The weights of least cross-entropy, of either sign."""
    weights, rows = np.full(len(logits), prior), np.arange(len(labels))

    def loss(weights: Floats) -> float:
        mixed = np.tensordot(weights, logits, 1)
        mixed -= mixed.max(1, keepdims=True)
        own = np.log(np.exp(mixed).sum(1)) - mixed[rows, labels]
        return float(counts @ own) + _PRIOR / 2 * float(np.square(weights - prior).sum())

    for _ in range(_STEPS):
        mixed = np.tensordot(weights, logits, 1)
        shares = np.exp(mixed - mixed.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        means = np.einsum("nc,knc->kn", shares, logits)
        apart = logits - means[:, :, None]
        slope = (means - logits[:, rows, labels]) @ counts + _PRIOR * (weights - prior)
        curvature = np.einsum("n,nc,knc,lnc->kl", counts, shares, apart, apart) + _PRIOR * np.eye(len(weights))
        step, before = np.linalg.solve(curvature, slope), loss(weights)
        while loss(weights - step) > before and np.abs(step).max() > 1e-9:
            step /= 2
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    return weights
