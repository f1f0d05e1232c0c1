"""Windows over n-d grids and ragged sequences, as indexes that gather each window's sites."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from seqbag.batch import Int32s, Int64s
from seqbag.errors import UsageError
from seqbag.kernels.windows import gather_windows, ragged_windows

Padding = Literal["same", "causal", "valid"]
Index: TypeAlias = npt.NDArray[np.int32] | npt.NDArray[np.int64]


@dataclass(frozen=True)
class Patcher:
    """A window that slides over a grid of one or more axes.

    window, stride: sites per axis. On each axis the window of output site o covers the input sites
    o * stride - before + (0 .. window - 1), where

    - `same`: before = (window - 1) // 2 and there are ceil(size / stride) output sites, as in a convolution with odd
      window and zero padding (window - 1) // 2; an even window reaches one site further ahead than behind;
    - `causal`: before = window - 1, so that the window ends at the site, and ceil(size / stride) output sites;
    - `valid`: before = 0 and only full windows, (size - window) // stride + 1 of them, or none.

    Sites and output sites are numbered in row-major order. Raises UsageError if the shape makes no sense.
    """

    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding

    def __post_init__(self) -> None:
        if not self.window or len(self.window) != len(self.stride):
            raise UsageError(f"window {self.window} and stride {self.stride} need one number for each axis")
        if min(self.window + self.stride) < 1:
            raise UsageError(f"window {self.window} and stride {self.stride} must be 1 or more on each axis")
        if self.padding not in ("same", "causal", "valid"):
            raise UsageError(f"padding {self.padding!r} is unknown: use same, causal or valid")

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the grid of output sites over an input grid of `shape`."""
        if len(shape) != len(self.window):
            raise UsageError(
                f"window {self.window} does not fit a grid of shape {shape}: give one number for each axis"
            )
        return tuple(self._out_size(axis, size) for axis, size in enumerate(shape))

    def grid_index(self, shape: tuple[int, ...]) -> Int32s:
        """(out_sites, window_sites) int32: the flat input sites of each window of one example, -1 for padding.

        Not to be written to: all who ask get the same array.
        """
        return _grid_index(self, shape)

    def ragged_index(self, offsets: Int64s) -> tuple[Index, Int64s]:
        """Windows of n sequences, sequence i being the sites offsets[i] .. offsets[i + 1] of a flat batch.

        offsets: (n + 1,) int64, not falling. Returns the index (out_sites, window), int32 unless the batch has 2^31
        sites, into the flat batch, -1 for padding; and the offsets (n + 1,) int64 of each sequence's output sites, from
        0. No window crosses into another sequence.
        """
        if len(self.window) != 1:
            raise UsageError(f"window {self.window} has {len(self.window)} axes: sequences have one")
        out_offsets = self.ragged_offsets(offsets)
        kind = np.int32 if offsets[-1] < 2**31 else np.int64
        index = np.empty((out_offsets[-1], self.window[0]), kind)
        ragged_windows(offsets, out_offsets, self.stride[0], self.before(0), index)
        return index, out_offsets

    def ragged_offsets(self, offsets: Int64s) -> Int64s:
        """The offsets (n + 1,) int64, from 0, of the output sites of sequences with the offsets (n + 1,)."""
        if self.padding != "valid" and self.stride == (1,) and offsets[0] == 0:
            return offsets
        lengths = np.diff(offsets)
        if self.padding == "valid":
            counts = np.maximum((lengths - self.window[0]) // self.stride[0] + 1, 0)
        else:
            counts = -(-lengths // self.stride[0])
        out_offsets = np.zeros(len(offsets), np.int64)
        np.cumsum(counts, out=out_offsets[1:])
        return out_offsets

    def before(self, axis: int) -> int:
        """How many sites of a window lie before the one it stands on."""
        window = self.window[axis]
        return {"same": (window - 1) // 2, "causal": window - 1, "valid": 0}[self.padding]

    def _out_size(self, axis: int, size: int) -> int:
        if self.padding == "valid":
            return max((size - self.window[axis]) // self.stride[axis] + 1, 0)
        return -(-size // self.stride[axis])


@lru_cache(maxsize=64)
def _grid_index(patcher: Patcher, shape: tuple[int, ...]) -> Int32s:
    axes = len(patcher.window)
    out_shape = patcher.out_shape(shape)
    sites = np.zeros((1,) * (2 * axes), np.int64)
    inside = np.ones((1,) * (2 * axes), np.bool_)
    for axis, size in enumerate(shape):
        starts = np.arange(out_shape[axis]) * patcher.stride[axis] - patcher.before(axis)
        at = starts[:, None] + np.arange(patcher.window[axis])  # (out_size, window)
        at = at.reshape([n if a in (axis, axes + axis) else 1 for a, n in enumerate(out_shape + patcher.window)])
        sites = sites * size + at
        inside = inside & (at >= 0) & (at < size)
    return np.where(inside, sites, -1).astype(np.int32).reshape(prod(out_shape), prod(patcher.window))


def gather(values: npt.NDArray[Any], index: Index) -> npt.NDArray[Any]:
    """The windows' contents, one row a window; padding, and any index outside the sites, reads 0.

    values: (sites,) token ids, (sites, channels) vectors, or (n, sites, channels) for n examples on one grid.
    index: (out_sites, window). Returns (out_sites, window * channels), or (n * out_sites, window * channels), of the
    values' dtype.
    """
    grid = np.ascontiguousarray(values)
    if grid.ndim < 3:
        grid = grid.reshape(1, len(grid), -1) if grid.size else np.zeros((1, 0, prod(grid.shape[1:])), grid.dtype)
    n, sites, channels = grid.shape
    out = np.empty((n * index.shape[0], index.shape[1] * channels), grid.dtype)
    if sites == 0:
        out[:] = 0
    else:
        gather_windows(grid, np.ascontiguousarray(index), out)
    return out
