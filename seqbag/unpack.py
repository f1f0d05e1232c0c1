"""The checked reading of a packed model's parts; their layout is in `seqbag.packed`."""

from __future__ import annotations

from math import prod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from seqbag import head, tensors
from seqbag.batch import Float32s
from seqbag.classifier import Classifier
from seqbag.layer import Layer, channels_read, layer_of_readout
from seqbag.patches import Patcher
from seqbag.quantise import Filters, Kind, in_range, sum_bounds
from seqbag.regions import Regions
from seqbag.tensors import Arrays

_MOST = 1 << 12  # of what only damage makes large: sites of a window, strides, regions
_LARGEST = 1e6  # no trained number comes near it
Choice = TypeVar("Choice")


def read_layer(number: int, values: dict[str, Any], arrays: Arrays, kind: Kind, dims: int, inputs: int) -> Layer:
    """dims: of the embedding, 0 for images; inputs: channels of the layer before."""
    patchers = tuple(
        Patcher(tuple(map(size, window)), tuple(map(size, stride)), values["padding"])
        for window, stride in zip(values["windows"], values["strides"], strict=True)
    )
    same = {(len(p.window), p.stride, p.window if p.padding == "valid" else None) for p in patchers}
    if len(same) != 1:
        raise ValueError(f"the windows of layer {number + 1} do not go together")
    regions = Regions.parse(str(values["regions"]))
    if any(size > _MOST for size in regions.sizes) or (
        dims and (regions.kind == "grid" or len(patchers[0].window) > 1)
    ):
        raise ValueError(f"the regions or windows of layer {number + 1} do not fit its input")
    activation = one_of(values["activation"], tuple(head.ACTIVATIONS))
    if (activation == "sign") != (kind.activations == "sign"):
        raise ValueError(f"layer {number + 1} has the activation {activation}")
    pooling = tuple(map(size, values["pooling"]))
    if pooling and (dims or len(pooling) != len(patchers[0].window)):
        raise ValueError(f"the pooling of layer {number + 1} does not fit its windows")
    embedding = _embedding(arrays, kind, dims) if dims and number == 0 else None
    held = kind.filters(number == 0 and embedding is None)
    groups, weights, biases = tensors.read_channel_groups(number, values, inputs or None), [], []
    for group, (patcher, filters) in enumerate(zip(patchers, values["filters"], strict=True)):
        read = len(range(inputs if embedding is None else embedding.shape[1])[channels_read(group, groups)])
        shape = read * prod(patcher.window), size(filters)
        w, b = _filters(arrays, (f"layers.{number}", group), shape, held, kind)
        weights.append(w)
        biases.append(b)
    tensors.check_signs(number, biases)
    projection = tensors.read_projection(arrays, number, channels := sum(block.shape[1] for block in weights))
    if projection is not None and activation == "sign":
        raise ValueError(f"layer {number + 1} has signs and a projection")
    readout = None
    if width := size(tensors.read_width(number, values, inputs or None), 0):
        shape = channels, width
        behind = _filters(arrays, (f"layers.{number}.readout", 0), shape, kind.weights, kind)
        readout = layer_of_readout(*behind, activation, regions, len(patchers[0].window))
    how = activation, regions, embedding, pooling, projection, groups, readout
    return Layer(patchers, tuple(weights), tuple(biases), *how)


def _embedding(arrays: Arrays, kind: Kind, dims: int) -> Float32s:
    name = "layers.0.embedding"
    if kind.weights == "float" or kind.activations == "float":
        embedding: Float32s = checked(arrays, name, np.float32, 2)
        if embedding.shape[1] != dims or len(embedding) < 2 or embedding[:2].any():
            raise ValueError("the embedding does not fit")
        return embedding
    signs = np.where(_unpack_bits(arrays, name, len(arrays[name]), dims), np.float32(1), np.float32(-1))
    return np.concatenate([np.zeros((2, dims), np.float32), signs])


def _filters(
    arrays: Arrays, name: tuple[str, int], shape: tuple[int, int], held: Filters, kind: Kind
) -> tuple[Float32s, Float32s]:
    """Weights of this shape and a bias. name: of the layer, and the group; held: what the file keeps them as."""
    if held == "float":
        return _float_filters(arrays, name, shape, kind)
    if held == "integer":
        return _integer_filters(arrays, name, shape, kind)
    return _whole_filters(arrays, name, shape[1], shape[0], kind)


def _float_filters(
    arrays: Arrays, name: tuple[str, int], shape: tuple[int, int], kind: Kind
) -> tuple[Float32s, Float32s]:
    layer, group = name
    weights = checked(arrays, f"{layer}.weights.{group}", np.float32, 2, shape)
    return weights, _biases(arrays, f"{layer}.bias.{group}", np.float32, shape[1], kind)


