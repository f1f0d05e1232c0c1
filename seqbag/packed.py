"""Packed models: a quantised net in a file of kilobytes. Loading one executes nothing and checks every size and range.

Layout (format 7; 1 had no projections, until 3 signs over grids were pooled otherwise, until 4 there were no spans,
until 5 no channel groups and no readouts, until 6 one sign a filter): one safetensors file, whose metadata has one
entry `seqbag.packed`, JSON with sorted keys: format, version, weights (ternary, binary or float), activations (sign or
float), config, classes, columns, report, layers (windows, strides, padding, regions, pooling, channel_groups,
activation, filters: the number of each window, readout: its filters, 0 for none), hidden (units of the classifier, 0
for none) and shape (of an image, channels last; empty for sequences). Bits fill bytes from the lowest: bit i of a row
is `row[i // 8] >> (i % 8) & 1`, and bits after the last are 0. A layer's inputs are numbered as in a model file: place
in the window first, then channel. Tensors:

| name                       | shape, dtype                       | what                                             |
|----------------------------|------------------------------------|--------------------------------------------------|
| tokens.ids                 | (tokens - 2,) int32, rising        | hashed id of embedding row i + 2                 |
| layers.0.embedding         | (tokens - 2, ceil(dims / 8)) uint8 | row i + 2 as bits, 1 for +1, 0 for -1; rows 0    |
|                            |                                    | (padding) and 1 (any other token) are all zero   |
| layers.L.sign.G            | (filters, ceil(inputs / 8)) uint8  | bits, 1 where the weight is above 0              |
| layers.L.mask.G            | the same                           | ternary only: bits, 0 where the weight is 0      |
| layers.L.threshold.G       | (filters,) int32                   | active where the sum is above it by over 1/2     |
|                            |                                    | (over means of signs, sums are not whole); or    |
|                            |                                    | (signs, filters), of several signs a filter      |
| layers.0.weights.G         | (inputs, filters) int16            | images only, in place of sign and mask: times    |
|                            |                                    | bytes, padding 0; magnitudes of a filter add up  |
|                            |                                    | to 32,767 at most                                |
| layers.L.readout.*.0       | as of filters over the channels    | of 1x1 windows over the activations, whose own   |
|                            |                                    | are pooled instead; may be absent                |
| layers.L.projection        | (channels, outputs) float32        | of the next layer's input; float activations     |
|                            |                                    | only, and may be absent                          |
| classifier.mean, .variance | (features,) float32                | what features are standardised by                |
| classifier.hidden          | (features, hidden) int8            | weights / scale; absent without hidden units     |
| classifier.spans           | (hidden, 2) int32                  | of a vote: of each unit the first feature that   |
|                            |                                    | it reads and the one after the last; with it,    |
|                            |                                    | hidden is (entries,), unit by unit               |
| classifier.hidden_scale    | (hidden,) float32                  | of each column                                   |
| classifier.hidden_bias     | (hidden,) float32                  |                                                  |
| classifier.out[_scale, _bias]| likewise                       | from hidden units, or features, to classes       |

Where activations are float, `threshold` gives way to `scale` and `bias`, (filters,) float32, and the embedding is
(tokens, dims) float32. Where weights are float, `sign` and `mask` give way to `weights` (inputs, filters) float32 with
`bias`, and the classifier's weights are float32 without scales. Where either is, so are the filters over pixels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from seqbag import __version__
from seqbag.batch import Int32s, UInt8s
from seqbag.classifier import Classifier
from seqbag.config import TrainConfig
from seqbag.engine import PackedNetwork
from seqbag.errors import ModelError
from seqbag.layer import Layer
from seqbag.quantise import ACTIVATIONS, WEIGHTS, Filters, Kind
from seqbag.store import Model, describe_layer, read_tensors
from seqbag.tensors import Arrays, narrow
from seqbag.unpack import checked, one_of, read_classifier, read_layer, size

FORMAT = 7
KEY = "seqbag.packed"
_MOST_IDS = 1 << 26
_INT8 = 127


def to_bytes(model: Model, kind: Kind) -> bytes:
    """The file of a model whose network `quantise` made for this kind. The classifier is rounded here."""
    description, arrays = to_parts(model, kind)
    return safetensors.numpy.save(arrays, {KEY: json.dumps(description, sort_keys=True)})


def to_parts(model: Model, kind: Kind) -> tuple[dict[str, Any], Arrays]:
    """The description and the arrays of the file."""
    network = model.network
    assert network.classifier is not None
    description = {
        "format": FORMAT,
        "version": __version__,
        "weights": kind.weights,
        "activations": kind.activations,
        "config": network.config.to_json(),
        "classes": list(network.classes),
        "columns": model.columns,
        "report": model.report,
        "layers": [_describe(layer) for layer in network.layers],
        "hidden": network.classifier.hidden,
        "shape": list(network.shape),
    }
    arrays: Arrays = {}
    if network.lookup is not None:
        arrays["tokens.ids"] = np.flatnonzero(network.lookup > 1).astype(np.int32)
    for number, layer in enumerate(network.layers):
        arrays |= {f"layers.{number}.{name}": value for name, value in _pack(layer, number, kind).items()}
    arrays |= {f"classifier.{name}": value for name, value in _pack_classifier(network.classifier, kind).items()}
    narrow(arrays, network.classifier.runs)
    return description, {name: np.ascontiguousarray(value) for name, value in arrays.items()}


def load(path: Path) -> Model:
    """Read a packed model; its network is a `PackedNetwork`. Raises ModelError if it is damaged, foreign or too new."""
    description, arrays = read_tensors(path, KEY)
    try:
        return from_parts(description, arrays)
    except ModelError:
        raise
    except Exception as error:
        # Whatever a damaged description makes of the code that reads it, it is the file that is wrong.
        raise ModelError(
            f"{path} is damaged ({type(error).__name__}: {error}): restore it or export it again"
        ) from error


def _describe(layer: Layer) -> dict[str, Any]:
    return {**describe_layer(layer), "filters": layer.filters}


def _pack(layer: Layer, number: int, kind: Kind) -> Arrays:
    arrays: Arrays = {}
    filters = kind.filters(number == 0 and layer.embedding is None)
    signs = kind.activations == "sign"
    if layer.embedding is not None:
        whole = signs and filters != "float"
        arrays["embedding"] = pack_bits(layer.embedding[2:] > 0) if whole else layer.embedding
    if layer.projection is not None:
        arrays["projection"] = layer.projection
    if layer.readout is not None:
        behind = _pack_filters(layer.readout, kind.weights, signs)
        arrays |= {f"readout.{name}": value for name, value in behind.items()}
    return arrays | _pack_filters(layer, filters, signs)


def _pack_filters(layer: Layer, filters: Filters, signs: bool) -> Arrays:
    arrays: Arrays = {}
    for group, (weights, bias) in enumerate(zip(layer.weights, layer.biases, strict=True)):
        if filters == "float":
            arrays[f"weights.{group}"], arrays[f"bias.{group}"] = weights, bias
            continue
        if filters == "integer":
            arrays[f"weights.{group}"] = weights.astype(np.int16)
            arrays[f"threshold.{group}"] = np.floor(-bias).astype(np.int32)
            continue
        arrays[f"sign.{group}"] = pack_bits(weights.T > 0)
        if filters == "ternary":
            arrays[f"mask.{group}"] = pack_bits(weights.T != 0)
        if signs:
            arrays[f"threshold.{group}"] = np.floor(-bias).astype(np.int32)
        else:
            arrays[f"scale.{group}"], arrays[f"bias.{group}"] = np.abs(weights).max(0), bias
    return arrays


def _pack_classifier(classifier: Classifier, kind: Kind) -> Arrays:
    arrays: Arrays = {"mean": classifier.mean, "variance": classifier.variance}
    for name, value in classifier.parameters.items():
        if value.ndim == 1 or kind.weights == "float":
            arrays[name] = value
            continue
        scale = np.abs(value).max(0) / np.float32(_INT8)
        arrays[f"{name}_scale"] = scale
        arrays[name] = np.rint(value / np.where(scale > 0, scale, 1)).astype(np.int8)
    return arrays


def pack_bits(rows: npt.NDArray[np.bool_]) -> UInt8s:
    """(n, bits) to (n, ceil(bits / 8)) uint8, the first bit lowest."""
    return np.packbits(rows, axis=1, bitorder="little")


def from_parts(description: dict[str, Any], arrays: Arrays) -> Model:
    """The model of a description and arrays. Raises all kinds of errors where they do not fit."""
    kind = Kind(one_of(description["weights"], WEIGHTS), one_of(description["activations"], ACTIVATIONS))
    config = TrainConfig.from_json(description["config"])
    classes = tuple(str(name) for name in description["classes"])
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ValueError("there are fewer than two classes, or two of one name")
    columns = dict(description["columns"])
    image = one_of(columns["kind"], ("text", "tokens", "image")) == "image"
    lookup = None if image else _lookup(arrays, config.vocabulary)
    shape = tuple(size(length) for length in description["shape"])
    layers: list[Layer] = []
    inputs = shape[-1] if shape else 0
    for number, values in enumerate(description["layers"]):
        layers.append(read_layer(number, values, arrays, kind, size(config.dims) if lookup is not None else 0, inputs))
        inputs = layers[-1].outputs
    if len(shape) != (len(layers[0].patchers[0].window) + 1 if image else 0):
        raise ValueError("the shape of images does not fit the input")
    first = layers[0]
    if lookup is not None and (first.embedding is None or len(first.embedding) != max(int(lookup.max()), 1) + 1):
        raise ValueError("the embedding has other rows than there are tokens")
    features = sum(layer.features(len(layer.patchers[0].window)) for layer in layers)
    classifier = read_classifier(arrays, kind, features, size(description["hidden"], 0), len(classes))
    texts = [] if lookup is None else [f"#{token}" for token in arrays["tokens.ids"].tolist()]
    network = PackedNetwork(config, classes, lookup, layers, classifier, shape)
    return Model(network, columns, dict(description["report"]), texts)


def _lookup(arrays: Arrays, vocabulary: int) -> Int32s:
    """Embedding rows of the hashed ids."""
    ids = checked(arrays, "tokens.ids", np.int32, 1)
    if len(ids) and (np.any(np.diff(ids) <= 0) or ids[0] < 1 or ids[-1] >= vocabulary):
        raise ValueError("the token ids are out of range")
    if vocabulary > _MOST_IDS:
        raise ValueError(f"the vocabulary has {vocabulary} ids")
    lookup = np.full(vocabulary, 1, np.int32)
    lookup[0] = 0
    lookup[ids] = np.arange(2, 2 + len(ids), dtype=np.int32)
    return lookup
