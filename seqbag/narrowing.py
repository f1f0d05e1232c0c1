"""How a layer over a grid hands its maps on: on fewer sites, and in fewer channels.

A layer's filters say much the same in other words: 96 principal axes hold nine tenths of what 256 filters vary. The
next layer's windows, its filters and the maps that are kept shrink with them, and its inputs no longer go together,
which is what gradient descent learns fastest from.
"""

from __future__ import annotations

from dataclasses import replace

from seqbag.layer import Layer, Maps
from seqbag.projection import Moments, Projection

_SITES = 1 << 16  # that the axes are fitted to
_PART_SITES = 1 << 14  # sites whose activations are held at once
_EPSILON = 1e-3  # of the mean variance; see Projection.fit
_POOLED = 16  # sites along an axis, from which on it is halved between layers


def pooling(grid: tuple[int, ...]) -> tuple[int, ...]:
    """How far to pool maps between layers: long axes by two."""
    return tuple(2 if size >= _POOLED else 1 for size in grid)


def projected(layer: Layer, inputs: Maps, channels: int) -> Layer:
    """The layer, its output projected to the `channels` principal axes of what it makes of some inputs.

    Of signs, which stay bits, and of layers that are no wider, the output is left as it is. Nothing is taken off before
    the product, so that padding, nought, stays nought.
    """
    if layer.activation == "sign" or not 0 < channels < layer.channels:
        return layer
    moments = Moments.of(layer.channels, "float32")
    for _, part in inputs.parts(_PART_SITES):
        moments.update(layer.next_input(layer.forward(part)).values)
        if moments.count >= _SITES:
            break
    return replace(layer, projection=Projection.fit(moments, channels, _EPSILON).matrix)
