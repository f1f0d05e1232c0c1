"""What frozen layers make of images, or of kept maps, for those above: of signs on bits, as they will once packed.

A layer takes a half to a sixth of the time on bits, and its sums are whole numbers: thresholds are compared exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import prod

import numpy as np
import numpy.typing as npt

from seqbag.bags import Halves
from seqbag.batch import Float32s
from seqbag.engine import pool
from seqbag.kernels.signmaps import levels_to_words, words_to_levels
from seqbag.layer import Layer, Maps
from seqbag.levels import Levels
from seqbag.mapcache import MapCache
from seqbag.network import Network
from seqbag.passes import concatenate
from seqbag.patches import Patcher
from seqbag.stages import BitStage, arranged

_EXAMPLES = 16  # whose words stay in the cache
_SITES = 1 << 14  # of pixels that go through the layers at once
Made = tuple[Halves, Maps]


def passing(network: Network, kept: MapCache, last: bool, cut: bool) -> Callable[[npt.NDArray[np.intp], int], Made]:
    """A function of some kept examples and a view: the features of all layers, and what the newest hands on.

    The newest layer is the one whose input is kept. Of a layer of signs, what it hands on are codes of `Levels`.
    last: features alone, as nothing comes after; cut: windows are cut of what is handed on, which takes numbers.
    """
    first = len(network.layers) - 1
    layer, signs = network.layers[first], None
    if isinstance(kept.scale, Levels) and layer.readout is None and not cut:
        signs = SignPass(layer, kept.scale)

    def make(examples: npt.NDArray[np.intp], view: int) -> Made:
        if signs is not None:
            features, maps = signs(kept.coded(examples, view), last)
        else:
            features, maps = _on_floats(network, kept.maps(examples, view), first, last)
        return np.concatenate([kept.features(examples, view), features], axis=1), maps

    return make


def forwarding(network: Network, last: bool, cut: bool) -> Callable[[Maps], Made]:
    """As `passing`, a function of the network's input, which goes through all layers."""
    first = network.layers[0]
    signs = all(layer.activation == "sign" and layer.readout is None for layer in network.layers)
    if cut or not signs or len(network.layers) == 1 or first.regions.kind != "none":
        return lambda maps: _on_floats(network, maps, 0, last)
    levels = Levels.of(first)
    passes = [SignPass(layer, Levels.of(below)) for below, layer in pairwise(network.layers)]

    def through(part: Maps) -> Made:
        maps = first.next_input(first.forward(part))
        maps = replace(maps, values=levels.encode(maps.values))
        features = []
        for number, layer in enumerate(passes, 1):
            own, maps = layer(maps, last and number == len(passes))
            features.append(own)
        return np.concatenate(features, axis=1), maps

    def make(maps: Maps) -> Made:
        pieces = [through(part) for _, part in maps.parts(_SITES)] or [through(maps)]
        return np.concatenate([features for features, _ in pieces]), concatenate([made for _, made in pieces])

    return make


def _on_floats(network: Network, maps: Maps, first: int, last: bool) -> Made:
    if last:
        return network.halves(maps, first), maps.part(0, 0)
    return network.forward(maps, first)


class SignPass:
    """A layer of signs with ternary filters over codes of `Levels`, without a readout. Any thread may call."""

    def __init__(self, layer: Layer, below: Levels) -> None:
        self._layer, self._below, self._above = layer, below, Levels.of(layer)
        _, self._runs, self._words = arranged([below.channels], below.signs, layer.channel_groups)
        self._stage = BitStage(_whole(layer), self._runs)
        ones = (1,) * len(layer.patchers[0].window)
        self._pooler = Patcher(layer.pooling or ones, layer.pooling or ones, "valid")

    def __call__(self, maps: Maps, last: bool) -> Made:
        """Features (n, d) of maps whose values are codes, and what is handed on, codes too; if last, of no example."""
        assert maps.grid is not None
        layer, made_on = self._layer, self._layer.patchers[0].out_shape(maps.grid)
        index = self._pooler.grid_index(made_on)
        features: Float32s = np.empty((len(maps), layer.features(maps.axes)), np.float32)
        out = np.empty((0 if last else len(maps), len(index), self._above.site_bytes), np.uint8)
        for start in range(0, len(maps), _EXAMPLES):
            stop = min(len(maps), start + _EXAMPLES)
            part = maps.part(start, stop)
            words = np.zeros((len(part.values), self._words), np.uint64)
            levels_to_words(part.values.view(np.uint8), self._below.channels, self._below.bits, self._runs, words)
            made = self._stage(replace(part, values=words))
            pool(layer, self._stage.runs, made, features[start:stop], 0)
            if not last:
                bits = made.values.reshape(len(part), prod(made_on), -1)
                words_to_levels(bits, index, self._stage.runs, self._above.bits, out[start:stop])
        offsets = np.arange(len(out) + 1, dtype=np.int64) * len(index)
        handed_on = out.view(np.int8).reshape(-1, self._above.site_bytes)
        return features.astype(np.float16), Maps(handed_on, offsets, self._pooler.out_shape(made_on))


def _whole(layer: Layer) -> Layer:
    """The layer with filters of -1, 0 and +1, and biases that leave its signs as they are."""
    weights: list[Float32s] = []
    biases: list[Float32s] = []
    for own, bias in zip(layer.weights, layer.biases, strict=True):
        size = np.abs(own).max(0)
        scale: Float32s = np.where(size > 0, size, 1).astype(np.float32)
        weights.append(own / scale)
        biases.append(bias / scale)
    return replace(layer, weights=tuple(weights), biases=tuple(biases))
