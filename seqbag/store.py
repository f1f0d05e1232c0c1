"""Model files: safetensors with a JSON description in the header. Loading one executes nothing.

Layout (format 7; 1 had no projections, until 3 signs over grids were pooled otherwise, until 4 there were no spans,
until 5 no channel groups and no readouts, until 6 one sign a filter). The header's metadata has one entry `seqbag`,
JSON: format, version, config, classes, columns (what input and label were read from), report (the training figures),
layers (windows, strides, padding, regions, activation, pooling, channel_groups, readout: its filters, 0 for none),
hidden (units of the classifier) and shape (of an image, channels last; empty for sequences). Tensors:

| name                                | shape, dtype                          | what                                  |
|-------------------------------------|---------------------------------------|---------------------------------------|
| tokens.ids                          | (tokens - 2,) int32, rising           | hashed id of embedding row i + 2      |
| tokens.text, tokens.text_ends       | (bytes,) uint8, (tokens - 2,) int64   | UTF-8 text of each                    |
| layers.L.embedding                  | (tokens, dims) float32                | first layer over tokens               |
| layers.L.weights.G, layers.L.bias.G | (inputs, filters), (filters,) float32 | filters of group G; of several signs  |
|                                     |                                       | a filter, the bias is (signs, filters)|
| layers.L.projection                 | (channels, outputs) float32           | see Layer; may be absent              |
| layers.L.readout.weights.0, .bias.0 | (channels, filters), (filters,)       | see Layer; absent without a readout   |
| classifier.*                        | float32                               | mean, variance, hidden, out, biases   |
| classifier.spans                    | (units, 2) int32                      | of a vote, see `spans`; with it,      |
|                                     |                                       | hidden is (entries,), unit by unit    |
| windows.G, window_counts.G          | (m, width) int32, (m,) int64          | commonest windows, for `inspect`      |
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from seqbag import __version__
from seqbag.batch import Float32s, Int32s, Int64s
from seqbag.classifier import Classifier
from seqbag.config import TrainConfig
from seqbag.errors import DataError, ModelError, UsageError
from seqbag.head import ACTIVATIONS
from seqbag.layer import Layer, channels_read, layer_of_readout
from seqbag.network import Network
from seqbag.patches import Patcher
from seqbag.regions import Regions
from seqbag.tensors import (
    MOST_SITES,
    Arrays,
    check_signs,
    checked,
    narrow,
    read_biases,
    read_channel_groups,
    read_projection,
    read_width,
    widen,
)

FORMAT = 7
_MEANS = 4  # the format since when signs over grids are pooled to means, for features and for the next layer
_KEY = "seqbag"
Buffer = bytes | memoryview


@dataclass
class Model:
    """A trained net and what is known about it.

    columns: `kind`, `input` and `label`, as read in training, and `shape` if images were read in a given one; report:
    the JSON that `train` printed; texts: of the embedding's rows from row 2 on; windows, window_counts: the commonest
    windows of each group, in embedding rows.
    """

    network: Network
    columns: dict[str, Any]
    report: dict[str, Any]
    texts: list[str] = field(default_factory=list)
    windows: list[Int32s] = field(default_factory=list)
    window_counts: list[Int64s] = field(default_factory=list)


def save(model: Model, path: Path) -> int:
    """Write a model file; it appears whole or not at all. Returns its bytes. Raises DataError if it cannot."""
    return write_atomically(path, to_bytes(model))


def check_writable(path: Path) -> None:
    """Find out before the work whether a file can be written there. Raises DataError naming the path and the cause."""
    cause = None
    if path.is_dir():
        cause = "it is a folder"
    elif path.exists() and not path.is_file():
        cause = "it is not a regular file"
    elif not path.parent.is_dir():
        cause = f"there is no folder {path.parent}"
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        cause = f"the folder {path.parent} is read-only"
    if cause is not None:
        raise DataError(f"{path} cannot be written ({cause}): choose another place with --out")


def write_atomically(path: Path, *parts: Buffer, remedy: str = "choose another place with --out") -> int:
    """Write a file of these parts beside its place and move it there. Returns its bytes.

    Raises DataError naming the path, the cause and the remedy.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            size = sum(file.write(part) for part in parts)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise DataError(f"{path} cannot be written ({error.strerror}): {remedy}") from error
    return size


