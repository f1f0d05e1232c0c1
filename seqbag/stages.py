"""The layers of a packed net, each turning its input into words of activation bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s, Int32s, Int64s, UInt8s
from seqbag.kernels.bitops import PANEL, SITES, WORD, convolve
from seqbag.kernels.tokenbits import convolve_tokens, look_up_windows
from seqbag.layer import Layer, Maps
from seqbag.patches import Index, Patcher

Words: TypeAlias = npt.NDArray[np.uint64]

_TABLE_BYTES = 1 << 26  # of a layer's look-up tables; a larger vocabulary is convolved as it is
_WINDOW_BYTES = 1 << 22  # of the bits of every window there is
_SLOTS = 1 << 14  # windows remembered in a batch
_MANY_SUMS = 6  # additions of 64 sums from which on remembering a window is cheaper than adding again
_NO_OFFSETS = np.zeros(1, np.int64)
_FEW_SITES = 1 << 12  # in a batch this small, windows hardly repeat


class Stage(Protocol):
    """One layer: its input, maps of token rows, pixels or words of bits, to words of bits (sites, words).

    runs: (n, 3 + signs) int64, where the bits of its channels are in a site's words: the first of some channels, one of
    how many of those that follow is the next, how many they are, and for each sign the first of their bits.
    """

    runs: Int64s

    def __call__(self, maps: Maps) -> Maps: ...


class TokenStage:
    """A first layer over tokens, by tables of what each token adds to each filter at each place of the window."""

    def __init__(self, layer: Layer) -> None:
        self.runs = runs_of(layer)
        self._groups = [
            _TokenFilters(patcher, table, bias)
            for patcher, table, signs in zip(layer.patchers, layer.tables, layer.biases, strict=True)
            for bias in np.atleast_2d(signs)
        ]

    def __call__(self, maps: Maps) -> Maps:
        offsets = self._groups[0].patcher.ragged_offsets(maps.offsets)
        out = np.empty((offsets[-1], sum(group.words for group in self._groups)), np.uint64)
        column = 0
        for group in self._groups:
            group(maps, offsets, out, column)
            column += group.words
        return Maps(out, offsets)


class _TokenFilters:
    """The filters of one window over tokens. With few tokens, every window is worked out at once."""

    def __init__(self, patcher: Patcher, table: Float32s, bias: Float32s) -> None:
        self.patcher = patcher
        tokens, width, filters = table.shape
        self.words = padded(filters) // WORD
        self._table = np.zeros((width * tokens, self.words * WORD), np.int16)
        self._table[:, :filters] = table.transpose(1, 0, 2).reshape(-1, filters)
        self._thresholds = np.full(self.words * WORD, np.iinfo(np.int16).max, np.int16)
        self._thresholds[:filters] = np.floor(-bias)
        self._tokens = tokens
        self._all: Words | None = None
        if tokens**width * self.words * 8 <= _WINDOW_BYTES:
            self._all = self._every_window(width)

    def __call__(self, maps: Maps, offsets: Int64s, out: Words, column: int) -> None:
        shape = (self.patcher.stride[0], self.patcher.before(0), self.patcher.window[0])
        if self._all is not None:
            look_up_windows(maps.values, maps.offsets, offsets, *shape, self._tokens, self._all, out, column)
            return
        slots = _SLOTS if len(out) > _FEW_SITES and shape[2] * self.words >= _MANY_SUMS else 0
        self._convolve(maps.values, maps.offsets, offsets, shape, slots, out, column)

    def _every_window(self, width: int) -> Words:
        """(tokens ** width, words), in row-major order of the window's tokens."""
        windows = np.stack(np.unravel_index(np.arange(self._tokens**width), (self._tokens,) * width), axis=1)
        edges = np.arange(len(windows) + 1)
        out = np.empty((len(windows), self.words), np.uint64)
        self._convolve(windows.astype(np.int32).reshape(-1), edges * width, edges, (1, 0, width), 0, out, 0)
        return out

    def _convolve(
        self, rows: npt.NDArray[np.generic], offsets: Int64s, out_offsets: Int64s, shape: tuple[int, int, int],
        slots: int, out: Words, column: int,
    ) -> None:  # fmt: skip
        seen, answers = np.full((slots, shape[2]), -1, np.int32), np.empty((slots, self.words), np.uint64)
        convolve_tokens(rows, offsets, out_offsets, *shape, self._table, self._thresholds, seen, answers, out, column)


