"""A net as an ONNX graph, for onnxruntime and its like. Needs the extra `onnx`.

The graph starts behind the tokeniser, which ONNX cannot express. For text and token lists its inputs are

- `ids`: (n, longest) int64, the hashed ids of each row's tokens, filled up with 0;
- `lengths`: (n,) int64, how many they are;

which in Python takes

    ids, offsets = seqbag.tokens.Encoder(tokenizer, vocabulary).encode(column)
    lengths = numpy.diff(offsets)
    padded = numpy.zeros((len(lengths), lengths.max()), numpy.int64)
    padded[numpy.arange(padded.shape[1]) < lengths[:, None]] = ids

and elsewhere the hash described in `seqbag.tokens`. For images the input is `pixels`: (n, height, width, channels)
uint8. The output is `logits`: (n, classes) float32. Entry `seqbag` of the file's metadata is JSON: classes, tokenizer
and vocabulary.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from seqbag.errors import UsageError
from seqbag.features import takes_means

if TYPE_CHECKING:
    from seqbag.classifier import Classifier
    from seqbag.layer import Layer
    from seqbag.store import Model

OPSET = 21
_IR_VERSION = 10


def to_onnx(model: Model) -> bytes:
    """The graph, serialised. Raises UsageError for nets that it cannot hold, or without the extra."""
    try:
        import onnx
    except ImportError as error:
        raise UsageError('--format onnx needs the package onnx: pip install "seqbag[onnx]"') from error
    network = model.network
    assert network.classifier is not None
    _check(network.layers)
    graph = _Graph()
    if network.lookup is not None:
        inputs = [("ids", onnx.TensorProto.INT64, ["n", "length"]), ("lengths", onnx.TensorProto.INT64, ["n"])]
        features = _sequence(graph, network.lookup, network.layers, network.config.last)
    else:
        inputs = [("pixels", onnx.TensorProto.UINT8, ["n", "height", "width", "channels"])]
        features = _image(graph, network.layers)
    logits = _classify(graph, features, network.classifier)
    graph.nodes.append(onnx.helper.make_node("Identity", [logits], ["logits"]))
    made = onnx.helper.make_graph(
        graph.nodes,
        "seqbag",
        [onnx.helper.make_tensor_value_info(*value) for value in inputs],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", len(network.classes)])],
        graph.constants,
    )
    file = onnx.helper.make_model(
        made, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="seqbag"
    )
    config = network.config
    known = {"classes": network.classes, "tokenizer": config.tokenizer, "vocabulary": config.vocabulary}
    onnx.helper.set_model_props(file, {"seqbag": json.dumps({**known, "columns": model.columns})})
    onnx.checker.check_model(file, full_check=True)
    data: bytes = file.SerializeToString()
    return data


def _check(layers: list[Layer]) -> None:
    patchers = [patcher for layer in layers for patcher in layer.patchers]
    if any(set(patcher.stride) != {1} or patcher.padding == "valid" for patcher in patchers):
        raise UsageError("ONNX export knows stride 1 with padding same or causal: use --format seqbag")
    if any(len(patcher.window) > 2 for patcher in patchers):
        raise UsageError("ONNX export knows sequences and images, no volumes: use --format seqbag")


class _Graph:
    """Nodes and constants with numbered names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: npt.ArrayLike) -> str:
        import onnx

        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        import onnx

        name = f"t{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def number(self, value: int) -> str:
        return self.constant(np.array(value, np.int64))

    def to_float(self, name: str) -> str:
        return self.add("Cast", name, to=1)

    def halves(self, name: str) -> str:
        """To half precision and back, as a net's features are."""
        return self.to_float(self.add("Cast", name, to=10))

    def signed_logarithm(self, name: str, activation: str) -> str:
        one = self.constant(np.float32(1))
        if activation != "tanh":  # counts and relu sums have no sign
            return self.add("Log", self.add("Add", name, one))
        size = self.add("Log", self.add("Add", self.add("Abs", name), one))
        return self.add("Mul", self.add("Sign", name), size)


