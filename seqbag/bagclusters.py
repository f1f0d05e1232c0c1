"""Clusters of bags: fewer examples, each the bag nearest to its cluster's centre, with the labels of the whole cluster.

Bags are compared by a sketch of their log counts, with their commonest class beside it so that a cluster rarely mixes
classes. k-means runs at two levels, so that its cost grows with n * sqrt(n): first into about sqrt(n) cells, then each
cell into its share of the clusters. Rows and label counts are kept exactly; only which windows stand for them changes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seqbag.bags import Bags
from seqbag.batch import Float32s, Int32s, Int64s
from seqbag.kernels.bagmath import sketch_bags
from seqbag.kmeans import cluster

_DIMS = 64
_CLASS_WEIGHT = 1.0  # squared distance between two classes, against at most 4 between two sketches
_ROUNDS = 2
_STRETCH = 1 << 17  # bags that are compared with each other, so that their sketches stay small
_PIECE = 1 << 13  # bags whose sketches are compared in float64 at once


def cluster_bags(bags: Bags, clusters: int, rng: np.random.Generator, threads: int = 1, strata: int = 1) -> None:
    """Merge bags, in place, until at most `clusters` are left, those of one stretch of the stream among themselves.

    strata: labels that a class has, where they are told apart by `recency`; clusters go by the class.
    """
    if bags.size <= clusters:
        return
    pointers, classes, counts = bags.label_counts()
    weights = bags.weights().astype(np.float64)
    order = np.lexsort((-counts, np.repeat(np.arange(bags.size), np.diff(pointers))))
    commonest = classes[order][pointers[:-1]] // strata
    stretches = min(clusters, -(-bags.size // _STRETCH))
    owners, medoids = np.empty(bags.size, np.int64), []
    used = 0
    for number in range(stretches):
        part = slice(bags.size * number // stretches, bags.size * (number + 1) // stretches)
        share = clusters * (number + 1) // stretches - clusters * number // stretches
        points = _points(bags, part, commonest[part])
        found = _two_levels(points, weights[part], share, rng, threads)
        medoids.append(part.start + _medoids(points, weights[part], found))
        owners[part] = used + found
        used += share
    bags.merge_into(np.concatenate(medoids), owners)


def _two_levels(
    points: Float32s, weights: npt.NDArray[np.float64], clusters: int, rng: np.random.Generator, threads: int
) -> Int64s:
    """(n,) int64: the cluster of each point, below `clusters`."""
    if len(points) <= clusters:
        return np.arange(len(points))
    cells = max(1, min(clusters, int(np.sqrt(len(points)) / 4)))
    cell = cluster(points, weights, cells, rng, _ROUNDS, threads)
    order = np.argsort(cell, kind="stable")
    owners = np.empty(len(points), np.int64)
    used, left, members_left = 0, clusters, len(points)
    groups = [group for group in np.split(order, np.searchsorted(cell[order], np.arange(1, cells))) if len(group)]
    for number, members in enumerate(groups, 1):
        spare = left - (len(groups) - number)  # each cell that follows needs one
        share = max(1, min(len(members), spare, left * len(members) // members_left))
        owners[members] = used + cluster(points[members], weights[members], share, rng, _ROUNDS, threads)
        used, left, members_left = used + share, left - share, members_left - len(members)
    return owners


def _points(bags: Bags, part: slice, commonest: Int32s) -> Float32s:
    """Sketches of a stretch of the bags, and beside them a place for the commonest class. (n, 64 + 16) float32."""
    points = np.empty((part.stop - part.start, _DIMS), np.float32)
    sketch_bags(bags.pointers[part.start * bags.spans :], bags.codes, bags.counts, bags.spans, points)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (int(commonest.max()) + 1, 16)).astype(np.float32)
    signs *= np.float32(np.sqrt(_CLASS_WEIGHT / 32))  # two random sign vectors of 16 are 32 apart
    return np.concatenate([points, signs[commonest]], axis=1)


def _medoids(points: Float32s, weights: npt.NDArray[np.float64], owners: Int64s) -> Int64s:
    """For each cluster that has members, the index of the member nearest to its weighted mean, rising by index."""
    _, compact = np.unique(owners, return_inverse=True)
    totals = np.bincount(compact, weights)
    means, distances = np.zeros((len(totals), points.shape[1])), np.empty(len(points))
    pieces = np.array_split(np.arange(len(points)), -(-len(points) // _PIECE))  # in float64, all would be large
    for piece in pieces:
        np.add.at(means, compact[piece], points[piece] * weights[piece, None])
    means /= totals[:, None]
    for piece in pieces:
        distances[piece] = np.square(points[piece] - means[compact[piece]]).sum(1)
    order = np.lexsort((np.arange(len(points)), distances, compact))
    first = np.searchsorted(compact[order], np.arange(len(totals)))
    return np.asarray(order[first], np.int64)
