"""A frozen layer: convolution, activation, pooling over regions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s, Int32s, Int64s
from seqbag.filters import token_tables
from seqbag.head import ACTIVATIONS, Activation
from seqbag.kernels.filters import SIGN, add_bias, add_rows, count_signs, sum_rows
from seqbag.kernels.maps import pool_mean
from seqbag.patches import Patcher, gather
from seqbag.regions import Regions


@dataclass(frozen=True)
class Maps:
    """n examples on their sites. values: (sites,) int32 embedding rows, or (sites, channels) float32 or uint8; or, of
    kept maps of signs, (sites, site_bytes) int8, codes of `Levels`.

    offsets: (n + 1,) int64, example i has the sites offsets[i] .. offsets[i + 1], from 0; grid: the fixed n-d shape of
    each example's sites in row-major order, None for sequences.
    """

    values: npt.NDArray[np.generic]
    offsets: Int64s
    grid: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def axes(self) -> int:
        """Of space; sequences have one."""
        return 1 if self.grid is None else len(self.grid)

    def windows(self, patcher: Patcher) -> tuple[npt.NDArray[np.generic], Int64s, tuple[int, ...] | None]:
        """Windows (out_sites, window * channels), the offsets of the output sites, and their grid."""
        if self.grid is None:
            index, offsets = patcher.ragged_index(self.offsets)
            return gather(self.values, index), offsets, None
        index = patcher.grid_index(self.grid)
        per_example = self.values.reshape(len(self), math.prod(self.grid), *self.values.shape[1:])
        offsets = np.arange(len(self) + 1, dtype=np.int64) * len(index)
        return gather(per_example, index), offsets, patcher.out_shape(self.grid)

    def channels(self, read: slice) -> Maps:
        """Some of the channels, or the maps as they are for all of them."""
        if read == slice(0, None, 1):
            return self
        return Maps(np.ascontiguousarray(self.values[:, read]), self.offsets, self.grid)

    def last(self, sites: int | None) -> Maps:
        """The last sites of each sequence, at most; all for None."""
        if sites is None:
            return self
        lengths = np.minimum(np.diff(self.offsets), sites)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return Maps(self.values[np.arange(offsets[-1]) + np.repeat(self.offsets[1:] - offsets[1:], lengths)], offsets)

    def part(self, start: int, stop: int) -> Maps:
        """Examples start .. stop."""
        first, last = self.offsets[start], self.offsets[stop]
        return Maps(self.values[first:last], self.offsets[start : stop + 1] - first, self.grid)

    def parts(self, sites: int) -> list[tuple[slice, Maps]]:
        """Runs of whole examples of about `sites` sites, so that what is made of them stays small."""
        starts = np.searchsorted(self.offsets, np.arange(0, int(self.offsets[-1]) + 1, sites))
        edges = np.unique(np.concatenate([[0], starts, [len(self)]]))
        return [(slice(start, stop), self.part(start, stop)) for start, stop in pairwise(edges.tolist())]


@dataclass(frozen=True)
class Layer:
    """Weights of one layer. Group g is one window with its filters, and the channels that these read.

    patchers: per group; weights: per group (window * channels read, F) float32; biases: (F,), or (signs, F) of filters
    with several signs each, whose mean is a channel; regions: what is pooled for the classifier; embedding: (tokens,
    dims) for a layer over token rows, None over vectors; pooling: per axis, how many sites become one site of the next
    layer's input, their mean, () for 1;
    projection: (channels, P) that the next layer's input is multiplied by, site by site; None leaves it as it is;
    channel_groups: of n, group g reads every n-th channel of the input, from number g % n on (grouped convolution: Xie
    et al. 2017, arXiv 1611.05431; every n-th, so that it reads of each group below: Zhang et al. 2018, arXiv
    1707.01083);
    readout: a layer of 1x1 windows over the activations, whose own are pooled for the classifier in their place; the
    next layer does not see them (the auxiliary net of Belilovsky et al. 2020, arXiv 1901.08164).
    """

    patchers: tuple[Patcher, ...]
    weights: tuple[Float32s, ...]
    biases: tuple[Float32s, ...]
    activation: Activation
    regions: Regions
    embedding: Float32s | None = None
    pooling: tuple[int, ...] = ()
    projection: Float32s | None = None
    channel_groups: int = 1
    readout: Layer | None = None

    @property
    def channels(self) -> int:
        """Channels of the output: filters of all groups."""
        return sum(self.filters)

    @property
    def filters(self) -> list[int]:
        """Filters of each group."""
        return [bias.shape[-1] for bias in self.biases]

    @property
    def signs(self) -> int:
        """Of each filter, if the activation is sign."""
        return 1 if self.biases[0].ndim == 1 else len(self.biases[0])

    @property
    def outputs(self) -> int:
        """Channels of the next layer's input."""
        return self.channels if self.projection is None else self.projection.shape[1]

    def read_by(self, group: int) -> slice:
        """The channels of the input that a group reads."""
        return channels_read(group, self.channel_groups)

    def features(self, axes: int = 1) -> int:
        """Number of pooled features: each channel, and the length, of each region."""
        if self.readout is not None:
            return self.readout.features(axes)
        return self.regions.count(axes) * (self.channels + 1)

    @cached_property
    def tables(self) -> tuple[Float32s, ...]:
        """Per group (tokens, width, F): what each token adds at each place of the window."""
        assert self.embedding is not None
        return tuple(
            token_tables(self.embedding, weights, patcher.window[0])
            for patcher, weights in zip(self.patchers, self.weights, strict=True)
        )

    def forward(self, maps: Maps) -> Maps:
        """The activations (sites, channels) float32 of every site. Signs are 0 or 1 here; see `next_input`."""
        values, first = np.empty((0, 0), np.float32), 0
        offsets, grid = maps.offsets, maps.grid
        for group, patcher in enumerate(self.patchers):
            windows, offsets, grid = maps.channels(self.read_by(group)).windows(patcher)
            if group == 0:
                values = np.empty((len(windows), self.channels), np.float32)
            self._apply(group, windows, values, first)
            first += self.filters[group]
        self._activate(values, self.biases)
        return Maps(values, offsets, grid)

    def activations(self, group: int, windows: npt.NDArray[np.generic]) -> Float32s:
        """Activations (m, F) float32 of a group's windows (m, window * channels), or (m, width) rows of tokens."""
        values = np.empty((len(windows), self.filters[group]), np.float32)
        self._apply(group, windows, values, 0)
        self._activate(values, self.biases[group : group + 1])
        return values

    def _apply(self, group: int, windows: npt.NDArray[np.generic], values: Float32s, first: int) -> None:
        """Fill the columns of values from `first` on with a group's filters, and relu, applied to its windows.

        Signs have biases of their own, which are not added here.
        """
        bias, relu = self.biases[group], self.activation == "relu"
        if self.activation == "sign":
            bias = np.zeros(self.filters[group], np.float32)
        if self.embedding is None:
            own = values[:, first : first + len(bias)]
            np.matmul(windows.astype(np.float32, copy=False), self.weights[group], out=own)
            add_bias(own, bias, relu)
        else:
            add_rows(self.tables[group], windows, bias, relu, 0, first, values)

    def _activate(self, values: Float32s, biases: tuple[Float32s, ...]) -> None:
        """Apply an activation that `_apply` has not. biases: of the groups that values are of."""
        if self.activation == "sign":
            count_signs(values, np.atleast_2d(np.concatenate(biases, axis=-1)))
        elif self.activation == "tanh":
            np.tanh(values, out=values)

    def next_input(self, maps: Maps) -> Maps:
        """Activations as the next layer takes them: pooled and projected; signs as -1 and +1, or means of them."""
        if math.prod(self.pooling) > 1 and maps.grid is not None:
            pooler = Patcher(self.pooling, self.pooling, "valid")
            index, grid = pooler.grid_index(maps.grid), pooler.out_shape(maps.grid)
            values = maps.values.reshape(len(maps), math.prod(maps.grid), self.channels)
            out = np.empty((len(maps), len(index), self.channels), np.float32)
            pool_mean(values, index, out)
            offsets = np.arange(len(maps) + 1, dtype=np.int64) * len(index)
            maps = Maps(out.reshape(-1, self.channels), offsets, grid)
        if self.projection is not None:
            return Maps(maps.values.astype(np.float32, copy=False) @ self.projection, maps.offsets, maps.grid)
        return Maps(as_inputs(maps.values, ACTIVATIONS[self.activation]), maps.offsets, maps.grid)

    def pool(self, maps: Maps) -> tuple[Float32s, Float32s]:
        """Sums (n, regions, channels) of the activations over the regions, and the regions' lengths (n, regions).

        Of the activations of the readout, if there is one.
        """
        if self.readout is not None:
            inputs = as_inputs(maps.values, ACTIVATIONS[self.activation])
            return self.readout.pool(self.readout.forward(Maps(inputs, maps.offsets, maps.grid)))
        axes = maps.axes
        regions = self.regions.count(axes)
        segments = self.regions.segments(maps.offsets, maps.grid)
        spans = np.repeat(np.arange(len(maps), dtype=np.int64) * regions, np.diff(maps.offsets)) + segments
        order = np.argsort(spans, kind="stable").astype(np.int32)
        pointers = np.searchsorted(spans[order], np.arange(len(maps) * regions + 1)).astype(np.int32)
        sums = np.empty((len(maps) * regions, self.channels), np.float32)
        sum_rows(pointers, order, np.ones(len(order), np.float32), maps.values, 0, sums, 0)
        lengths = self.regions.lengths(np.diff(maps.offsets), axes)
        return self.regions.nest(sums.reshape(len(maps), regions, self.channels)), lengths


def layer_of_readout(weights: Float32s, bias: Float32s, activation: Activation, regions: Regions, axes: int) -> Layer:
    """A `Layer.readout`. weights: (channels, F); bias: (F,) or (signs, F); axes: of space."""
    ones = (1,) * axes
    return Layer((Patcher(ones, ones, "same"),), (weights,), (bias,), activation, regions)


def as_inputs(values: npt.NDArray[np.generic], activation: int) -> Float32s:
    """Activations as another layer takes them: signs, which are 0 or 1, and means of them, as -1 to +1."""
    inputs = values.astype(np.float32, copy=False)
    return inputs if activation != SIGN else inputs * np.float32(2) - np.float32(1)


def channels_read(group: int, channel_groups: int) -> slice:
    """What a group reads of the channels of the layer below; see `Layer.channel_groups`."""
    return slice(group % channel_groups, None, channel_groups)


def embed(ids: Int32s, lookup: Int32s) -> Int32s:
    """Hashed token ids (sites,) to rows of the embedding; lookup: (vocabulary,) int32."""
    return lookup[ids]
