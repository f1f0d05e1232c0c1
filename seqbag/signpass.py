"""What a frozen layer makes of kept maps, for the layers above it: of signs on bits, as it will once it is packed.

A window of signs takes a sixth of the time on bits, and its sums are whole numbers: thresholds are compared exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from seqbag.bags import Halves
from seqbag.batch import Float32s
from seqbag.bytescale import Int8s
from seqbag.engine import pool
from seqbag.kernels.signmaps import levels_to_words, words_to_levels
from seqbag.layer import Layer, Maps
from seqbag.levels import Levels
from seqbag.mapcache import MapCache
from seqbag.network import Network
from seqbag.patches import Patcher
from seqbag.stages import BitStage, arranged

_EXAMPLES = 16  # whose words stay in the cache
Made = tuple[Halves, Maps]


def passing(network: Network, kept: MapCache, last: bool, cut: bool) -> Callable[[npt.NDArray[np.intp], int], Made]:
    """A function of some kept examples and a view: the features of all layers, and what the newest hands on.

    The newest layer is the one whose input is kept. Of a layer of signs, what it hands on are codes of `Levels`.
    last: features alone, as nothing comes after; cut: windows are cut of what is handed on, which takes numbers.
    """
    first = len(network.layers) - 1
    layer = network.layers[first]
    signs = SignPass(layer, kept.scale) if isinstance(kept.scale, Levels) and layer.readout is None else None

    def make(examples: npt.NDArray[np.intp], view: int) -> Made:
        if signs is not None and not cut:
            features, maps = signs(kept.view(examples, view), kept.grid, last)
        elif last:
            maps = kept.maps(examples, view)
            features, maps = network.halves(maps, first), maps.part(0, 0)
        else:
            features, maps = network.forward(kept.maps(examples, view), first)
        return np.concatenate([kept.features(examples, view), features], axis=1), maps

    return make


class SignPass:
    """A layer of signs with ternary filters over codes of `Levels`, without a readout. Any thread may call."""

    def __init__(self, layer: Layer, below: Levels) -> None:
        self._layer, self._below, self._above = layer, below, Levels.of(layer)
        _, self._runs, self._words = arranged([below.channels], below.signs, layer.channel_groups)
        self._stage = BitStage(_whole(layer), self._runs)
        ones = (1,) * len(layer.patchers[0].window)
        self._pooler = Patcher(layer.pooling or ones, layer.pooling or ones, "valid")

    def __call__(self, codes: Int8s, grid: tuple[int, ...], last: bool) -> Made:
        """Features (n, d) and what is handed on, codes too, of codes (n, sites, site_bytes); if last, of no example."""
        layer, axes = self._layer, len(grid)
        features: Float32s = np.empty((len(codes), layer.features(axes)), np.float32)
        made_on = layer.patchers[0].out_shape(grid)
        index = self._pooler.grid_index(made_on)
        out = np.empty((0 if last else len(codes), len(index), self._above.site_bytes), np.uint8)
        for start in range(0, len(codes), _EXAMPLES):
            part = codes[start : start + _EXAMPLES].view(np.uint8)
            sites = part.shape[1]
            words = np.zeros((len(part) * sites, self._words), np.uint64)
            flat = part.reshape(-1, part.shape[2])
            levels_to_words(flat, self._below.channels, self._below.bits, self._runs, words)
            made = self._stage(Maps(words, np.arange(len(part) + 1, dtype=np.int64) * sites, grid))
            pool(layer, self._stage.runs, made, features[start : start + len(part)], 0)
            if not last:
                bits = made.values.reshape(len(part), -1, made.values.shape[1])
                own = out[start : start + len(part)]
                words_to_levels(bits, index, self._stage.runs, self._above.bits, own)
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
