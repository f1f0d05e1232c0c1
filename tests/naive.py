"""Slow, obvious oracles that the kernels are tested against."""

import itertools

import numpy as np


def _axis_windows(size: int, window: int, stride: int, padding: str) -> list[list[int]]:
    """The sites of every window along one axis; those outside the axis are padding."""
    if padding == "valid":
        return [list(range(o, o + window)) for o in range(0, size - window + 1, stride)]
    before = (window - 1) // 2 if padding == "same" else window - 1
    return [list(range(o - before, o - before + window)) for o in range(0, size, stride)]


def grid_index(
    shape: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...], padding: str
) -> list[list[int]]:
    """For each window of a grid, the row-major number of each site in it, -1 where it is padded."""
    axes = [_axis_windows(*axis, padding) for axis in zip(shape, window, stride, strict=True)]
    numbers = {site: number for number, site in enumerate(itertools.product(*map(range, shape)))}
    return [[numbers.get(site, -1) for site in itertools.product(*window)] for window in itertools.product(*axes)]


def ragged_index(offsets: list[int], window: int, stride: int, padding: str) -> tuple[list[list[int]], list[int]]:
    """The windows of each sequence in turn as sites of the flat batch, and where each sequence's windows start."""
    index: list[list[int]] = []
    out_offsets = [0]
    for first, last in itertools.pairwise(offsets):
        for sites in _axis_windows(last - first, window, stride, padding):
            index.append([first + site if 0 <= site < last - first else -1 for site in sites])
        out_offsets.append(len(index))
    return index, out_offsets


def gather(values: list[list[float]], index: list[list[int]]) -> list[list[float]]:
    """Each window's channels, site after site; zeros for padding. values: (sites, channels)."""
    padding = [0] * len(values[0])
    return [[value for site in window for value in (values[site] if site >= 0 else padding)] for window in index]


def nearest(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The centroid at the least squared distance from each row, in float64; ties to the lowest."""
    return np.array([((row - centroids) ** 2).sum(axis=1).argmin() for row in x.astype(np.float64)], dtype=np.int64)
