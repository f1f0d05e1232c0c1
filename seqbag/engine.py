"""Inference on whole numbers: activations as bits, sums as look-ups or popcounts, counters, and one small classifier.

Each layer is a stage that turns its input into the activation bits of its output sites, 64 filters a word; the bits are
counted per region and are, as they stand, the next layer's input. Signs meet filters of -1, 0 and +1, and pixels meet
filters of 16 bits. Floats begin with the logarithms, or means, of the counts, which are looked up: the classifier
standardises them, rounds them for its first layer, and computes its last in floats. A net packed with float weights or
float activations is floats throughout and does not come here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s, Int64s
from seqbag.classifier import Classifier
from seqbag.features import takes_means
from seqbag.kernels.assign import Affine
from seqbag.kernels.bitops import pooled_logarithms
from seqbag.kernels.dense import Dense
from seqbag.layer import Layer, Maps
from seqbag.network import Network
from seqbag.quantise import in_range
from seqbag.stages import BitStage, Stage, TokenStage, tables_fit
from seqbag.sums import EmbeddedStage, PixelStage

_SITES = 1 << 16  # sites, and rows, that go through the layers at once
_ROWS = 1 << 12


def _half(values: npt.NDArray[np.generic]) -> Float32s:
    """To half precision, as a net's features are."""
    return values.astype(np.float16).astype(np.float32)


def _logarithm(counts: npt.NDArray[np.generic]) -> Float32s:
    return _half(np.log1p(counts.astype(np.float32)))


_LOGARITHMS = _logarithm(np.arange(1 << 12))


@dataclass
class PackedNetwork(Network):
    """A net of signs and whole weights, run by the engine. Any other net runs as it is."""

    def __post_init__(self) -> None:
        # None for a net with float weights or activations.
        self.engine = Engine(self) if all(is_whole(layer, n) for n, layer in enumerate(self.layers)) else None

    def features(self, maps: Maps) -> Float32s:
        return super().features(maps) if self.engine is None else self.engine.features(maps)

    def logits_of(self, maps: Maps) -> Float32s:
        return super().logits_of(maps) if self.engine is None else self.engine.logits(maps)


def is_whole(layer: Layer, number: int) -> bool:
    """Whether layer `number` adds up signs times -1, 0 and +1, or pixels times whole numbers, and gives signs."""
    if number == 0 and layer.embedding is None:
        whole = all((np.rint(weights) == weights).all() and in_range(weights) for weights in layer.weights)
    else:
        arrays = layer.weights + (() if layer.embedding is None else (layer.embedding,))
        whole = all(np.isin(array, (-1, 0, 1)).all() for array in arrays)
    return layer.activation == "sign" and whole and (layer.readout is None or is_whole(layer.readout, number + 1))


