"""A trained net made of integers: embeddings of signs, filters of -1, 0 and +1, and a threshold for each filter.

Pixels are no signs, and filters of -1, 0 and +1 would not whiten them: their filters become integers of 16 bits, of
which one filter's are at most 32,767 together. So no sum of bytes times weights reaches 2^23, in any order, and what
32 bits hold is exact in float32, too.

The result is a `Network` again, with whole weights and a bias of -(threshold + 1/2), so that `sum + bias > 0` is
`sum > threshold` exactly, and over pooled signs, whose sums are of means, `sum > threshold + 1/2`: it can be measured
and refitted like any other, packed without loss, and run on bits. Scales need not be kept, as a sign has none; biases
and scales of the filters go into the thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s, Int32s, Int64s
from seqbag.errors import UsageError
from seqbag.layer import Layer
from seqbag.network import Network

Weights = Literal["ternary", "binary", "float"]
Filters = Literal["ternary", "binary", "float", "integer"]
Activations = Literal["sign", "float"]
WEIGHTS: tuple[Weights, ...] = ("ternary", "binary", "float")
ACTIVATIONS: tuple[Activations, ...] = ("sign", "float")


@dataclass(frozen=True)
class Kind:
    """How a net is packed."""

    weights: Weights
    activations: Activations

    def filters(self, pixels: bool) -> Filters:
        """What a layer's filters are kept as. pixels: whether it is the first over images."""
        if not pixels or self.weights == "float":
            return self.weights
        return "integer" if self.activations == "sign" else "float"


_BYTE = 255
_WEIGHTS = 32767  # of a filter over pixels, all magnitudes together
_NO_WINDOWS = (np.empty((0, 0), np.int32), np.empty(0, np.int64))
_RIDGE = 0.3  # of the mean variance of the inputs: of those tried, it left least of the sums unexplained
Quantiser = Callable[[Float32s], tuple[Float32s, Float32s]]


def least_squares_ternary(weights: Float32s) -> tuple[Float32s, Float32s]:
    """Per column the scale (F,) and t (inputs, F) of -1, 0, +1 with the least |w - scale * t|^2 (float32).

    Of all ways to keep the k largest magnitudes, whose best scale is their mean, the best has the largest
    (sum of them)^2 / k. (Li et al. 2016, arXiv 1605.04711, section 2.2, solved there approximately.)
    """
    size = np.abs(weights, dtype=np.float64)
    falling = -np.sort(-size, axis=0)
    sums, kept = np.cumsum(falling, axis=0), np.arange(1, len(size) + 1)[:, None]
    gain = sums**2 / kept
    # Rounding must not make a kept zero look like a gain.
    best = np.argmax(gain >= gain.max(0) * (1 - 1e-12), axis=0)
    columns = np.arange(size.shape[1])
    scale = sums[best, columns] / (best + 1)
    kept_weights = size >= np.maximum(falling[best, columns], np.finfo(np.float64).tiny)
    return (np.sign(weights) * kept_weights).astype(np.float32), scale.astype(np.float32)


def least_squares_binary(weights: Float32s) -> tuple[Float32s, Float32s]:
    """Per column the signs (inputs, F) and the scale (F,), their mean magnitude (Rastegari et al. 2016)."""
    signs = np.where(weights < 0, np.float32(-1), np.float32(1))
    return signs, np.abs(weights).mean(0, dtype=np.float64).astype(np.float32)


def largest_remainder(weights: Float32s) -> tuple[Float32s, npt.NDArray[np.float64]]:
    """Per column whole numbers q (inputs, F), at most 32,767 together, and the scale (F,) such that scale * q is near.

    Of what is rounded down, the largest fractions are rounded up, until q's sum is the column's: patches are about as
    bright all over, and an error of the sum is multiplied by that brightness.
    """
    size = np.abs(weights, dtype=np.float64).sum(0)
    scale: npt.NDArray[np.float64] = np.where(size > 0, size, 1) / (_WEIGHTS - len(weights))
    low = np.floor(weights / scale)
    fraction = weights / scale - low
    rank = np.argsort(np.argsort(-fraction, axis=0, kind="stable"), axis=0, kind="stable")
    whole = low + (rank < np.rint(fraction.sum(0)))
    return whole.astype(np.float32), scale


def in_range(weights: npt.NDArray[Any]) -> bool:
    """Whether each filter (column) over pixels is small enough that no sum overflows or is rounded."""
    return bool((np.abs(weights, dtype=np.float64).sum(0) <= _WEIGHTS).all())


