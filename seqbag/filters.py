"""The trainable filters of a layer: a convolution applied to windows of token ids or of vectors.

Both kinds keep their parameters in `parameters`, give `forward` the windows of a batch, and turn the gradient of the
result into gradients of the parameters. With `quantise`, embeddings are signs and filters ternary in the forward pass
while the gradient goes straight through to the float parameters behind them (Hubara et al. 2016, arXiv 1602.02830;
Li et al. 2016, arXiv 1605.04711), so that what is learned survives the export.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s, Int32s
from seqbag.kernels.filters import add_rows, scatter_rows

Parameters = dict[str, Float32s]


@dataclass
class Gradients:
    """Gradients by parameter name; `rows` names the rows of the embedding that its gradient speaks of."""

    values: Parameters = field(default_factory=dict)
    rows: dict[str, npt.NDArray[np.intp]] = field(default_factory=dict)

    def add(self, name: str, value: Float32s, rows: npt.NDArray[np.intp] | None = None) -> None:
        """Add to the gradient of a parameter; rows (rising): those that it speaks of, None for all."""
        if name in self.values and rows is not None:
            place = np.zeros(max(self.rows[name][-1:].sum(), rows[-1:].sum()) + 1, np.intp)
            place[self.rows[name]] = place[rows] = 1
            both = np.flatnonzero(place)
            place[both] = np.arange(len(both))
            total = np.zeros((len(both), value.shape[1]), np.float32)
            total[place[self.rows[name]]] = self.values[name]
            total[place[rows]] += value
            self.values[name], self.rows[name] = total, both
        elif name in self.values:
            self.values[name] += value
        else:
            self.values[name] = value
            if rows is not None:
                self.rows[name] = rows

    @classmethod
    def sum(cls, parts: Sequence[Gradients], shares: Sequence[float], name: str) -> Gradients:
        """The sum of shares times parts, in their order, of one parameter. The parts are used up."""
        total = cls()
        for part, share in zip(parts, shares, strict=True):
            if name in part.values:
                value = part.values[name]
                total.add(name, value if share == 1 else value * np.float32(share), part.rows.get(name))
        return total


class Filters(Protocol):
    """What the head needs of a layer's filters. Group g is one window width."""

    parameters: Parameters

    def forward(self, group: int, windows: npt.NDArray[np.generic]) -> Float32s:
        """(u, ...) windows of group to (u, filters) values before the activation."""

    def backward(self, group: int, windows: npt.NDArray[np.generic], gradient: Float32s, into: Gradients) -> None:
        """Add to `into` the gradients of the parameters, from the gradient (u, filters) of what `forward` gave."""

    def frozen(self, group: int) -> tuple[Float32s, Float32s]:
        """Weights (inputs, filters) and bias (filters,) that act on the layer's input as it is."""


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
        self.parameters: Parameters = {"embedding": rng.standard_normal((tokens, dims), np.float32)}
        self.parameters["embedding"][:2] = 0
        for group, width in enumerate(widths):
            self.parameters[f"filters.{group}"] = rng.standard_normal((width * dims, filters), np.float32)
            self.parameters[f"filters.{group}"] /= np.float32(np.sqrt(width * dims))
            self.parameters[f"bias.{group}"] = np.zeros(filters, np.float32)

    def forward(self, group: int, windows: npt.NDArray[np.generic]) -> Float32s:
        rows, local = self._compact(windows)
        embedding, weights = self.embedding(rows), self.weights(group)
        tables = np.stack([embedding @ block for block in np.split(weights, self.widths[group])])  # (width, rows, F)
        bias = self.parameters[f"bias.{group}"]
        out = np.empty((len(windows), len(bias)), np.float32)
        add_rows(tables, local, bias, 0, out)
        return out

    def backward(self, group: int, windows: npt.NDArray[np.generic], gradient: Float32s, into: Gradients) -> None:
        rows, local = self._compact(windows)
        width = self.widths[group]
        tables = np.zeros((width, len(rows), gradient.shape[1]), np.float32)
        scatter_rows(gradient, local, tables)
        embedding, weights = self.embedding(rows), np.split(self.weights(group), width)
        into.values[f"filters.{group}"] = np.concatenate([embedding.T @ table for table in tables])
        into.values[f"bias.{group}"] = gradient.sum(0)
        change = np.zeros((len(rows), self.dims), np.float32)
        for table, block in zip(tables, weights, strict=True):
            change += table @ block.T
        change[rows < 2] = 0
        into.add("embedding", change, rows)

    def frozen(self, group: int) -> tuple[Float32s, Float32s]:
        return self.weights(group), self.parameters[f"bias.{group}"]

    def embedding(self, rows: npt.NDArray[np.intp]) -> Float32s:
        """(rows, dims) as the forward pass uses them."""
        values = self.parameters["embedding"][rows]
        return np.sign(values) if self.quantise else values

    def weights(self, group: int) -> Float32s:
        """(width * dims, F) as the forward pass uses them."""
        values = self.parameters[f"filters.{group}"]
        return ternary(values) if self.quantise else values

    def _compact(self, windows: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.intp], Int32s]:
        """The distinct tokens of the windows, and the windows in numbers of those."""
        tokens = np.zeros(len(self.parameters["embedding"]), np.bool_)
        tokens[windows] = True
        rows = np.flatnonzero(tokens)
        number = np.empty(len(tokens), np.int32)
        number[rows] = np.arange(len(rows), dtype=np.int32)
        return rows, number[windows]


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

    @staticmethod
    def none(size: int) -> Standardiser:
        """Leaves vectors as they are."""
        return Standardiser(np.zeros(size, np.float32), np.ones(size, np.float32))

    def __call__(self, rows: Float32s) -> Float32s:
        return (rows - self.mean) * self.scale