class Engine:
    """Runs a net whose layers are `is_whole`. Any thread may call."""

    def __init__(self, network: Network) -> None:
        assert network.classifier is not None
        self._layers = network.layers
        self._stages: list[Stage] = []
        for number, layer in enumerate(network.layers):
            if number:
                above = network.layers[number + 1 : number + 2]
                below, readers = self._stages[-1].runs, above[0].channel_groups if above else 1
                self._stages.append(BitStage(layer, below, network.layers[number - 1].pooling, readers))
            elif layer.embedding is None:
                self._stages.append(PixelStage(layer))
            else:
                self._stages.append(TokenStage(layer) if tables_fit(layer) else EmbeddedStage(layer))
        self._readouts = [
            (layer.readout, BitStage(layer.readout, stage.runs)) if layer.readout else None
            for layer, stage in zip(self._layers, self._stages, strict=True)
        ]
        self._classifier = _Quick(network.classifier)

    def logits(self, maps: Maps) -> Float32s:
        """(n, classes) float32. A row's logits do not depend on the rows beside it."""
        return self._by_parts(maps, lambda part: self._classifier(self._features(part)))

    def features(self, maps: Maps) -> Float32s:
        """Pooled features (n, d) float32 of all layers, as `Network.features` gives them."""
        return self._by_parts(maps, self._features)

    def _by_parts(self, maps: Maps, work: Callable[[Maps], Float32s]) -> Float32s:
        """Work on runs of whole rows, so that what is made of them stays in the cache."""
        if maps.offsets[-1] <= _SITES and len(maps) <= _ROWS:
            return work(maps)
        edges = np.union1d(
            np.arange(0, len(maps), _ROWS), np.searchsorted(maps.offsets, np.arange(0, maps.offsets[-1], _SITES))
        )
        edges = np.append(edges[edges < len(maps)], len(maps))
        return np.concatenate([work(maps.part(int(start), int(stop))) for start, stop in pairwise(edges)])

    def _features(self, maps: Maps) -> Float32s:
        axes = maps.axes
        out = np.empty((len(maps), sum(layer.features(axes) for layer in self._layers)), np.float32)
        column = 0
        for layer, stage, readout in zip(self._layers, self._stages, self._readouts, strict=True):
            maps = stage(maps)
            if readout is None:
                column = pool(layer, stage.runs, maps, out, column)
            else:
                behind, convolve = readout
                column = pool(behind, convolve.runs, convolve(maps), out, column)
        return out


def pool(layer: Layer, runs: Int64s, maps: Maps, out: Float32s, column: int) -> int:
    """Fill in the features of a layer whose words maps holds, from a column of out on. Returns the next column.

    runs: see `stages.Stage`.
    """
    axes, regions = maps.axes, layer.regions.count(maps.axes)
    if not regions:
        return column
    lengths = layer.regions.lengths(maps.offsets[1:] - maps.offsets[:-1], axes)
    segments = layer.regions.segments(maps.offsets, maps.grid)
    pooled_logarithms(
        maps.values, maps.offsets, segments, regions, layer.regions.kind == "tail", runs, layer.channels,
        _means(maps.grid, lengths, layer.signs)
        if maps.grid and takes_means(layer.regions)
        else _logarithms(maps.offsets, layer.signs),
        out, column,
    )  # fmt: skip
    column += regions * layer.channels
    out[:, column : column + regions] = _logarithm(lengths)
    return column + regions


class _Quick:
    """The classifier, its first layer in whole numbers."""

    def __init__(self, classifier: Classifier) -> None:
        values, mean, scale = classifier.parameters, classifier.mean, classifier.scale
        self._hidden = [
            (read, Dense(mean[read], scale[read], values["hidden"][read, units], values["hidden_bias"][units], True))
            for read, units in classifier.runs
        ]
        self._last = (
            Affine(values["out"], values["out_bias"])
            if self._hidden
            else Dense(mean, scale, values["out"], values["out_bias"], False)
        )

    def __call__(self, features: Float32s) -> Float32s:
        if not self._hidden:
            return self._last(features)
        parts = [dense(np.ascontiguousarray(features[:, read])) for read, dense in self._hidden]
        return self._last(np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0])


def _means(grid: tuple[int, ...], lengths: Float32s, signs: int) -> Float32s:
    """i / signs / sites of a cell, of every count i that the cells of a grid, all alike, can have."""
    counts = np.arange(signs * int(np.prod(grid)) + 1, dtype=np.float32) / np.float32(signs)
    return _half(counts / lengths.max(initial=1))


def _logarithms(offsets: Int64s, signs: int) -> Float32s:
    """log(1 + i / signs) of every count that examples of these offsets can have."""
    if signs == 1 and offsets[-1] < len(_LOGARITHMS):
        return _LOGARITHMS
    longest = signs * int(np.diff(offsets).max(initial=0))
    known = signs == 1 and longest < len(_LOGARITHMS)
    return _LOGARITHMS if known else _logarithm(np.arange(longest + 1, dtype=np.float32) / np.float32(signs))
