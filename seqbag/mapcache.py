"""The maps that a layer is polished on, kept as bytes, or as bits of signs, in each view (see `augment`).

They serve twice: for the polish, and, once the layer is frozen, to make the next layer's maps from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
import numpy.typing as npt

from seqbag.bags import Halves
from seqbag.batch import Int32s
from seqbag.bytescale import ByteScale, Int8s
from seqbag.layer import Maps
from seqbag.levels import Levels
from seqbag.passes import Forwarded

MapScale = ByteScale | Levels


class MapCache:
    """Maps of `rows` examples on one grid, with labels, which of them are held out, and features of layers below.

    codes: (rows * views, sites, scale.site_bytes) int8, at `scale`; view v of example e is at e * views + v. Room is
    made at once and touched as it is filled.
    """

    def __init__(
        self, rows: int, views: int, grid: tuple[int, ...], scale: MapScale, features: Sequence[ByteScale] = (),
        below: MapCache | None = None,
    ) -> None:  # fmt: skip
        """scale: of the maps' channels; features: of those of each layer below, that are kept too.

        below: a full cache of the layer below that this one is to be filled from, row by row, in as many views. Its
        features are shared, and its maps written over if these are no larger.
        """
        self.views, self.grid, self.scale = views, grid, scale
        self.rows = 0
        self._scales = list(features)
        self._features: list[Int8s] = [] if below is None else list(below._features)
        self._features += [np.empty((rows * views, len(own)), np.int8) for own in features[len(self._features) :]]
        self._size = rows * views * prod(grid) * scale.site_bytes
        self._room: Int8s = (
            below._room if below is not None and not below.beside(self._size) else np.empty(self._size, np.int8)
        )
        self._labels = np.empty(rows, np.int32)
        self._held = np.zeros(rows, np.bool_)

    @staticmethod
    def bytes_needed(rows: int, views: int, grid: tuple[int, ...], scale: MapScale, widths: Sequence[int] = ()) -> int:
        """Memory that a cache takes once it is full."""
        return rows * views * (prod(grid) * scale.site_bytes + sum(widths))

    def beside(self, size: int) -> int:
        """Memory that this one's maps take beside the cache of the layer above, whose maps take `size` bytes."""
        return 0 if size <= len(self._room) else len(self._room)

    @property
    def channels(self) -> int:
        return len(self.scale)

    @property
    def codes(self) -> Int8s:
        return self._room[: self._size].reshape(-1, prod(self.grid), self.scale.site_bytes)[: self.rows * self.views]

    @property
    def labels(self) -> Int32s:
        return self._labels[: self.rows]

    @property
    def held(self) -> npt.NDArray[np.bool_]:
        return self._held[: self.rows]

    @property
    def nbytes(self) -> int:
        """Memory that it takes once it is full."""
        return len(self._room) + sum(own.nbytes for own in self._features)

    def update(self, part: Forwarded) -> None:
        """Add examples: their maps, or codes of those, and, if there is room for any, features in each view."""
        edges = np.cumsum([0, *map(len, self._scales)])
        stop = self.rows + len(part.labels)
        every = self._room[: self._size].reshape(-1, prod(self.grid), self.scale.site_bytes)
        for view, (features, maps) in enumerate(part.views):
            own = slice(self.rows * self.views + view, stop * self.views, self.views)
            for start, block, scale in zip(edges, self._features, self._scales, strict=False):
                block[own] = scale.encode(features[:, start : start + len(scale)])
            codes = maps.values if maps.values.dtype == np.int8 else self.scale.encode(maps.values)
            every[own] = codes.reshape(len(part.labels), *every.shape[1:])
        self._labels[self.rows : stop], self._held[self.rows : stop] = part.labels, part.held
        self.rows = stop
        if stop == len(self._labels) and self._size < len(self._room):
            # What is left of a larger cache below, of which nothing is read any more, goes back to the system. (Other
            # names of the room may be about, those of maps that were read; none is used after this.)
            del every
            self._room.resize(self._size, refcheck=False)

    def features(self, examples: npt.NDArray[np.intp], view: int = 0) -> Halves:
        """(n, widths) float16 features of some examples in one view."""
        rows = examples * self.views + view
        parts = [
            scale.decode(block[rows]).astype(np.float16)
            for block, scale in zip(self._features, self._scales, strict=True)
        ]
        return np.concatenate(parts, axis=1)

    def coded(self, examples: npt.NDArray[np.intp], view: int = 0) -> Maps:
        """The maps of some examples in one view, as codes (n * sites, site_bytes) int8."""
        codes = self.codes[examples * self.views + view]
        offsets = np.arange(len(examples) + 1, dtype=np.int64) * codes.shape[1]
        return Maps(codes.reshape(-1, codes.shape[2]), offsets, self.grid)

    def maps(self, examples: npt.NDArray[np.intp], view: int = 0) -> Maps:
        """The maps of some examples in one view, in float32."""
        coded = self.coded(examples, view)
        return replace(coded, values=self.scale.decode(coded.values.view(np.int8)))
