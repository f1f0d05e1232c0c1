"""First layers of a packed net that are summed product by product, in integers: over pixels, and over many tokens."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from seqbag.batch import Float32s, Int64s, UInt8s
from seqbag.kernels.bitops import WORD
from seqbag.kernels.dense import ROWS, interleaved
from seqbag.kernels.integers import convolve, convolve_grids
from seqbag.layer import Layer, Maps
from seqbag.patches import Patcher
from seqbag.stages import beside, padded, runs_of


class PixelStage:
    """A first layer over images (uint8): filters of 16 bits, sums of 32, and a threshold for each sign."""

    def __init__(self, layer: Layer) -> None:
        self._groups, self.runs = _filters(layer), runs_of(layer)

    def __call__(self, maps: Maps) -> Maps:
        return beside([group.on_grids(maps) for group in self._groups])


class EmbeddedStage:
    """A first layer over a vocabulary too large for tables: each token's signs are looked up and summed."""

    def __init__(self, layer: Layer) -> None:
        assert layer.embedding is not None
        self._embedding = layer.embedding.astype(np.int16)
        self._groups, self.runs = _filters(layer), runs_of(layer)

    def __call__(self, maps: Maps) -> Maps:
        vectors = Maps(self._embedding[maps.values], maps.offsets)
        return beside([group.on_sequences(vectors) for group in self._groups])


@dataclass(frozen=True)
class _Layout:
    """Where an image's lines and windows are among its `size` numbers with padding; see `kernels.integers`."""

    lines: Int64s
    starts: Int64s
    places: Int64s
    size: int


class _Filters:
    """The filters of one window, as `kernels.integers.convolve` takes them."""

    def __init__(self, patcher: Patcher, weights: Float32s, bias: Float32s) -> None:
        self._patcher = patcher
        inputs, filters = weights.shape
        self._words = padded(filters) // WORD
        leading = prod(patcher.window[:-1])
        self._run = inputs // leading  # numbers of a window that are neighbours
        table = np.zeros((leading, self._run + self._run % 2, self._words * WORD), np.int16)
        table[:, : self._run, :filters] = weights.reshape(leading, self._run, filters)
        self._weights = interleaved(table.reshape(-1, self._words * WORD))
        self._thresholds = np.full(self._words * WORD, np.iinfo(np.int32).max, np.int32)
        self._thresholds[:filters] = np.floor(-bias)
        self._layouts: dict[tuple[int, ...], _Layout] = {}

    def on_grids(self, maps: Maps) -> Maps:
        """Words of bits of images (uint8)."""
        assert maps.grid is not None
        layout = self._layouts.get(maps.grid) or self._layout(maps.grid)
        self._layouts = {maps.grid: layout}
        grid = self._patcher.out_shape(maps.grid)
        sites = prod(grid)
        images = maps.values.reshape(len(maps), len(layout.lines), maps.grid[-1] * maps.values.shape[1])
        out = self._room(len(maps) * sites)
        convolve_grids(
            images, layout.lines, layout.size, sites, layout.starts, layout.places, self._weights, self._thresholds, out
        )
        offsets = np.arange(len(maps) + 1, dtype=np.int64) * sites
        return Maps(out[: offsets[-1]].view(np.uint64), offsets, grid)

    def on_sequences(self, maps: Maps) -> Maps:
        """Words of bits of sequences of vectors (int16), which are laid out with a window of zeros between them."""
        (width,), (stride,), dims = self._patcher.window, self._patcher.stride, maps.values.shape[1]
        offsets, numbers = self._patcher.ragged_offsets(maps.offsets), np.arange(len(maps))
        first = maps.offsets[:-1] + numbers * width
        of_site, of_window = np.repeat(numbers, np.diff(maps.offsets)), np.repeat(numbers, np.diff(offsets))
        values = np.zeros((len(of_site) + len(maps) * width) * dims + 1, np.int16)
        at = np.arange(len(of_site)) + of_site * width + self._patcher.before(0)
        values[:-1].reshape(-1, dims)[at] = maps.values
        starts = (first[of_window] + (np.arange(offsets[-1]) - offsets[of_window]) * stride) * dims
        places, out = np.arange(0, self._run, 2), self._room(len(starts))
        convolve(values, _whole_tiles(starts), places, self._weights, self._thresholds, out, 0)
        return Maps(out[: offsets[-1]].view(np.uint64), offsets)

    def _room(self, sites: int) -> UInt8s:
        return np.empty((sites + ROWS - 1, self._words * WORD // 8), np.uint8)

    def _layout(self, grid: tuple[int, ...]) -> _Layout:
        window, stride, out = self._patcher.window, self._patcher.stride, self._patcher.out_shape(grid)
        before = [self._patcher.before(axis) for axis in range(len(grid))]
        sizes = [max(b + n, (o - 1) * s + w) for b, n, o, s, w in zip(before, grid, out, stride, window, strict=True)]
        channels = self._run // window[-1]
        steps = channels * np.cumprod([1, *sizes[:0:-1]], dtype=np.int64)[::-1]
        lines = _sites(grid[:-1], steps[:-1]) + np.array(before) @ steps
        starts = _sites(out, steps * np.array(stride))
        places = _sites(window[:-1], steps[:-1])[:, None] + np.arange(0, self._run, 2)
        return _Layout(lines, _whole_tiles(starts), places.reshape(-1), prod(sizes) * channels + 1)


def _filters(layer: Layer) -> list[_Filters]:
    """Of each group, and each sign of its filters."""
    groups = zip(layer.patchers, layer.weights, layer.biases, strict=True)
    return [_Filters(patcher, weights, bias) for patcher, weights, biases in groups for bias in np.atleast_2d(biases)]


def _sites(shape: tuple[int, ...], steps: Int64s) -> Int64s:
    """(sites,) int64: where each site of a grid is, in row-major order, `steps` from one to the next on each axis."""
    return np.tensordot(steps, np.indices(shape), 1).reshape(-1).astype(np.int64)


def _whole_tiles(starts: Int64s) -> Int64s:
    """Starts of as many windows as fill tiles, those added being of any window."""
    return np.append(starts, np.zeros(-len(starts) % ROWS, np.int64))
