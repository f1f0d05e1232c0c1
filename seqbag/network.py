"""A trained net: token embedding, frozen layers, and the classifier over the pooled features of all layers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from seqbag.bags import Halves
from seqbag.batch import Float32s, ImageColumn, Int32s, TextColumn, TokensColumn
from seqbag.classifier import Classifier, softmax
from seqbag.config import TrainConfig
from seqbag.errors import DataError
from seqbag.features import pooled_features, takes_means
from seqbag.layer import Layer, Maps, embed
from seqbag.tokens import Encoder

_LARGEST = float(np.finfo(np.float16).max)
PADDING, UNKNOWN = 0, 1  # embedding rows: of no token, and of tokens not seen in training
_SITES = 4096  # sites that go through the layers at once, so that their activations stay in the cache


@dataclass
class Network:
    """Layers and what is around them.

    lookup: (vocabulary,) int32, the embedding row of each hashed token id: 0 padding, 1 any token not seen in training;
    None for images. classes: the labels' text, sorted. shape: of an image, its channels last; () if unknown.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    lookup: Int32s | None
    layers: list[Layer] = field(default_factory=list)
    classifier: Classifier | None = None
    shape: tuple[int, ...] = ()

    def encode(self, column: TextColumn | TokensColumn | ImageColumn) -> Maps:
        """Rows as a source yields them to the first layer's input."""
        if isinstance(column, ImageColumn):
            if self.lookup is not None:
                raise DataError("the model was trained on sequences and the source holds images: name another column")
            if self.shape and column.pixels.shape[1:] != self.shape:
                sizes = ["x".join(map(str, shape)) for shape in (column.pixels.shape[1:], self.shape)]
                raise DataError(
                    f"the images are {sizes[0]} and the model was trained on {sizes[1]}: give images of that shape"
                )
            grid = column.pixels.shape[1:-1]
            sites = int(np.prod(grid))
            offsets = np.arange(len(column) + 1, dtype=np.int64) * sites
            return Maps(column.pixels.reshape(-1, column.pixels.shape[-1]), offsets, grid)
        if self.lookup is None:
            raise DataError("the model was trained on images and the source holds text: name an image column")
        ids, offsets = Encoder(self.config.tokenizer, self.config.vocabulary).encode(column)
        read = Maps(ids, offsets).last(self.config.last)
        return Maps(embed(read.values.astype(np.int32, copy=False), self.lookup), read.offsets)

    @property
    def depth(self) -> int:
        """How many layers were trained: those that pool features."""
        return sum(layer.regions.kind != "none" for layer in self.layers)

    def widths(self) -> list[int]:
        """Pooled features of each layer that was trained."""
        axes = max(1, len(self.shape) - 1)
        return [layer.features(axes) for layer in self.layers if layer.regions.kind != "none"]

    def output_grid(self) -> tuple[int, ...]:
        """The grid of the newest layer's output, for images."""
        grid = self.shape[:-1]
        for layer in self.layers:
            grid = layer.patchers[0].out_shape(grid)
            grid = tuple(size // by for size, by in zip(grid, layer.pooling or (1,) * len(grid), strict=True))
        return grid

    def features(self, maps: Maps) -> Float32s:
        """Pooled features (n, d) float32 of all layers, to half precision, as the bags hold them in training."""
        return self.halves(maps).astype(np.float32)

    def halves(self, maps: Maps, first: int = 0) -> Halves:
        """Pooled features (n, d) float16 of the layers from `first` on, whose input maps are."""
        parts = [self._features(part, first)[0] for _, part in maps.parts(_SITES)]
        if not parts:
            return np.empty((0, sum(layer.features(maps.axes) for layer in self.layers[first:])), np.float16)
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def forward(self, maps: Maps, first: int = 0) -> tuple[Halves, Maps]:
        """Pooled features of the layers from `first` on, whose input maps are; and the input of a next layer."""
        pieces = [self._features(part, first) for _, part in maps.parts(_SITES)] or [self._features(maps, first)]
        features, outputs = [piece[0] for piece in pieces], [piece[1] for piece in pieces]
        lengths = np.concatenate([np.diff(output.offsets) for output in outputs])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return np.concatenate(features), Maps(np.concatenate([o.values for o in outputs]), offsets, outputs[0].grid)

    def logits(self, column: TextColumn | TokensColumn | ImageColumn) -> Float32s:
        """(n, classes) float32."""
        return self.logits_of(self.encode(column))

    def logits_of(self, maps: Maps) -> Float32s:
        """(n, classes) float32 of rows that are encoded."""
        assert self.classifier is not None
        return self.classifier.logits(self.features(maps))

    def probabilities(self, column: TextColumn | TokensColumn | ImageColumn) -> Float32s:
        """(n, classes) float32, rows sum to 1."""
        return softmax(self.logits(column))

    def _features(self, maps: Maps, first: int = 0) -> tuple[Halves, Maps]:
        features = [np.empty((len(maps), 0), np.float32)]
        for layer in self.layers[first:]:
            activations = layer.forward(maps)
            if layer.regions.kind != "none":
                features.append(pooled_features(*layer.pool(activations), takes_means(layer.regions)))
            maps = layer.next_input(activations)
        # Of inputs unlike any that were trained on, means may pass what a half can hold: infinite, they made NaN.
        for part in features:
            np.clip(part, -_LARGEST, _LARGEST, out=part)
        return np.concatenate(features, axis=1, dtype=np.float16, casting="same_kind"), maps
