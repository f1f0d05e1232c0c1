"""The layers of a packed net, each turning its input into words of activation bits."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s, Int32s, Int64s
from seqbag.kernels.bitops import PANEL, SITES, WORD, convolve
from seqbag.kernels.tokenbits import convolve_tokens, look_up_windows
from seqbag.layer import Layer, Maps
from seqbag.patches import Index, Patcher

Words: TypeAlias = npt.NDArray[np.uint64]

_TABLE_BYTES = 1 << 26  # of a layer's look-up tables; a larger vocabulary is convolved as it is
_WINDOW_BYTES = 1 << 22  # of the bits of every window there is
_SLOTS = 1 << 14  # windows remembered in a batch
_MANY_SUMS = 6  # additions of 64 sums from which on remembering a window is cheaper than adding again
_FEW_SITES = 1 << 12  # in a batch this small, windows hardly repeat


class Stage(Protocol):
    """One layer: its input, maps of token rows, pixels or words of bits, to words of bits (sites, words)."""

    def __call__(self, maps: Maps) -> Maps: ...


class TokenStage:
    """A first layer over tokens, by tables of what each token adds to each filter at each place of the window."""

    def __init__(self, layer: Layer) -> None:
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

    spans: (groups, signs, 2) where the channels of its input stand in a site's words; pooling: of the layer below. A
    mean of signs is a sum of them: filters meet each sign of a channel, and the sites that were not pooled, each of
    which stands for its block.
    """

    def __init__(self, layer: Layer, spans: Int64s, pooling: tuple[int, ...] = ()) -> None:
        signs = [[np.arange(first, first + size) for first, size in own] for own in spans.swapaxes(0, 1)]
        places = np.stack([np.concatenate(own) for own in signs])  # (signs, channels)
        words = int(places.max()) // WORD + 1
        self._groups = [
            _BitFilters(patcher, weights, bias, places[:, layer.read_by(group)], words, pooling)
            for group, (patcher, weights) in enumerate(zip(layer.patchers, layer.weights, strict=True))
            for bias in np.atleast_2d(layer.biases[group])
        ]

    def __call__(self, maps: Maps) -> Maps:
        return beside([group(maps) for group in self._groups])


def beside(parts: list[Maps]) -> Maps:
    """The words of a layer's groups as one row a site."""
    words = parts[0].values if len(parts) == 1 else np.concatenate([part.values for part in parts], axis=1)
    return Maps(words, parts[0].offsets, parts[0].grid)


@dataclass(frozen=True)
class _Limits:
    """Windows of one shape of input, and what each popcount has to stay under."""

    index: Index
    pattern: Int32s
    limits: Int64s


class _BitFilters:
    """The filters of one window over bits, as `kernels.bitops.convolve` takes them.

    places: (signs, channels) where the channels that are read stand among the bits of a site's words.
    """

    def __init__(
        self, patcher: Patcher, weights: Float32s, bias: Float32s, places: Int64s, words: int, pooling: tuple[int, ...]
    ) -> None:
        self._patcher, block = patcher, prod(pooling)
        ones = (1,) * len(patcher.window)
        self._pooler = Patcher(pooling or ones, pooling or ones, "valid")
        sites, (planes, channels) = prod(patcher.window) * block, places.shape
        shape = (padded(len(bias)), sites, words * WORD)
        signs, masks = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        values = np.repeat(weights.T.reshape(len(bias), -1, channels), block, axis=1)
        for own in places:
            signs[: len(bias), :, own], masks[: len(bias), :, own] = values > 0, values != 0
        self._signs, self._masks = _panels(signs), _panels(masks)
        kept = masks.sum(2, dtype=np.int64)
        # What a place adds to the sum where padding reads as all -1: taken off again.
        self._padding = kept - 2 * (signs & masks).sum(2, dtype=np.int64)  # (filters, sites)
        self._spare = kept.sum(1)
        self._spare[: len(bias)] -= np.floor(-bias.astype(np.float64) * block * planes).astype(np.int64)
        self._filters = len(bias)
        self._grids: dict[tuple[int, ...], _Limits] = {}

    def __call__(self, maps: Maps) -> Maps:
        if maps.grid is None:
            index, offsets = self._patcher.ragged_index(maps.offsets)
            known, grid = self._ragged(index), None
            sites = maps.values[None]
        else:
            if maps.grid not in self._grids:
                self._grids = {maps.grid: self._on_grid(maps.grid)}
            known, grid = self._grids[maps.grid], self._patcher.out_shape(self._pooler.out_shape(maps.grid))
            offsets = np.arange(len(maps) + 1, dtype=np.int64) * len(known.index)
            sites = maps.values.reshape(len(maps), prod(maps.grid), maps.values.shape[1])
        out = np.empty((int(offsets[-1]) + SITES - 1, known.limits.shape[1] // 8), np.uint8)
        convolve(sites, known.index, self._signs, self._masks, known.limits, known.pattern, out)
        return Maps(out[: offsets[-1]].view(np.uint64), offsets, grid)

    def _ragged(self, index: Index) -> _Limits:
        """Padding stands before the window or after it: one pattern for each pair of how much."""
        width = index.shape[1]
        outside = index < 0
        before, after = outside.argmin(1), outside[:, ::-1].argmin(1)
        place = np.arange(width)
        pairs = np.arange((width + 1) ** 2)
        patterns = (place < pairs[:, None] // (width + 1)) | (place >= width - pairs[:, None] % (width + 1))
        return _Limits(index, (before * (width + 1) + after).astype(np.int32), self._limits(patterns))

    def _on_grid(self, grid: tuple[int, ...]) -> _Limits:
        blocks = self._pooler.grid_index(grid)
        windows = self._patcher.grid_index(self._pooler.out_shape(grid))
        index = np.where(windows[:, :, None] < 0, -1, blocks[windows])
        index = index.reshape(len(windows), windows.shape[1] * blocks.shape[1])
        patterns, pattern = np.unique(index < 0, axis=0, return_inverse=True)
        return _Limits(index, pattern.reshape(-1).astype(np.int32), self._limits(patterns))

    def _limits(self, patterns: npt.NDArray[np.bool_]) -> Int64s:
        """sum > threshold is popcount < (kept - padding - threshold) / 2, rounded up. (patterns, filters)."""
        twice = self._spare - patterns.astype(np.int64) @ self._padding.T
        limits: Int64s = -(-twice // 2)
        limits[:, self._filters :] = 0
        return np.ascontiguousarray(limits)


def bit_spans(layer: Layer) -> Int64s:
    """(groups, signs, 2): where a sign of a group's filters has its bits, from a new word on, and how many it has."""
    sizes = np.repeat(layer.filters, layer.signs)
    starts = np.cumsum([0, *map(padded, sizes)])[:-1]
    return np.stack([starts, sizes], axis=1).reshape(-1, layer.signs, 2)


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
