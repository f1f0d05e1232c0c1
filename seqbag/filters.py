"""The trainable filters of a layer: a convolution applied to windows of token ids or of vectors.

Both kinds keep their parameters in `parameters`, give `forward` the windows of a batch, and turn the gradient of the
result into gradients of the parameters. With `quantise`, embeddings are signs and filters ternary in the forward pass
while the gradient goes straight through to the float parameters behind them (Hubara et al. 2016, arXiv 1602.02830;
Li et al. 2016, arXiv 1605.04711), so that what is learned survives the export.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s, Int32s, Int64s
from seqbag.kernels.filters import (
    RELU,
    SIGN,
    add_bias,
    add_named_rows,
    add_rows,
    column_sums,
    count_signs,
    number_tokens,
    scatter_rows,
)

Parameters = dict[str, Float32s]


@dataclass
class Gradients:
    """Gradients by parameter name; `rows` names the rows of the embedding that its gradient speaks of."""

    values: Parameters = field(default_factory=dict)
    rows: dict[str, Int64s] = field(default_factory=dict)

    def add(self, name: str, value: Float32s, rows: Int64s | None = None) -> None:
        """Add value to a parameter's gradient; rows (rising): those that it speaks of, None for all."""
        if name not in self.values:
            self.values[name] = value
            if rows is not None:
                self.rows[name] = rows
        elif rows is not None:
            self.rows[name], self.values[name] = add_named_rows(self.rows[name], self.values[name], rows, value)
        else:
            self.values[name] += value

    @classmethod
    def sum(cls, parts: Sequence[Gradients], name: str) -> Gradients:
        """The sum of parts, in their order, of one parameter. The parts are used up."""
        total = cls()
        for part in parts:
            if name in part.values:
                total.add(name, part.values[name], part.rows.get(name))
        return total


class Filters(Protocol):
    """What the head needs of a layer's filters. Group g is one window width."""

    parameters: Parameters
    quantise: bool

    def prepare(self, windows: list[npt.NDArray[Any]]) -> Any:
        """What the two below take: all that can be made of a batch's windows (u, ...) of each group beforehand."""

    def forward(self, prepared: Any, relu: bool) -> list[Float32s]:
        """Of each group (u, filters) values before the activation, or after it if that is a relu."""

    def backward(self, prepared: Any, gradients: list[Float32s], into: Gradients) -> None:
        """Add to `into` the gradients of the parameters, from those (u, filters) of what `forward` gave."""

    def frozen(self, group: int) -> tuple[Float32s, Float32s]:
        """Weights (inputs, filters) and bias (filters,) that act on the layer's input as it is."""


def activations(filters: Filters, prepared: Any, activation: int, signs: int = 1) -> list[tuple[Float32s, Float32s]]:
    """Of each group (u, filters) values before and after the activation; of a relu, twice those after, which do.

    signs: of each filter, if that is the activation: the share of those that are on comes after it.
    """
    values = filters.forward(prepared, activation == RELU)
    if activation == RELU:
        return [(after, after) for after in values]
    pairs = [(before, before.copy()) for before in values]
    for _, after in pairs:
        if activation == SIGN:
            count_signs(after, np.atleast_2d(sign_biases(np.zeros(after.shape[1], np.float32), signs)))
        else:
            np.tanh(after, out=after)
    return pairs


def sign_biases(bias: Float32s, signs: int) -> Float32s:
    """The bias (F,) of each sign of filters with this one, (F,) of a single sign and (signs, F) of several.

    Together they round what is cut to -1 .. 1 to the nearest of signs + 1 levels, evenly apart (as activations of few
    bits are in Zhou et al. 2016, arXiv 1606.06160).
    """
    if signs == 1:
        return bias
    thresholds = (2 * np.arange(signs, dtype=np.float32) + 1) / np.float32(signs) - np.float32(1)
    return bias - thresholds[:, None]