def _integer_filters(
    arrays: Arrays, name: tuple[str, int], shape: tuple[int, int], kind: Kind
) -> tuple[Float32s, Float32s]:
    layer, group = name
    weights = checked(arrays, f"{layer}.weights.{group}", np.int16, 2, shape)
    if not in_range(weights):
        raise ValueError(f"the weights of {layer} are so large that sums could overflow")
    threshold = _biases(arrays, f"{layer}.threshold.{group}", np.int32, shape[1], kind)
    least, most = sum_bounds(weights)
    if (threshold < least - 1).any() or (threshold > most).any():
        raise ValueError(f"the thresholds of {layer} are out of range")
    return weights.astype(np.float32), -(threshold + 0.5).astype(np.float32)


def _whole_filters(
    arrays: Arrays, name: tuple[str, int], filters: int, inputs: int, kind: Kind
) -> tuple[Float32s, Float32s]:
    layer, group = name
    sign = _unpack_bits(arrays, f"{layer}.sign.{group}", filters, inputs).T
    weights = np.where(sign, np.float32(1), np.float32(-1))
    if kind.weights == "ternary":
        mask = _unpack_bits(arrays, f"{layer}.mask.{group}", filters, inputs).T
        if (sign & ~mask).any():
            raise ValueError(f"the filters of {layer} have a sign where the mask says zero")
        weights *= mask
    if kind.activations == "float":
        scale = checked(arrays, f"{layer}.scale.{group}", np.float32, 1, (filters,))
        return np.ascontiguousarray(weights * scale), checked(
            arrays, f"{layer}.bias.{group}", np.float32, 1, (filters,)
        )
    threshold = _biases(arrays, f"{layer}.threshold.{group}", np.int32, filters, kind)
    if threshold.size and not -inputs - 1 <= threshold.min() <= threshold.max() <= inputs:
        raise ValueError(f"the thresholds of {layer} are out of range")
    return np.ascontiguousarray(weights), -(threshold + np.float32(0.5)).astype(np.float32)


def _biases(arrays: Arrays, name: str, dtype: npt.DTypeLike, filters: int, kind: Kind) -> npt.NDArray[Any]:
    biases = tensors.read_biases(arrays, name, dtype, filters, kind.activations == "sign")
    if biases.dtype == np.float32 and (np.abs(biases) > _LARGEST).any():
        raise ValueError(f"{name} holds values beyond {_LARGEST:.0e}")
    return biases


def read_classifier(arrays: Arrays, kind: Kind, features: int, hidden: int, classes: int) -> Classifier:
    if checked(arrays, "classifier.mean", np.float32, 1).shape != (features,):  # before anything of that size is made
        raise ValueError("the classifier does not fit the features")
    last = checked(arrays, "classifier.out_bias", np.float32, 1, (classes,))
    if (hidden and checked(arrays, "classifier.hidden_bias", np.float32, 1).shape != (hidden,)) or last is None:
        raise ValueError("the classifier does not fit its hidden units")
    classifier = Classifier(features, hidden, classes, np.random.default_rng(0))
    tensors.widen(arrays, classifier)
    for name, value in classifier.parameters.items():
        if value.ndim == 1 or kind.weights == "float":
            value[...] = checked(arrays, f"classifier.{name}", np.float32, value.ndim, value.shape)
        else:
            scale = checked(arrays, f"classifier.{name}_scale", np.float32, 1, (value.shape[1],))
            value[...] = checked(arrays, f"classifier.{name}", np.int8, 2, value.shape) * scale
    mean, variance = (checked(arrays, f"classifier.{n}", np.float32, 1, (features,)) for n in ("mean", "variance"))
    if (variance < 0).any():
        raise ValueError("a variance is negative")
    classifier.standardise(mean, variance)
    return classifier


def checked(
    arrays: Arrays, name: str, dtype: npt.DTypeLike, axes: int, shape: tuple[int, ...] | None = None
) -> npt.NDArray[Any]:
    """As `tensors.checked`, and no number so large that what is computed with it could overflow."""
    array = tensors.checked(arrays, name, dtype, axes, shape)
    if array.dtype == np.float32 and (np.abs(array) > _LARGEST).any():
        raise ValueError(f"{name} holds values beyond {_LARGEST:.0e}")
    return array


def size(value: Any, least: int = 1) -> int:
    """A whole number that can be meant. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise ValueError(f"{value!r} is not a size")
    return value


def one_of(value: Any, choices: tuple[Choice, ...]) -> Choice:
    for choice in choices:
        if value == choice:
            return choice
    raise ValueError(f"{value!r} is none of {', '.join(map(str, choices))}")


def _unpack_bits(arrays: Arrays, name: str, rows: int, bits: int) -> npt.NDArray[np.bool_]:
    packed = checked(arrays, name, np.uint8, 2, (rows, -(-bits // 8)))
    unpacked = np.unpackbits(packed, axis=1, bitorder="little").astype(np.bool_)
    if unpacked[:, bits:].any():
        raise ValueError(f"{name} has bits after its last")
    return unpacked[:, :bits]