def sum_bounds(weights: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(F,) the least and the largest sum of bytes times the weights (inputs, F)."""
    wide = _BYTE * weights.astype(np.float64)
    return np.minimum(wide, 0).sum(0), np.maximum(wide, 0).sum(0)


QUANTISERS: dict[Filters, Quantiser] = {"ternary": least_squares_ternary, "binary": least_squares_binary}


def quantise(network: Network, kind: Kind, windows: Sequence[Int32s] = (), counts: Sequence[Int64s] = ()) -> Network:
    """The net with its layers quantised; the classifier is the same object.

    windows, counts: the commonest windows (m, width) of each group of the first layer, in embedding rows, and how often
    they came, by which filters are fitted to an embedding that becomes signs, and thresholds chosen.
    Raises UsageError for a net whose layers cannot become signs.
    """
    if kind.activations == "float" and network.config.activation == "sign":
        raise UsageError("the net was trained with signs and cannot have float activations: choose --activations sign")
    if kind.activations == "sign" and network.config.activation != "sign" and len(network.layers) > 1:
        raise UsageError(
            f"a net of {len(network.layers)} layers trained with {network.config.activation} cannot be given signs: "
            "train it with --activation sign, or export it with --activations float"
        )
    layers = []
    for number, before in enumerate(network.layers):
        filters = kind.filters(number == 0 and before.embedding is None)
        known = list(zip(windows, counts, strict=True)) if number == 0 else []
        layer = _quantised(before, filters, kind, known)
        if before.readout is not None:
            layer = replace(layer, readout=_quantised(before.readout, kind.weights, kind, []))
        layers.append(layer)
    config = replace(network.config, activation="sign") if kind.activations == "sign" else network.config
    return replace(network, config=config, layers=layers)


def _quantised(layer: Layer, filters: Filters, kind: Kind, known: list[tuple[Int32s, Int64s]]) -> Layer:
    """A layer with its own filters quantised, its readout as it was. known: see `_whole`."""
    if filters == "float":
        return replace(layer, activation="sign") if kind.activations == "sign" else layer
    if filters == "integer":
        return _integer(layer)
    if kind.activations == "sign":
        return _whole(layer, QUANTISERS[filters], known)
    return _scaled(layer, QUANTISERS[filters])


def _scaled(layer: Layer, quantiser: Quantiser) -> Layer:
    """Filters replaced by scale * t, which needs no other bias."""
    parts = [quantiser(weights) for weights in layer.weights]
    return replace(layer, weights=tuple(np.ascontiguousarray(t * scale) for t, scale in parts))


def _integer(layer: Layer) -> Layer:
    """The layer over pixels with sign activations and nothing but whole numbers in it."""
    filters, biases = [], []
    for weights, bias in zip(layer.weights, layer.biases, strict=True):
        whole, scale = largest_remainder(weights)
        least, most = sum_bounds(whole)
        thresholds = np.clip(np.floor(-bias / scale), least - 1, most)
        filters.append(np.ascontiguousarray(whole))
        biases.append(-(thresholds + 0.5).astype(np.float32))
    return replace(layer, weights=tuple(filters), biases=tuple(biases), activation="sign")


def _whole(layer: Layer, quantiser: Quantiser, known: list[tuple[Int32s, Int64s]]) -> Layer:
    """The layer with sign activations and nothing but whole numbers in it. known: windows and counts of each group.

    Where windows are known, filters over an embedding that had to become signs are first fitted anew to it, and
    thresholds of filters that changed follow how often the old filters were active.
    """
    embedding, spread = (None, np.float32(1)) if layer.embedding is None else _signs(layer.embedding)
    same = embedding is None or np.array_equal(embedding, layer.embedding)  # type: ignore[arg-type]
    filters, biases = [], []
    for group, (weights, bias) in enumerate(zip(layer.weights, layer.biases, strict=True)):
        windows, counts = known[group] if group < len(known) else _NO_WINDOWS
        if not len(windows):
            whole, scale = quantiser(weights)
            thresholds = -bias / np.where(scale > 0, scale * spread, 1)
        else:
            inputs, sums = _inputs(embedding, windows), _inputs(layer.embedding, windows) @ weights
            whole, scale = quantiser(weights if same else _refitted(inputs, sums, counts))
            if same and np.array_equal(whole * scale, weights):
                thresholds = -bias / np.where(scale > 0, scale, 1)
            else:
                active = [sums + own > 0 for own in np.atleast_2d(bias)]
                thresholds = np.stack([_balanced(one, inputs @ whole, counts) for one in active]).reshape(bias.shape)
        filters.append(np.ascontiguousarray(whole))
        thresholds = np.clip(np.floor(thresholds.astype(np.float64)), -len(whole) - 1, len(whole))
        biases.append(-(thresholds + 0.5).astype(np.float32))
    return replace(layer, weights=tuple(filters), biases=tuple(biases), activation="sign", embedding=embedding)


def _signs(embedding: Float32s) -> tuple[Float32s, np.float32]:
    """Signs of the embedding's rows, padding and unknown tokens staying zero, and the magnitude they stand for."""
    signs = np.where(embedding < 0, np.float32(-1), np.float32(1))
    signs[:2] = 0
    spread = np.abs(embedding[2:]).mean() if len(embedding) > 2 else np.float32(1)
    return signs, np.float32(spread or 1)


def _balanced(active: npt.NDArray[np.bool_], sums: Float32s, counts: Int64s) -> npt.NDArray[np.float64]:
    """Thresholds (F,) that as many windows pass as are active. active, sums: (m, F); counts: (m,) of the windows."""
    weight = counts.astype(np.float64)
    wanted = weight @ active
    thresholds = np.empty(sums.shape[1])
    for f in range(sums.shape[1]):
        values, place = np.unique(sums[:, f], return_inverse=True)
        above = weight.sum() - np.cumsum(np.bincount(place, weight))  # windows above each value
        edges = np.concatenate([[values[0] - 1], values])
        thresholds[f] = edges[np.argmin(np.abs(np.concatenate([[weight.sum()], above]) - wanted[f]))]
    return thresholds


def _refitted(inputs: Float32s, sums: Float32s, counts: Int64s) -> Float32s:
    """Weights (d, F) that come near the sums (m, F) from other inputs (m, d), by ridge regression."""
    weighted = inputs.T * counts
    gram = (weighted @ inputs).astype(np.float64)
    gram += _RIDGE * max(np.trace(gram), 1e-6) / len(gram) * np.eye(len(gram))
    return np.linalg.solve(gram, (weighted @ sums).astype(np.float64)).astype(np.float32)


def _inputs(embedding: Float32s | None, windows: Int32s) -> Float32s:
    """(m, width * dims) what filters see of windows (m, width) of embedding rows."""
    assert embedding is not None
    return embedding[windows].reshape(len(windows), -1)