def _convolve(graph: _Graph, layer: Layer, values: str) -> str:
    """Activations (n, channels, ...) of input (n, inputs, ...)."""
    groups = []
    for group, (patcher, weights, bias) in enumerate(zip(layer.patchers, layer.weights, layer.biases, strict=True)):
        read = layer.read_by(group)
        kernel = np.moveaxis(weights.reshape(*patcher.window, -1, weights.shape[1]), (-1, -2), (0, 1))
        before = [patcher.before(axis) for axis in range(len(patcher.window))]
        after = [size - 1 - start for size, start in zip(patcher.window, before, strict=True)]
        own = values
        if layer.channel_groups > 1:
            ends = (graph.constant(np.array([n])) for n in (read.start, np.iinfo(np.int64).max, 1, read.step))
            own = graph.add("Slice", values, *ends)
        if layer.activation == "sign":
            sums = graph.add("Conv", own, graph.constant(kernel), pads=before + after)
            groups.append(_signs(graph, sums, np.atleast_2d(bias), len(patcher.window)))
        else:
            sums = graph.add("Conv", own, graph.constant(kernel), graph.constant(bias), pads=before + after)
            groups.append(graph.add("Relu" if layer.activation == "relu" else "Tanh", sums))
    return groups[0] if len(groups) == 1 else graph.add("Concat", *groups, axis=1)


def _signs(graph: _Graph, sums: str, biases: npt.NDArray[np.float32], axes: int) -> str:
    """The share of each filter's signs that are on. biases: (signs, filters)."""
    zero = graph.constant(np.float32(0))
    on = []
    for bias in biases:
        moved = graph.add("Add", sums, graph.constant(bias.reshape(-1, *(1,) * axes)))
        on.append(graph.to_float(graph.add("Greater", moved, zero)))
    return on[0] if len(on) == 1 else graph.add("Mean", *on)


def _next_input(graph: _Graph, layer: Layer, active: str) -> str:
    """Maps are pooled to means between layers, and projected; signs are -1 and +1 to the next, or means of them."""
    if layer.pooling:
        active = graph.add("AveragePool", active, kernel_shape=layer.pooling, strides=layer.pooling)
    if layer.projection is not None:
        axes = (1,) * len(layer.patchers[0].window)
        kernel = np.ascontiguousarray(layer.projection.T).reshape(*layer.projection.shape[::-1], *axes)
        return graph.add("Conv", active, graph.constant(kernel))
    return _as_inputs(graph, layer, active)


def _as_inputs(graph: _Graph, layer: Layer, active: str) -> str:
    """Signs as -1 and +1."""
    if layer.activation != "sign":
        return active
    twice = graph.add("Add", active, active)
    return graph.add("Sub", twice, graph.constant(np.float32(1)))


def _last(graph: _Graph, tokens: int) -> tuple[str, str]:
    """The last ids of each row, filled up with 0, and how many they are."""
    one, along = graph.constant(np.array([1])), graph.constant(np.array([0, 0, 0, 1]))
    filled = graph.add("Pad", "ids", along)  # by a 0 behind, which short rows are filled up with
    end = graph.add("Squeeze", graph.add("Shape", "ids", start=1, end=2), graph.constant(np.array([0])))
    first = graph.add("Max", graph.add("Sub", "lengths", graph.number(tokens)), graph.number(0))
    place = graph.add("Add", graph.add("Unsqueeze", first, one), graph.constant(np.arange(tokens)))
    ids = graph.add("GatherElements", filled, graph.add("Min", place, end), axis=1)
    return ids, graph.add("Min", "lengths", graph.number(tokens))


def _sequence(graph: _Graph, lookup: npt.NDArray[np.int32], layers: list[Layer], last: int | None) -> str:
    """Features (n, d) of ids and lengths. last: how many of a row's tokens are read, None for all."""
    ids, lengths = ("ids", "lengths") if last is None else _last(graph, last)
    rows = graph.add("Gather", graph.constant(lookup.astype(np.int32)), ids)
    assert layers[0].embedding is not None
    values = graph.add("Transpose", graph.add("Gather", graph.constant(layers[0].embedding), rows), perm=[0, 2, 1])
    length = graph.add("Squeeze", graph.add("Shape", ids, start=1, end=2), graph.constant(np.array([0])))
    place = graph.add("Range", graph.number(0), length, graph.number(1))
    column = graph.add("Unsqueeze", lengths, graph.constant(np.array([1])))  # (n, 1)
    inside = graph.add("Less", place, column)  # (n, length)
    mask = graph.to_float(graph.add("Unsqueeze", inside, graph.constant(np.array([1]))))
    features = []
    for layer in layers:
        active = graph.add("Mul", _convolve(graph, layer, values), mask)
        features += _pool_sequence(graph, layer, active, place, column)
        values = graph.add("Mul", _next_input(graph, layer, active), mask)
    return graph.halves(graph.add("Concat", *features, axis=1))


