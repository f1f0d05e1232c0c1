"""Whitening: the moments of a stream of vectors, and the projection to its principal axes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s
from seqbag.errors import UsageError
from seqbag.kernels.assign import Affine

_EXACT = 2**53  # integers up to here are exact in float64, so that BLAS sums them exactly
_CHUNK_ROWS = 1 << 13


@dataclass
class Moments:
    """Count, sum and sum of outer products of vectors: a mergeable statistic.

    count: vectors seen; total: (D,); outer: (D, D). For integer vectors they are int64, and merging is exact, in any
    order; otherwise float64.
    """

    count: int
    total: npt.NDArray[Any]
    outer: npt.NDArray[Any]

    @classmethod
    def of(cls, dims: int, dtype: npt.DTypeLike) -> Self:
        """Moments of no vectors yet, of `dims` values of `dtype`."""
        kind = np.int64 if np.issubdtype(dtype, np.integer) else np.float64
        return cls(0, np.zeros(dims, kind), np.zeros((dims, dims), kind))

    def empty(self) -> Self:
        """The identity of `merge`: the same kind of moments, of no vectors."""
        return type(self).of(len(self.total), self.total.dtype)

    def update(self, x: npt.NDArray[Any]) -> None:
        """Add the rows of x (n, D). Raises UsageError for numbers of another kind, or too large ones."""
        rows = _CHUNK_ROWS
        if self.total.dtype == np.int64:
            if not np.issubdtype(x.dtype, np.integer):
                raise UsageError(
                    f"moments of integers cannot take {x.dtype} vectors: start them with Moments.of(dims, dtype)"
                )
            largest = max(int(x.max()), -int(x.min())) if x.size else 0
            rows = min(rows, _EXACT // max(largest * largest, 1))
            if rows == 0:
                raise UsageError(f"integers up to {largest} are too large for exact moments: convert them to float32")
        for start in range(0, len(x), rows):
            part = x[start : start + rows].astype(np.float64)
            self.total += part.sum(axis=0).astype(self.total.dtype)
            self.outer += (part.T @ part).astype(self.outer.dtype)
        self.count += len(x)

    def merge(self, other: Self) -> None:
        """Add what `other` has seen."""
        if self.total.shape != other.total.shape or self.total.dtype != other.total.dtype:
            raise UsageError("moments of different vectors cannot be merged: use the same dimensions and dtype")
        self.count += other.count
        self.total += other.total
        self.outer += other.outer

    def mean(self) -> npt.NDArray[np.float64]:
        """(D,) mean; zero if nothing was seen."""
        mean: npt.NDArray[np.float64] = self.total / max(self.count, 1)
        return mean

    def covariance(self) -> npt.NDArray[np.float64]:
        """(D, D) population covariance."""
        mean = self.mean()
        covariance: npt.NDArray[np.float64] = self.outer / max(self.count, 1) - np.outer(mean, mean)
        return covariance


def signed(axes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Axes (D, P) with the signs that make the largest entry of each positive: eigenvectors have none of their own."""
    result: npt.NDArray[np.float64] = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return result


@dataclass(frozen=True, eq=False)
class Projection:
    """z = (x - mean) @ matrix. mean: (D,) float32; matrix: (D, P) float32. A row's result is its own alone."""

    mean: Float32s
    matrix: Float32s

    @classmethod
    def fit(cls, moments: Moments, dims: int, epsilon: float) -> Self:
        """PCA whitening to the `dims` axes of most variance (fewer if D is less).

        epsilon, a fraction of the mean variance of the input values, is added to each axis' variance before its root is
        taken, so that axes of noise are not blown up (Coates, Lee and Ng 2011; theirs is absolute, for patches of unit
        contrast). Axes without variance are nought. An axis has the sign that makes its largest entry positive.
        """
        covariance = moments.covariance()
        variances, axes = np.linalg.eigh(covariance)
        variances, axes = np.maximum(variances[::-1][:dims], 0), axes[:, ::-1][:, :dims]
        floor = epsilon * float(np.trace(covariance)) / len(axes)
        axes = signed(axes)
        lowest = 1e-7 * float(np.trace(covariance)) + float(np.finfo(np.float32).tiny)  # less is rounding
        scales = np.where(variances > lowest, 1 / np.sqrt(np.maximum(variances, lowest) + floor), 0)
        return cls(moments.mean().astype(np.float32), np.ascontiguousarray(axes * scales, np.float32))

    def __call__(self, x: npt.NDArray[Any], threads: int = 1) -> Float32s:
        """(n, P) float32 from x (n, D) of any dtype."""
        return self._affine(x.astype(np.float32, copy=False), threads)

    @cached_property
    def _affine(self) -> Affine:
        bias = -(self.mean.astype(np.float64) @ self.matrix.astype(np.float64))
        return Affine(self.matrix, bias.astype(np.float32))
