"""A codebook of vectors by streaming k-means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s, Int32s, Int64s
from seqbag.errors import DataError, UsageError
from seqbag.kernels.assign import Searcher, sum_by_code
from seqbag.projection import Moments, Projection
from seqbag.reservoir import Reservoir

_CHUNK_ROWS = 1 << 14  # of a batch that are projected at once
_PROJECTED, _EPSILON = 32, 0.01  # dims that a codebook of a sample is searched in; see Projection.fit
_ROUNDING = 1e-5  # squared distances below this fraction of a vector's squared norm are rounding


class KMeans:
    """k centroids of a stream of vectors, with the sum and the number of the vectors each was nearest to.

    Vectors are compared after `projection` (none: as they are), and summed as they come: in int64 if they are integers,
    so that counts and sums merge exactly, else in float64.

    At first vectors are only sampled. Once `start_after` were seen, k-means++ and a few rounds of Lloyd's algorithm on
    the sample make the centroids, whose first vectors are the sample's. Each further batch is then one step of
    mini-batch k-means (Sculley 2010, doi 10.1145/1772690.1772862): with its rate of 1/n a centroid is the mean of all
    the vectors it was ever given, and so its sum over its count. A centroid that has none is moved to a vector of the
    batch, drawn in proportion to the squared distances.

    `freeze` ends that: the search no longer changes, and counts begin anew, now of vectors under one fixed search.
    Frozen copies of one codebook (`empty`) may count shards anywhere; merging them is exact, in any order.

    counts: (k,) int64; sums: (k, D) int64 or float64.
    """

    def __init__(
        self,
        k: int,
        dims: int,
        dtype: npt.DTypeLike,
        rng: np.random.Generator,
        *,
        projection: Projection | None = None,
        sample: int | None = None,
        start_after: int | None = None,
        refinements: int = 4,
        threads: int = 1,
    ) -> None:
        """A codebook of vectors of `dims` values of `dtype`.

        sample: vectors kept to start from, 16 k if None; start_after: vectors they are drawn from, `sample` if None;
        refinements: rounds of Lloyd's algorithm at the start.
        """
        if k < 1 or dims < 1:
            raise UsageError(f"a codebook of {k} centroids of {dims} values is empty: both must be 1 or more")
        self.k, self.dims, self.dtype = k, dims, np.dtype(dtype)
        self.projection, self.refinements, self.threads = projection, refinements, threads
        self.sample = 16 * k if sample is None else sample
        self.start_after = self.sample if start_after is None else start_after
        self.frozen = False
        self.counts: Int64s = np.zeros(k, np.int64)
        self.sums: npt.NDArray[Any] = np.zeros(
            (k, dims), np.int64 if np.issubdtype(self.dtype, np.integer) else np.float64
        )
        self._rng = rng
        self._reservoir = Reservoir(self.sample, dims, self.dtype, rng)
        self._centroids: Float32s = np.zeros((k, dims), np.float32)  # of the codes that have no vectors yet
        self._search: Searcher | None = None
        self._points: Float32s | None = None  # (k, P), what is searched; NaN for centroids that do not exist

    @classmethod
    def of_sample(cls, x: Float32s, k: int, rng: np.random.Generator, threads: int = 1) -> Self:
        """Frozen at up to k centroids of a sample x (n, D), so that counting merges exactly; searched in few dims."""
        moments = Moments.of(x.shape[1], np.float32)
        moments.update(x)
        projection = Projection.fit(moments, min(_PROJECTED, x.shape[1]), _EPSILON)
        k = min(k, max(1, len(x) // 4))
        codebook = cls(
            k, x.shape[1], np.float32, rng, projection=projection, sample=16 * k, start_after=len(x), threads=threads
        )
        codebook.update(x)
        codebook.freeze()
        return codebook

    @property
    def started(self) -> bool:
        """Whether there are centroids yet."""
        return self._search is not None

    @property
    def centroids(self) -> Float32s:
        """(k, D) float32, in the vectors' space: the mean of a code's vectors; without any, where it was frozen."""
        means = self.sums / np.maximum(self.counts, 1)[:, None]
        return np.where(self.counts[:, None] > 0, means, self._centroids).astype(np.float32)

    def update(self, x: npt.NDArray[Any]) -> None:
        """Learn from, or once frozen count, the vectors x (n, D). Raises DataError if one is not finite."""
        self._check(x)
        if self._search is None:
            self._reservoir.update(x)
            if self._reservoir.seen >= self.start_after:
                self.start()
            return
        codes, distances = self._nearest(x)
        self.add(x, codes)
        if not self.frozen:
            self._reseed(x, codes, distances)
            self._move()

    def assign(self, x: npt.NDArray[Any]) -> Int32s:
        """(n,) int32: the nearest centroid of each of the vectors x (n, D); starts from the sample if need be."""
        self._check(x)
        self.start()
        return self._nearest(x)[0]

    def add(self, x: npt.NDArray[Any], codes: Int32s) -> None:
        """Count vectors x (n, D) whose codes (n,) are known from `assign`, without a second search."""
        self._check(x)
        if len(codes) != len(x) or (len(codes) and not 0 <= codes.min() <= codes.max() < self.k):
            raise UsageError(f"{len(codes)} codes for {len(x)} vectors: give each one code, from 0 to {self.k - 1}")
        sum_by_code(x, codes, self.sums, self.counts)

    def start(self) -> None:
        """Make the centroids from the sample now, if there are none yet. Raises DataError if nothing was seen."""
        if self._search is not None:
            return
        rows = self._reservoir.rows
        if len(rows) == 0:
            raise DataError("a codebook has seen no vectors: give it some before it is used")
        z = self._project(rows)
        _norms(z)
        codes = cluster(z, np.ones(len(z)), self.k, self._rng, self.refinements, self.threads)
        self.add(rows, codes)
        self._reservoir = Reservoir(0, self.dims, self.dtype, self._rng)
        self._move()

    def freeze(self) -> None:
        """Fix the centroids that are searched, and begin counting from nought."""
        self.start()
        self._centroids = self.centroids
        self.counts, self.sums = np.zeros_like(self.counts), np.zeros_like(self.sums)
        self.frozen = True

    def empty(self) -> Self:
        """What merging leaves unchanged: no vectors; the same search if frozen, else none yet."""
        other = type(self)(
            self.k,
            self.dims,
            self.dtype,
            self._rng.spawn(1)[0],
            projection=self.projection,
            sample=self.sample,
            start_after=self.start_after,
            refinements=self.refinements,
            threads=self.threads,
        )
        if self.frozen:
            other.frozen, other._centroids = True, self._centroids
            other._search, other._points = self._search, self._points
        return other

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state of a frozen codebook, for a file. Raises UsageError if it is not frozen."""
        if not self.frozen or self._points is None:
            raise UsageError("a codebook that still moves cannot be saved: freeze it first")
        arrays: dict[str, npt.NDArray[Any]] = {"points": self._centroids, "searched": self._points}
        arrays |= {"counts": self.counts, "sums": self.sums}
        if self.projection is not None:
            arrays |= {"mean": self.projection.mean, "matrix": self.projection.matrix}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], rng: np.random.Generator, threads: int = 1) -> Self:
        """The frozen codebook whose `arrays` these are. Raises ValueError or KeyError if they cannot be."""
        points, counts, sums = arrays["points"], arrays["counts"], arrays["sums"]
        fits = points.ndim == 2 and counts.shape == (len(points),) and sums.shape == points.shape
        if not fits or arrays["searched"].ndim != 2 or len(arrays["searched"]) != len(points):
            raise ValueError("the arrays of the codebook do not fit each other")
        projection = Projection(arrays["mean"], arrays["matrix"]) if "matrix" in arrays else None
        dtype = np.float32 if sums.dtype == np.float64 else np.uint8
        book = cls(len(points), points.shape[1], dtype, rng, projection=projection, threads=threads)
        book._reservoir = Reservoir(0, book.dims, book.dtype, rng)
        book._centroids, book.counts, book.sums, book.frozen = points, counts.copy(), sums.copy(), True
        book._search, book._points = Searcher(arrays["searched"]), arrays["searched"]
        return book

    def merge(self, other: Self) -> None:
        """Add what `other` has seen.

        Frozen on the same centroids: counts and sums add up. Both only sampled: the samples are merged. One only
        sampled: the other learns its sample. Different centroids: those of both, weighted by their counts, are
        clustered to k, and each one's count and sum go to its cluster; totals stay exact, codes given out are void.
        """
        if (self.k, self.dims, self.dtype) != (other.k, other.dims, other.dtype):
            raise UsageError("codebooks of different sizes or vectors cannot be merged: make both by `empty` of one")
        if self._points is None or other._points is None:
            self._merge_samples(other)
        elif np.array_equal(self._points, other._points, equal_nan=True):
            self.counts += other.counts
            self.sums += other.sums
            if not self.frozen:
                self._move()
        else:
            self._merge_centroids(other)

    def _merge_samples(self, other: Self) -> None:
        if not self.started and not other.started:
            self._reservoir.merge(other._reservoir)
            if self._reservoir.seen >= self.start_after:
                self.start()
            return
        rows = other._reservoir.rows if self.started else self._reservoir.rows
        if not self.started:
            self._reservoir = Reservoir(0, self.dims, self.dtype, self._rng)
            self.counts, self.sums, self._centroids = other.counts.copy(), other.sums.copy(), other._centroids
            self.frozen, self._search, self._points = other.frozen, other._search, other._points
        if len(rows):
            self.update(rows)

    def _merge_centroids(self, other: Self) -> None:
        counts = np.concatenate([self.counts, other.counts])
        sums = np.concatenate([self.sums, other.sums])
        seen = np.flatnonzero(counts)
        counts, sums = counts[seen], sums[seen]
        self.counts, self.sums = np.zeros_like(self.counts), np.zeros_like(self.sums)
        if len(seen):
            z = self._project((sums / counts[:, None]).astype(np.float32))
            codes = cluster(z, counts.astype(np.float64), self.k, self._rng, self.refinements, self.threads)
            np.add.at(self.counts, codes, counts)
            np.add.at(self.sums, codes, sums)
            self._centroids = self.centroids
            self._move()

    def _check(self, x: npt.NDArray[Any]) -> None:
        if x.ndim != 2 or x.shape[1] != self.dims or x.dtype != self.dtype:
            raise UsageError(
                f"a codebook of {self.dims} {self.dtype} values cannot take {x.dtype} vectors of shape {x.shape}"
            )

    def _project(self, x: npt.NDArray[Any]) -> Float32s:
        if self.projection is not None:
            return self.projection(x, self.threads)
        return x.astype(np.float32, copy=False)

    def _nearest(self, x: npt.NDArray[Any]) -> tuple[Int32s, Float32s]:
        """Codes (n,) and squared distances (n,) in the searched space."""
        assert self._search is not None
        codes, distances = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
        for start in range(0, len(x), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            z = self._project(x[rows])
            codes[rows], scores = self._search(z, self.threads)
            distances[rows] = _distances(z, scores)
        return codes, distances

    def _move(self) -> None:
        """Search for the means of what was counted."""
        points = self._project(self.centroids)
        points = np.where(self.counts[:, None] > 0, points, np.nan).astype(np.float32)
        self._search, self._points = Searcher(points), points

    def _reseed(self, x: npt.NDArray[Any], codes: Int32s, distances: Float32s) -> None:
        """Give codes that have no vectors one of this batch each, taken from the code it was counted under."""
        void = np.flatnonzero(self.counts == 0)
        far = _draw(distances.astype(np.float64), 4 * len(void), self._rng)  # more, as some may be equal
        if len(far) == 0:
            return
        far = far[np.sort(np.unique(x[far], axis=0, return_index=True)[1])[: len(void)]]
        np.subtract.at(self.counts, codes[far], 1)
        np.subtract.at(self.sums, codes[far], x[far].astype(self.sums.dtype))
        self.add(x[far], void[: len(far)].astype(np.int32))


def cluster(
    z: Float32s, weights: npt.NDArray[np.float64], k: int, rng: np.random.Generator, rounds: int, threads: int = 1
) -> Int32s:
    """Cluster z (n, P) of weights (n,) by k-means++ and some rounds of Lloyd's algorithm; returns codes (n,) int32."""
    points = _plus_plus(z, weights, k, rng, threads)
    weighted = (z * weights[:, None]).astype(np.float32)
    codes, scores = Searcher(points)(z, threads)
    for _ in range(rounds):
        totals = np.bincount(codes, weights, minlength=len(points))
        sums, counts = np.zeros(points.shape, np.float64), np.zeros(len(points), np.int64)
        sum_by_code(weighted, codes, sums, counts)
        void = np.flatnonzero(counts == 0)
        points = (sums / np.maximum(totals, np.finfo(np.float64).tiny)[:, None]).astype(np.float32)
        points[void] = np.nan
        far = _draw(weights * _distances(z, scores), len(void), rng)
        points[void[: len(far)]] = z[far]
        codes, scores = Searcher(points)(z, threads)
    return codes


def _plus_plus(
    z: Float32s, weights: npt.NDArray[np.float64], k: int, rng: np.random.Generator, threads: int
) -> Float32s:
    """Up to k rows of z, each drawn with a chance proportional to its squared distance from those before it.

    Arthur and Vassilvitskii 2007, in rounds that draw a quarter more at once, after Bahmani et al. 2012 (k-means||):
    one pass over z a round, not a centroid.
    """
    chosen = rng.choice(len(z), 1, p=weights / weights.sum())
    distances = np.full(len(z), np.inf, np.float32)
    fresh = chosen
    while True:
        distances = np.minimum(distances, _distances(z, Searcher(z[fresh])(z, threads)[1]))
        fresh = _draw(weights * distances, min(max(1, len(chosen) // 4), k - len(chosen)), rng)
        if len(fresh) == 0:
            return z[chosen]
        chosen = np.concatenate([chosen, fresh])


def _draw(chances: npt.NDArray[np.float64], count: int, rng: np.random.Generator) -> Int64s:
    """Up to `count` different indexes drawn in proportion to the chances (n,); fewer where fewer have one."""
    count = min(count, int(np.count_nonzero(chances)))
    if count == 0:
        return np.empty(0, np.int64)
    return rng.choice(len(chances), count, replace=False, p=chances / chances.sum())


def _distances(z: Float32s, scores: Float32s) -> Float32s:
    """(n,) squared distances from a search's scores, 0 where they are no more than rounding."""
    norms = _norms(z)
    distances = norms - 2 * scores
    return np.where(distances > _ROUNDING * norms, distances, np.float32(0))


def _norms(z: Float32s) -> Float32s:
    """(n,) squared norms. Raises DataError where one is not finite."""
    norms: Float32s = np.einsum("ij,ij->i", z, z)
    if not np.isfinite(norms).all():
        raise DataError("vectors hold NaN, infinity or values too large to square: only others can be clustered")
    return norms