def _pool_sequence(graph: _Graph, layer: Layer, active: str, place: str, column: str) -> list[str]:
    """Features of each region, then of the regions' lengths."""
    sums, lengths = [], []
    along = graph.constant(np.array([2]))
    for size in (None, *layer.regions.sizes):
        part, span = active, column
        if size is not None:
            first = graph.add("Sub", column, graph.number(size))
            tail = graph.add("Unsqueeze", graph.add("GreaterOrEqual", place, first), graph.constant(np.array([1])))
            part = graph.add("Mul", active, graph.to_float(tail))
            span = graph.add("Min", column, graph.number(size))
        total = graph.add("ReduceSum", part, along, keepdims=0)
        sums.append(graph.signed_logarithm(total, layer.activation))
        lengths.append(graph.signed_logarithm(graph.to_float(span), "relu"))
    return sums + lengths


def _image(graph: _Graph, layers: list[Layer]) -> str:
    """Features (n, d) of pixels."""
    values = graph.add("Transpose", graph.to_float("pixels"), perm=[0, 3, 1, 2])
    features = []
    for layer in layers:
        active = _convolve(graph, layer, values)
        if layer.regions.kind != "none":
            features += _pool_image(graph, layer, active)
        values = _next_input(graph, layer, active)
    return graph.halves(graph.add("Concat", *features, axis=1))


def _pool_image(graph: _Graph, layer: Layer, active: str) -> list[str]:
    """Features of each cell of the grid, row by row, then of the cells' sizes."""
    if layer.readout is not None:
        return _pool_image(graph, layer.readout, _convolve(graph, layer.readout, _as_inputs(graph, layer, active)))
    sizes = [
        graph.add("Squeeze", graph.add("Shape", active, start=axis, end=axis + 1), graph.constant(np.array([0])))
        for axis in (2, 3)
    ]
    cells = layer.regions.sizes[0] if layer.regions.kind == "grid" else 1
    rows, columns = (_cells(graph, size, cells) for size in sizes)
    by_column = graph.add("Transpose", graph.add("MatMul", active, columns), perm=[0, 1, 3, 2])  # (n, c, cells, height)
    sums = graph.add("Transpose", graph.add("MatMul", by_column, rows), perm=[0, 3, 2, 1])  # (n, cells, cells, c)
    flat = graph.add("Reshape", sums, graph.constant(np.array([0, cells * cells * layer.channels])))
    area = graph.add("Div", graph.to_float(graph.add("Mul", *sizes)), graph.constant(np.float32(cells * cells)))
    rows_in_batch = graph.add("Shape", active, start=0, end=1)
    shape = graph.add("Concat", rows_in_batch, graph.constant(np.array([cells * cells])), axis=0)
    lengths = graph.add("Expand", graph.signed_logarithm(area, "relu"), shape)
    if takes_means(layer.regions):
        one = graph.constant(np.float32(1))
        return [graph.add("Div", flat, graph.add("Max", area, one)), lengths]
    return [graph.signed_logarithm(flat, layer.activation), lengths]


def _cells(graph: _Graph, size: str, cells: int) -> str:
    """(size, cells) float32, 1 where a site lies in a cell."""
    place = graph.add("Range", graph.number(0), size, graph.number(1))
    cell = graph.add("Div", graph.add("Mul", place, graph.number(cells)), size)
    names = graph.constant(np.arange(cells))
    return graph.to_float(graph.add("Equal", graph.add("Unsqueeze", cell, graph.constant(np.array([1]))), names))


def _classify(graph: _Graph, features: str, classifier: Classifier) -> str:
    normal = graph.add("Sub", features, graph.constant(classifier.mean))
    values = graph.add("Mul", normal, graph.constant(classifier.scale))
    parameters = classifier.parameters
    if classifier.hidden:
        parts = []
        for read, units in classifier.runs:
            weights, biases = parameters["hidden"][read, units], parameters["hidden_bias"][units]
            ends = (graph.constant(np.array([place])) for place in (read.start, read.stop, 1))
            own = graph.add("Slice", values, *ends) if len(classifier.runs) > 1 else values
            parts.append(graph.add("Gemm", own, graph.constant(weights), graph.constant(biases)))
        values = graph.add("Relu", graph.add("Concat", *parts, axis=1) if len(parts) > 1 else parts[0])
    return graph.add("Gemm", values, graph.constant(parameters["out"]), graph.constant(parameters["out_bias"]))