class TokenFilters:
    """Filters over windows of tokens, through one embedding for all groups.

    parameters: embedding (tokens, dims), rows 0 (padding) and 1 (any token not seen in training) always zero; filters.g
    (width * dims, F); bias.g (F,).
    Token by token a filter is a table look-up, so each window costs `width` additions a filter, not width * dims.
    """

    def __init__(
        self, tokens: int, dims: int, widths: tuple[int, ...], filters: int, rng: np.random.Generator,
        quantise: bool = False,
    ) -> None:  # fmt: skip
        self.dims, self.widths, self.quantise = dims, widths, quantise
        self._filters = filters
        self._first = np.cumsum([0, *widths[:-1]]).tolist()  # of the places of each group's windows among all
        self.parameters: Parameters = {"embedding": rng.standard_normal((tokens, dims), np.float32)}
        self.parameters["embedding"][:2] = 0
        for group, width in enumerate(widths):
            self.parameters[f"filters.{group}"] = rng.standard_normal((width * dims, filters), np.float32)
            self.parameters[f"filters.{group}"] /= np.float32(np.sqrt(width * dims))
            self.parameters[f"bias.{group}"] = np.zeros(filters, np.float32)

    def prepare(self, windows: list[npt.NDArray[Any]]) -> tuple[Int64s, list[Int32s]]:
        """The distinct tokens of all windows, rising, and the windows in numbers of those."""
        flat = np.concatenate([own.reshape(-1) for own in windows])
        rows, numbered = number_tokens(flat, len(self.parameters["embedding"]))
        ends = accumulate(own.size for own in windows)
        return rows, [numbered[end - own.size : end].reshape(own.shape) for end, own in zip(ends, windows, strict=True)]

    def forward(self, prepared: tuple[Int64s, list[Int32s]], relu: bool) -> list[Float32s]:
        rows, windows = prepared
        tables = (self.embedding(rows) @ self._places()).reshape(len(rows), sum(self.widths), self._filters)
        values = []
        for group, (own, place) in enumerate(zip(windows, self._first, strict=True)):
            bias = self.parameters[f"bias.{group}"]
            values.append(np.empty((len(own), len(bias)), np.float32))
            add_rows(tables, own, bias, relu, place, 0, values[-1])
        return values

    def backward(self, prepared: tuple[Int64s, list[Int32s]], gradients: list[Float32s], into: Gradients) -> None:
        rows, windows = prepared
        filters, places = self._filters, sum(self.widths)
        tables = np.zeros((len(rows), places, filters), np.float32)
        for own, place, gradient in zip(windows, self._first, gradients, strict=True):
            scatter_rows(gradient, own, place, tables)
        flat = tables.reshape(len(rows), places * filters)
        blocks = (self.embedding(rows).T @ flat).reshape(self.dims, places, filters).transpose(1, 0, 2)
        for group, (width, place) in enumerate(zip(self.widths, self._first, strict=True)):
            into.values[f"filters.{group}"] = blocks[place : place + width].reshape(width * self.dims, filters)
            # In the table of a window's first place, each window's gradient is once.
            into.values[f"bias.{group}"] = column_sums(flat, place * filters, filters)
        change = flat @ self._places().T
        change[: np.searchsorted(rows, 2)] = 0
        into.add("embedding", change, rows)

    def frozen(self, group: int) -> tuple[Float32s, Float32s]:
        return self.weights(group), self.parameters[f"bias.{group}"]

    def embedding(self, rows: Int64s) -> Float32s:
        """(rows, dims) as the forward pass uses them."""
        values = self.parameters["embedding"].take(rows, 0)
        return np.sign(values) if self.quantise else values

    def weights(self, group: int) -> Float32s:
        """(width * dims, F) as the forward pass uses them."""
        values = self.parameters[f"filters.{group}"]
        return ternary(values) if self.quantise else values

    def _places(self) -> Float32s:
        """(dims, places * F): the filters of all groups, place by place of their windows."""
        groups = [places_aside(self.weights(group), width) for group, width in enumerate(self.widths)]
        return np.concatenate(groups, axis=1)


@dataclass(frozen=True)
class Standardiser:
    """What vectors are standardised by: (x - mean) * scale. mean, scale: (d,) float32."""

    mean: Float32s
    scale: Float32s

    @staticmethod
    def of(rows: Float32s, counts: npt.NDArray[np.int64]) -> Standardiser:
        """From rows (k, d) that stand for counts (k,) vectors each."""
        weights = counts / max(int(counts.sum()), 1)
        mean = weights @ rows.astype(np.float64)
        variance = weights @ np.square(rows - mean)
        scale = 1 / np.sqrt(variance + 1e-3 * variance.mean() + 1e-9)
        return Standardiser(mean.astype(np.float32), scale.astype(np.float32))

    def alike(self) -> Standardiser:
        """One that scales all inputs by one number, so that those that vary more still do."""
        return Standardiser(self.mean, np.full_like(self.scale, 1 / np.sqrt(np.mean(self.scale**-2))))

    @staticmethod
    def none(size: int) -> Standardiser:
        """Leaves vectors as they are."""
        return Standardiser(np.zeros(size, np.float32), np.ones(size, np.float32))

    def __call__(self, rows: Float32s) -> Float32s:
        return (rows - self.mean) * self.scale