class VectorFilters:
    """Filters over windows of vectors, standardised by the mean and spread of each input.

    parameters: filters.g (window * channels, F); bias.g (F,). inputs: per group what is known of its windows.
    """

    def __init__(
        self, inputs: list[Standardiser], filters: int, rng: np.random.Generator, quantise: bool = False
    ) -> None:
        self.inputs, self.quantise = inputs, quantise
        self.parameters: Parameters = {}
        for group, standardiser in enumerate(inputs):
            size = len(standardiser.mean)
            self.parameters[f"filters.{group}"] = rng.standard_normal((size, filters), np.float32)
            self.parameters[f"filters.{group}"] /= np.float32(np.sqrt(size))
            self.parameters[f"bias.{group}"] = np.zeros(filters, np.float32)

    def forward(self, group: int, windows: npt.NDArray[np.generic]) -> Float32s:
        product: Float32s = windows.astype(np.float32, copy=False) @ self.weights(group)
        product += self.parameters[f"bias.{group}"]
        return product

    def backward(self, group: int, windows: npt.NDArray[np.generic], gradient: Float32s, into: Gradients) -> None:
        into.values[f"filters.{group}"] = windows.astype(np.float32, copy=False).T @ gradient
        into.values[f"bias.{group}"] = gradient.sum(0)

    def frozen(self, group: int) -> tuple[Float32s, Float32s]:
        standardiser = self.inputs[group]
        weights = self.weights(group) * standardiser.scale[:, None]
        return weights, self.parameters[f"bias.{group}"] - standardiser.mean @ weights

    @property
    def sizes(self) -> list[int]:
        """Filters of each group."""
        return [len(self.parameters[f"bias.{group}"]) for group in range(len(self.inputs))]

    def load(self, weights: tuple[Float32s, ...], biases: tuple[Float32s, ...]) -> None:
        """Start from frozen filters, as `frozen` gives them, whatever inputs they were trained with."""
        for group, standardiser in enumerate(self.inputs):
            self.parameters[f"filters.{group}"] = weights[group] / standardiser.scale[:, None]
            self.parameters[f"bias.{group}"] = biases[group] + standardiser.mean @ weights[group]

    def weights(self, group: int) -> Float32s:
        """(window * channels, F) as the forward pass uses them."""
        values = self.parameters[f"filters.{group}"]
        return ternary(values) if self.quantise else values


def ternary(weights: Float32s) -> Float32s:
    """The nearest -s, 0, +s in each column of weights (inputs, filters), after Li et al. 2016 (arXiv 1605.04711).

    Weights under 0.7 of the column's mean magnitude become 0, and s is the mean magnitude of the rest.
    """
    size = np.abs(weights)
    kept = size > np.float32(0.7) * size.mean(0)
    scale = (size * kept).sum(0) / np.maximum(kept.sum(0), 1)
    quantised: Float32s = (np.sign(weights) * kept * scale).astype(np.float32)
    return quantised