def tensor_parts(key: str, description: dict[str, Any], arrays: Arrays) -> list[Buffer]:
    """The parts of a safetensors file that `read_tensors` reads, as they lie in memory: they may be half of all it has.

    arrays: of integers or floats.
    """
    header: dict[str, Any] = {"__metadata__": {key: json.dumps(description)}}
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)  # each then starts at a multiple of its size
    start, parts = 0, []
    for name, array in ordered:
        kind = f"{array.dtype.kind.upper()}{8 * array.itemsize}"
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": (start, start + array.nbytes)}
        start += array.nbytes
        parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *parts]


def to_bytes(model: Model) -> bytes:
    """The model file's content."""
    network = model.network
    assert network.classifier is not None
    description = {
        "format": FORMAT,
        "version": __version__,
        "config": network.config.to_json(),
        "classes": list(network.classes),
        "columns": model.columns,
        "report": model.report,
        "layers": [describe_layer(layer) for layer in network.layers],
        "hidden": network.classifier.hidden,
        "shape": list(network.shape),
    }
    arrays: Arrays = {}
    if network.lookup is not None:
        ids = np.flatnonzero(network.lookup > 1).astype(np.int32)
        encoded = [text.encode() for text in model.texts]
        arrays["tokens.ids"] = ids
        arrays["tokens.text"] = np.frombuffer(b"".join(encoded), np.uint8)
        arrays["tokens.text_ends"] = np.cumsum([len(text) for text in encoded], dtype=np.int64)
    for number, layer in enumerate(network.layers):
        if layer.embedding is not None:
            arrays[f"layers.{number}.embedding"] = layer.embedding
        if layer.projection is not None:
            arrays[f"layers.{number}.projection"] = layer.projection
        for part, held in (("", layer), ("readout.", layer.readout)):
            for group, (weights, bias) in enumerate(zip(held.weights, held.biases, strict=True) if held else ()):
                arrays[f"layers.{number}.{part}weights.{group}"] = weights
                arrays[f"layers.{number}.{part}bias.{group}"] = bias
    arrays |= {f"classifier.{name}": value for name, value in network.classifier.parameters.items()}
    arrays |= {"classifier.mean": network.classifier.mean, "classifier.variance": network.classifier.variance}
    narrow(arrays, network.classifier.runs)
    for group, (windows, counts) in enumerate(zip(model.windows, model.window_counts, strict=True)):
        arrays[f"windows.{group}"], arrays[f"window_counts.{group}"] = windows, counts
    contiguous = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    return safetensors.numpy.save(contiguous, {_KEY: json.dumps(description, sort_keys=True)})


def load(path: Path) -> Model:
    """Read a model file. Raises ModelError with one line if it is missing, damaged, foreign or too new."""
    description, arrays = read_tensors(path)
    try:
        return _from_parts(description, arrays)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, UsageError) as error:
        raise ModelError(f"{path} is damaged ({type(error).__name__}: {error}): restore it or train again") from error