class BitStage:
    """A layer over bits.

    below: the runs of the stage below; pooling: of the layer below; readers: how many channel groups the next layer
    reads its output in. A mean of signs is a sum of them: filters meet each sign of a channel, and the sites that were
    not pooled, each of which stands for its block.
    """

    def __init__(self, layer: Layer, below: Int64s, pooling: tuple[int, ...] = (), readers: int = 1) -> None:
        panels, self.runs, self._words = arranged(layer.filters, layer.signs, readers)
        places = _places(below)
        self._groups = [
            _BitFilters(patcher, weights, np.atleast_2d(biases), places[:, layer.read_by(group)], pooling, own)
            for group, (patcher, weights, biases, own) in enumerate(
                zip(layer.patchers, layer.weights, layer.biases, panels, strict=True)
            )
        ]

    def __call__(self, maps: Maps) -> Maps:
        windows = [group.windows(maps) for group in self._groups]
        offsets, grid = windows[0].offsets, windows[0].grid
        out = np.zeros((int(offsets[-1]) + SITES - 1, self._words * WORD // 8), np.uint8)
        shape = (1, len(maps.values)) if maps.grid is None else (len(maps), prod(maps.grid))
        sites = maps.values.reshape(*shape, maps.values.shape[1])
        for group, own in zip(self._groups, windows, strict=True):
            group.fill(sites, own, out)
        return Maps(out[: offsets[-1]].view(np.uint64), offsets, grid)


def beside(parts: list[Maps]) -> Maps:
    """The words of a layer's groups as one row a site."""
    words = parts[0].values if len(parts) == 1 else np.concatenate([part.values for part in parts], axis=1)
    return Maps(words, parts[0].offsets, parts[0].grid)


@dataclass(frozen=True)
class _Panels:
    """The filters of a group in the order they are computed, PANEL at a time, and where their bits go.

    filters: (panels * PANEL,) int64, -1 for none; starts: (panels, signs) the byte of a site that a panel's first goes
    to.
    """

    filters: Int64s
    starts: Int64s


def arranged(sizes: list[int], signs: int, readers: int) -> tuple[list[_Panels], Int64s, int]:
    """The panels of groups of filters, the runs of their bits (see `Stage`), and the words of a site.

    Of n readers, which read every n-th channel, each finds what it reads in words of its own.
    """
    firsts = np.cumsum([0, *sizes])
    runs: list[list[int]] = []
    orders: list[list[Int64s]] = [[] for _ in sizes]
    starts: list[list[Int64s]] = [[] for _ in sizes]
    bit = 0
    for reader in range(readers):
        for group, size in enumerate(sizes):
            own = np.flatnonzero(np.arange(firsts[group], firsts[group] + size) % readers == reader)
            panels = -(-len(own) // PANEL)
            orders[group].append(np.pad(own, (0, panels * PANEL - len(own)), constant_values=-1))
            first = bit + np.arange(signs) * panels * PANEL
            if len(own):
                runs.append([int(firsts[group] + own[0]), readers, len(own), *first.tolist()])
            starts[group].append((first + np.arange(panels)[:, None] * PANEL) // 8)
            bit += signs * panels * PANEL
        bit = padded(bit)
    made = [_Panels(np.concatenate(a), np.concatenate(b)) for a, b in zip(orders, starts, strict=True)]
    return made, np.array(runs, np.int64), bit // WORD


@dataclass(frozen=True)
class _Limits:
    """Windows of one shape of input, and what each popcount has to stay under: (signs, patterns, filters)."""

    index: Index
    pattern: Int32s
    limits: Int64s
    offsets: Int64s
    grid: tuple[int, ...] | None


class _BitFilters:
    """The filters of one window over bits, as `kernels.bitops.convolve` takes them.

    below: (signs, channels) where the channels that are read stand among the bits of a site's words.
    """

    def __init__(
        self, patcher: Patcher, weights: Float32s, biases: Float32s, below: Int64s, pooling: tuple[int, ...],
        panels: _Panels,
    ) -> None:  # fmt: skip
        self._patcher, self._starts, block = patcher, panels.starts, prod(pooling)
        ones = (1,) * len(patcher.window)
        self._pooler = Patcher(pooling or ones, pooling or ones, "valid")
        self._columns = np.unique(below // WORD)  # the words that are read
        below = np.searchsorted(self._columns, below // WORD) * WORD + below % WORD
        self._filled = panels.filters >= 0
        rows, (planes, channels) = panels.filters[self._filled], below.shape
        values = np.zeros((len(panels.filters), prod(patcher.window) * block, channels), np.float32)
        values[self._filled] = np.repeat(weights.T[rows].reshape(len(rows), -1, channels), block, axis=1)
        signs = np.zeros((*values.shape[:2], len(self._columns) * WORD), np.bool_)
        masks = np.zeros_like(signs)
        for own in below:
            signs[:, :, own], masks[:, :, own] = values > 0, values != 0
        self._signs, self._masks = _panels(signs), _panels(masks)
        kept = masks.sum(2, dtype=np.int64)
        # What a place adds to the sum where padding reads as all -1: taken off again.
        self._padding = kept - 2 * (signs & masks).sum(2, dtype=np.int64)  # (filters, sites)
        self._spare = np.tile(kept.sum(1), (len(biases), 1))
        thresholds = np.floor(-biases[:, rows].astype(np.float64) * block * planes)
        self._spare[:, self._filled] -= thresholds.astype(np.int64)
        self._grids: dict[tuple[int, ...], _Limits] = {}

    def windows(self, maps: Maps) -> _Limits:
        """Of these maps, their offsets being those of the output."""
        if maps.grid is None:
            return self._ragged(*self._patcher.ragged_index(maps.offsets))
        if maps.grid not in self._grids:
            self._grids = {maps.grid: self._on_grid(maps.grid)}
        known = self._grids[maps.grid]
        return replace(known, offsets=np.arange(len(maps) + 1, dtype=np.int64) * len(known.index))

    def fill(self, sites: npt.NDArray[np.generic], known: _Limits, out: UInt8s) -> None:
        """The bits of the output (sites + SITES - 1, bytes) that are these filters'. sites: (n, sites, words)."""
        convolve(
            sites, self._columns, known.index, self._signs, self._masks, known.limits, known.pattern, self._starts, out
        )

    def _ragged(self, index: Index, offsets: Int64s) -> _Limits:
        """Padding stands before the window or after it: one pattern for each pair of how much."""
        width = index.shape[1]
        outside = index < 0
        before, after = outside.argmin(1), outside[:, ::-1].argmin(1)
        place = np.arange(width)
        pairs = np.arange((width + 1) ** 2)
        patterns = (place < pairs[:, None] // (width + 1)) | (place >= width - pairs[:, None] % (width + 1))
        return _Limits(index, (before * (width + 1) + after).astype(np.int32), self._limits(patterns), offsets, None)

    def _on_grid(self, grid: tuple[int, ...]) -> _Limits:
        blocks, pooled = self._pooler.grid_index(grid), self._pooler.out_shape(grid)
        windows = self._patcher.grid_index(pooled)
        index = np.where(windows[:, :, None] < 0, -1, blocks[windows])
        index = index.reshape(len(windows), windows.shape[1] * blocks.shape[1])
        patterns, pattern = np.unique(index < 0, axis=0, return_inverse=True)
        number: Int32s = pattern.reshape(-1).astype(np.int32)
        return _Limits(index, number, self._limits(patterns), _NO_OFFSETS, self._patcher.out_shape(pooled))

    def _limits(self, patterns: npt.NDArray[np.bool_]) -> Int64s:
        """sum > threshold is popcount < (kept - padding - threshold) / 2, rounded up. (signs, patterns, filters)."""
        twice = self._spare[:, None] - patterns.astype(np.int64) @ self._padding.T
        limits: Int64s = -(-twice // 2)
        limits[:, :, ~self._filled] = 0
        return np.ascontiguousarray(limits)


def runs_of(layer: Layer) -> Int64s:
    """The runs (see `Stage`) of a layer, where each sign of a group starts with a new word."""
    runs, channel, bit = [], 0, 0
    for size in layer.filters:
        runs.append([channel, 1, size, *(bit + sign * padded(size) for sign in range(layer.signs))])
        channel, bit = channel + size, bit + layer.signs * padded(size)
    return np.array(runs, np.int64)


def _places(runs: Int64s) -> Int64s:
    """(signs, channels) the bits of each channel's signs."""
    places = np.empty((runs.shape[1] - 3, runs[:, 2].sum()), np.int64)
    for channel, step, size, *bits in runs.tolist():
        places[:, channel::step][:, :size] = np.array(bits)[:, None] + np.arange(size)
    return places


def tables_fit(layer: Layer) -> bool:
    """Whether tables of the layer's sums are small enough to keep, and the sums fit 16 bits."""
    assert layer.embedding is not None
    tokens, dims = layer.embedding.shape
    widths = [patcher.window[0] for patcher in layer.patchers]
    filters = sum(width * padded(own) for width, own in zip(widths, layer.filters, strict=True))
    size: int = filters * layer.signs * tokens * 2
    return size <= _TABLE_BYTES and max(widths) * dims < np.iinfo(np.int16).max - 1


def padded(filters: int) -> int:
    """Rounded up to whole words."""
    return -(-filters // WORD) * WORD


def _panels(bits: npt.NDArray[np.bool_]) -> Words:
    """(filters, places, channels) to the flat panels (places * words, PANEL) of `kernels.bitops`."""
    packed = np.packbits(bits.reshape(len(bits), -1), axis=1, bitorder="little")
    words = np.ascontiguousarray(packed).view("<u8").astype(np.uint64).reshape(len(bits) // PANEL, PANEL, -1)
    return np.ascontiguousarray(words.transpose(0, 2, 1)).reshape(-1)
