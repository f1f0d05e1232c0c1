"""The maps that a layer is polished on, kept as bytes, or as bits of signs, in each view (see `augment`).

They serve twice: for the polish, and, once the layer is frozen, to make the next layer's maps from. As those are made,
these are given back to the system, so that no more is kept than the larger of the two takes.
"""

from __future__ import annotations

import contextlib
import mmap
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

        below: a full cache of the layer below that this one is to be filled from, row by row. Its features are shared,
        if it has as many views.
        """
        self.views, self.grid, self.scale = views, grid, scale
        self.rows = 0
        self._scales = list(features)
        self._features: list[Int8s] = list(below._features) if below is not None and below.views == views else []
        self._features += [np.empty((rows * views, len(own)), np.int8) for own in features[len(self._features) :]]
        size = rows * views * prod(grid) * scale.site_bytes
        self._map, self._forgotten = _mapped(size), 0
        self._room: Int8s = np.frombuffer(self._map, np.int8, size).reshape(-1, prod(grid), scale.site_bytes)
        self._labels = np.empty(rows, np.int32)
        self._held = np.zeros(rows, np.bool_)

    @staticmethod
    def bytes_needed(rows: int, views: int, grid: tuple[int, ...], scale: MapScale, widths: Sequence[int] = ()) -> int:
        """Memory that a cache takes once it is full."""
        return rows * views * (prod(grid) * scale.site_bytes + sum(widths))

    @property
    def channels(self) -> int:
        return len(self.scale)

    @property
    def codes(self) -> Int8s:
        return self._room[: self.rows * self.views]

    @property
    def labels(self) -> Int32s:
        return self._labels[: self.rows]

    @property
    def held(self) -> npt.NDArray[np.bool_]:
        return self._held[: self.rows]

    @property
    def nbytes(self) -> int:
        """Memory that it takes once it is full."""
        return self._room.nbytes + sum(own.nbytes for own in self._features)

    def update(self, part: Forwarded) -> None:
        """Add examples: their maps, or codes of those, and, if there is room for any, features in each view."""
        edges = np.cumsum([0, *map(len, self._scales)])
        stop = self.rows + len(part.labels)
        for view, (features, maps) in enumerate(part.views):
            own = slice(self.rows * self.views + view, stop * self.views, self.views)
            for start, block, scale in zip(edges, self._features, self._scales, strict=False):
                block[own] = scale.encode(features[:, start : start + len(scale)])
            codes = maps.values if maps.values.dtype == np.int8 else self.scale.encode(maps.values)
            self._room[own] = codes.reshape(len(part.labels), *self._room.shape[1:])
        self._labels[self.rows : stop], self._held[self.rows : stop] = part.labels, part.held
        self.rows = stop

    def forget(self, examples: int) -> None:
        """Give back the memory of the maps of the first examples, which nobody reads any more; features are kept."""
        stop = examples * self.views * prod(self._room.shape[1:]) // mmap.PAGESIZE * mmap.PAGESIZE
        if stop > self._forgotten:
            self._map.madvise(mmap.MADV_DONTNEED, self._forgotten, stop - self._forgotten)
            self._forgotten = stop

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


def _mapped(size: int) -> mmap.mmap:
    """Memory of its own, which can be given back in parts, in pages as large as numpy asks for."""
    room = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel may be built without
            room.madvise(mmap.MADV_HUGEPAGE)
    return room