def holds(path: Path, key: str) -> bool:
    """Whether a file can be read and has a description of ours under this key."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return key in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return False


def read_tensors(path: Path, key: str = _KEY) -> tuple[dict[str, Any], Arrays]:
    """The description and the arrays of a file of ours. Raises ModelError."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist: give the file that `seqbag train --out` wrote")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            description = json.loads((file.metadata() or {}).get(key, "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError, OSError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(f"{path} is not a model file ({error}): give a file that `seqbag train` wrote") from error
    if not isinstance(description, dict) or not isinstance(description.get("format"), int):
        raise ModelError(f"{path} is a safetensors file but not a seqbag model: give a file that `seqbag train` wrote")
    if description["format"] > FORMAT:
        raise ModelError(
            f"{path} has format {description['format']}, newer than the {FORMAT} this seqbag {__version__} reads: "
            "update seqbag"
        )
    layers = description.get("layers")
    if description["format"] < _MEANS and isinstance(layers, list) and any(map(_counts_signs, layers)):
        raise ModelError(
            f"{path} has format {description['format']}, in which signs were pooled otherwise: train it again"
        )
    return description, arrays


def _counts_signs(layer: Any) -> bool:
    regions = str(layer.get("regions")) if isinstance(layer, dict) else ""
    return regions.startswith("grid") and layer.get("activation") == "sign"


def describe_layer(layer: Layer) -> dict[str, Any]:
    """What is not a tensor, as JSON values."""
    patchers = layer.patchers
    return {
        "windows": [list(patcher.window) for patcher in patchers],
        "strides": [list(patcher.stride) for patcher in patchers],
        "padding": patchers[0].padding,
        "regions": str(layer.regions),
        "pooling": list(layer.pooling),
        "activation": layer.activation,
        "channel_groups": layer.channel_groups,
        "readout": 0 if layer.readout is None else layer.readout.channels,
    }


def _from_parts(description: dict[str, Any], arrays: Arrays) -> Model:
    config = TrainConfig.from_json(description["config"])
    classes = tuple(str(name) for name in description["classes"])
    lookup, texts = _tokens(arrays, config.vocabulary)
    shape = tuple(int(size) for size in description["shape"])
    network = Network(config, classes, lookup, shape=shape)
    inputs: int | None = shape[-1] if shape else None
    for number, values in enumerate(description["layers"]):
        layer = _layer(number, values, arrays, inputs)
        network.layers.append(layer)
        inputs = layer.outputs
    features = sum(layer.features(len(layer.patchers[0].window)) for layer in network.layers)
    network.classifier = _classifier(arrays, features, int(description["hidden"]), len(classes))
    first = network.layers[0]
    axes = {len(patcher.window) for layer in network.layers for patcher in layer.patchers}
    if len(axes) != 1 or (lookup is not None and axes != {1}):
        raise ValueError(f"the layers have windows of {axes} axes")
    if shape and (len(shape) != axes.pop() + 1 or not 1 <= min(shape) <= max(shape) < MOST_SITES):
        raise ValueError(f"images of the shape {shape} do not fit the layers")
    rows = len(texts) + 2  # of the embedding: padding, tokens not seen in training, and the tokens
    if first.embedding is not None and (lookup is None or len(first.embedding) != rows):
        raise ValueError("the embedding does not fit the tokens")
    groups = range(len(first.patchers)) if "windows.0" in arrays else range(0)
    windows = [checked(arrays, f"windows.{group}", np.int32, 2) for group in groups]
    counts = [checked(arrays, f"window_counts.{group}", np.int64, 1) for group in groups]
    if any(part.size and not 0 <= part.min() <= part.max() < rows for part in windows):
        raise ValueError("the windows name tokens that do not exist")
    if any(part.shape != (len(n), p.window[0]) for part, n, p in zip(windows, counts, first.patchers, strict=False)):
        raise ValueError("the windows do not fit their counts")
    columns = dict(description["columns"])
    if columns["kind"] not in ("text", "tokens", "image") or not isinstance(columns["input"], str):
        raise ValueError(f"the columns are {columns}")
    return Model(network, columns, dict(description["report"]), texts, windows, counts)


def _tokens(arrays: Arrays, vocabulary: int) -> tuple[Int32s | None, list[str]]:
    if "tokens.ids" not in arrays:
        return None, []
    ids, ends = checked(arrays, "tokens.ids", np.int32, 1), checked(arrays, "tokens.text_ends", np.int64, 1)
    data = checked(arrays, "tokens.text", np.uint8, 1).tobytes()
    starts = np.concatenate([[0], ends])
    if len(ids) and (np.any(np.diff(ids) <= 0) or ids[0] < 1 or ids[-1] >= vocabulary):
        raise ValueError("the token ids are out of range")
    if len(ends) != len(ids) or np.any(np.diff(starts) < 0) or starts[-1] != len(data):
        raise ValueError("the token texts do not fit the tokens")
    lookup = np.full(vocabulary, 1, np.int32)
    lookup[0] = 0
    lookup[ids] = np.arange(2, 2 + len(ids), dtype=np.int32)
    texts = [data[a:b].decode("utf-8", "replace") for a, b in pairwise(starts)]
    return lookup, texts


def _layer(number: int, values: dict[str, Any], arrays: Arrays, inputs: int | None) -> Layer:
    patchers = tuple(
        Patcher(tuple(map(int, window)), tuple(map(int, stride)), values["padding"])
        for window, stride in zip(values["windows"], values["strides"], strict=True)
    )
    embedding = checked(arrays, f"layers.{number}.embedding", np.float32, 2) if inputs is None else None
    channels = inputs if embedding is None else embedding.shape[1]
    groups, weights, biases = read_channel_groups(number, values, inputs), list[Float32s](), list[Float32s]()
    for group, patcher in enumerate(patchers):
        read = len(range(int(channels or 0))[channels_read(group, groups)])
        weights.append(checked(arrays, f"layers.{number}.weights.{group}", np.float32, 2))
        if len(weights[-1]) != int(np.prod(patcher.window)) * read:
            raise ValueError(f"the weights of layer {number + 1} do not fit its windows")
        name, signs = f"layers.{number}.bias.{group}", values["activation"] == "sign"
        biases.append(read_biases(arrays, name, np.float32, weights[-1].shape[1], signs))
    check_signs(number, biases)
    regions = Regions.parse(str(values["regions"]))
    if values["activation"] not in ACTIVATIONS:
        raise ValueError(f"the activation of layer {number + 1} is {values['activation']!r}")
    if not _fit(patchers) or (len(patchers[0].window) == 1 and regions.kind == "grid"):
        raise ValueError(f"the windows and regions of layer {number + 1} do not fit each other")
    pooling = tuple(int(size) for size in values["pooling"])
    if pooling and (len(pooling) != len(patchers[0].window) or not 1 <= min(pooling) <= max(pooling) < MOST_SITES):
        raise ValueError(f"the pooling of layer {number + 1} does not fit its windows")
    projection = read_projection(arrays, number, channels := sum(block.shape[1] for block in weights))
    readout = None
    if width := read_width(number, values, inputs):
        name = f"layers.{number}.readout"
        held = checked(arrays, f"{name}.weights.0", np.float32, 2, (channels, width))
        bias = read_biases(arrays, f"{name}.bias.0", np.float32, width, values["activation"] == "sign")
        readout = layer_of_readout(held, bias, values["activation"], regions, len(patchers[0].window))
    how = values["activation"], regions, embedding, pooling, projection, groups, readout
    return Layer(patchers, tuple(weights), tuple(biases), *how)


def _fit(patchers: tuple[Patcher, ...]) -> bool:
    """Whether the groups of a layer give the same output sites, and strides are ones that indexes can count."""
    strides, windows = {patcher.stride for patcher in patchers}, {patcher.window for patcher in patchers}
    same_sites = len(strides) == 1 and (len(windows) == 1 or patchers[0].padding != "valid")
    return same_sites and max(strides.pop()) < MOST_SITES


def _classifier(arrays: Arrays, features: int, hidden: int, classes: int) -> Classifier:
    shapes: dict[str, tuple[int, ...]] = {"mean": (features,), "variance": (features,), "out_bias": (classes,)}
    shapes["out"] = (hidden or features, classes)
    if hidden:
        shapes |= {"hidden_bias": (hidden,)}
    values = {n: checked(arrays, f"classifier.{n}", np.float32, len(shape), shape) for n, shape in shapes.items()}
    if (values["variance"] < 0).any():
        raise ValueError("classifier.variance is negative")
    classifier = Classifier(features, hidden, classes, np.random.default_rng(0))
    if hidden:
        widen(arrays, classifier)
        values["hidden"] = checked(arrays, "classifier.hidden", np.float32, 2, (features, hidden))
    for name, parameter in classifier.parameters.items():
        parameter[...] = values[name]
    classifier.standardise(values["mean"], values["variance"])
    return classifier