class VectorFilters:
    """Filters over windows of vectors, standardised by the mean and spread of each input.

    parameters: filters.g (window * channels, F); bias.g (F,), behind a prefix. inputs: per group what is known of its
    windows.
    """

    def __init__(
        self, inputs: list[Standardiser], filters: int, rng: np.random.Generator, quantise: bool = False,
        prefix: str = "",
    ) -> None:  # fmt: skip
        self.inputs, self.quantise, self._prefix = inputs, quantise, prefix
        self.parameters: Parameters = {}
        for group, standardiser in enumerate(inputs):
            size = len(standardiser.mean)
            self.parameters[self._filters(group)] = rng.standard_normal((size, filters), np.float32)
            self.parameters[self._filters(group)] /= np.float32(np.sqrt(size))
            self.parameters[self._bias(group)] = np.zeros(filters, np.float32)

    def prepare(self, windows: list[npt.NDArray[Any]]) -> list[Float32s]:
        return [own.astype(np.float32, copy=False) for own in windows]

    def forward(self, prepared: list[Float32s], relu: bool) -> list[Float32s]:
        values = []
        for group, windows in enumerate(prepared):
            values.append(windows @ self.weights(group))
            add_bias(values[-1], self.parameters[self._bias(group)], relu)
        return values

    def backward(self, prepared: list[Float32s], gradients: list[Float32s], into: Gradients) -> None:
        for group, (windows, gradient) in enumerate(zip(prepared, gradients, strict=True)):
            into.values[self._filters(group)] = windows.T @ gradient
            into.values[self._bias(group)] = column_sums(gradient, 0, gradient.shape[1])

    def inputs_gradient(self, group: int, gradient: Float32s) -> Float32s:
        """(m, window * channels) the gradient of a group's windows, from that (m, F) of what `forward` gave."""
        slopes: Float32s = gradient @ self.weights(group).T
        return slopes

    def frozen(self, group: int) -> tuple[Float32s, Float32s]:
        standardiser = self.inputs[group]
        weights = self.weights(group) * standardiser.scale[:, None]
        return weights, self.parameters[self._bias(group)] - standardiser.mean @ weights

    @property
    def sizes(self) -> list[int]:
        """Filters of each group."""
        return [len(self.parameters[self._bias(group)]) for group in range(len(self.inputs))]

    def load(self, weights: tuple[Float32s, ...], biases: tuple[Float32s, ...]) -> None:
        """Start from frozen filters, as `frozen` gives them, whatever inputs they were trained with."""
        for group, standardiser in enumerate(self.inputs):
            self.parameters[self._filters(group)] = weights[group] / standardiser.scale[:, None]
            self.parameters[self._bias(group)] = biases[group] + standardiser.mean @ weights[group]

    def weights(self, group: int) -> Float32s:
        """(window * channels, F) as the forward pass uses them."""
        values = self.parameters[self._filters(group)]
        return ternary(values) if self.quantise else values

    def settled(self) -> VectorFilters:
        """The same filters with weights as the forward pass uses them, worked out once for several passes."""
        if not self.quantise:
            return self
        made = copy.copy(self)
        made.parameters = {**self.parameters, **{self._filters(g): self.weights(g) for g in range(len(self.inputs))}}
        made.quantise = False
        return made

    def _filters(self, group: int) -> str:
        return f"{self._prefix}filters.{group}"

    def _bias(self, group: int) -> str:
        return f"{self._prefix}bias.{group}"


def token_tables(embedding: Float32s, weights: Float32s, width: int) -> Float32s:
    """(tokens, width, F): an embedding (tokens, dims) times filters (width * dims, F), place by place of the window."""
    product: Float32s = embedding @ places_aside(weights, width)
    return product.reshape(len(embedding), width, weights.shape[1])


def places_aside(weights: Float32s, width: int) -> Float32s:
    """Filters (width * dims, F) as (dims, width * F), the places of the window side by side."""
    dims, filters = len(weights) // width, weights.shape[1]
    return weights.reshape(width, dims, filters).transpose(1, 0, 2).reshape(dims, width * filters)


def ternary(weights: Float32s) -> Float32s:
    """The nearest -s, 0, +s in each column of weights (inputs, filters), after Li et al. 2016 (arXiv 1605.04711).

    Weights under 0.7 of the column's mean magnitude become 0, and s is the mean magnitude of the rest.
    """
    size = np.abs(weights)
    kept = size > np.float32(0.7) * size.mean(0)
    scale = (size * kept).sum(0) / np.maximum(kept.sum(0), 1)
    quantised: Float32s = (np.sign(weights) * kept * scale).astype(np.float32)
    return quantised
