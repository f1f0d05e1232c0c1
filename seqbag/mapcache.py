"""The maps that a layer is polished on, kept as float16, in each view (see `augment`).

They serve twice: for the polish, and, once the layer is frozen, to make the next layer's maps from.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seqbag.bags import Halves
from seqbag.batch import Int32s
from seqbag.layer import Maps
from seqbag.passes import Forwarded


class MapCache:
    """Maps of `rows` examples on one grid, with labels, which of them are held out, and features of layers below.

    halves: (rows * views, sites, channels), the bits of float16; view v of example e is at e * views + v. Room is made
    at once and touched as it is filled.
    """

    def __init__(
        self, rows: int, views: int, grid: tuple[int, ...], channels: int, widths: tuple[int, ...] = (),
        below: MapCache | None = None,
    ) -> None:  # fmt: skip
        """widths: of the features of each layer below, that are kept too.

        below: a full cache of the layer below that this one is to be filled from, row by row. Its features are shared,
        and its maps written over if these are as large.
        """
        self.views, self.grid, self.channels = views, grid, channels
        self.rows = 0
        self._features: list[Halves] = [] if below is None else list(below._features)
        self._features += [np.empty((rows * views, width), np.float16) for width in widths[len(self._features) :]]
        reused = below is not None and below._alike(grid, channels)
        shape = rows * views, int(np.prod(grid)), channels
        self._halves: npt.NDArray[np.uint16] = (
            below._halves if below is not None and reused else np.empty(shape, np.uint16)
        )
        self._labels = np.empty(rows, np.int32)
        self._held = np.zeros(rows, np.bool_)

    @staticmethod
    def bytes_needed(rows: int, views: int, grid: tuple[int, ...], channels: int, widths: tuple[int, ...] = ()) -> int:
        """Memory that a cache takes once it is full."""
        return 2 * rows * views * (int(np.prod(grid)) * channels + sum(widths))

    def beside(self, grid: tuple[int, ...], channels: int) -> int:
        """Memory that this one takes beside the cache of the layer above, of maps on `grid`."""
        return 0 if self._alike(grid, channels) else self._halves.nbytes

    def _alike(self, grid: tuple[int, ...], channels: int) -> bool:
        return self.grid == grid and self.channels == channels

    @property
    def halves(self) -> npt.NDArray[np.uint16]:
        return self._halves[: self.rows * self.views]

    @property
    def labels(self) -> Int32s:
        return self._labels[: self.rows]

    @property
    def held(self) -> npt.NDArray[np.bool_]:
        return self._held[: self.rows]

    @property
    def nbytes(self) -> int:
        """Memory that it takes once it is full."""
        return self._halves.nbytes + sum(own.nbytes for own in self._features)

    def update(self, part: Forwarded) -> None:
        """Add examples: their maps and, if there is room for any, features in each view."""
        edges = np.cumsum([0, *(own.shape[1] for own in self._features)])
        stop = self.rows + len(part.labels)
        for view, (features, maps) in enumerate(part.views):
            own = slice(self.rows * self.views + view, stop * self.views, self.views)
            for start, block in zip(edges, self._features, strict=False):
                block[own] = features[:, start : start + block.shape[1]]
            values = maps.values.reshape(len(part.labels), *self._halves.shape[1:]).astype(np.float16).view(np.uint16)
            self._halves[own] = values
        self._labels[self.rows : stop], self._held[self.rows : stop] = part.labels, part.held
        self.rows = stop

    def features(self, examples: npt.NDArray[np.intp], view: int = 0) -> Halves:
        """(n, widths) float16 features of some examples in one view."""
        rows = examples * self.views + view
        return np.concatenate([block[rows] for block in self._features], axis=1)

    def maps(self, examples: npt.NDArray[np.intp], view: int = 0) -> Maps:
        """The maps of some examples in one view, in float32."""
        values = self.halves[examples * self.views + view].view(np.float16).astype(np.float32)
        offsets = np.arange(len(examples) + 1, dtype=np.int64) * values.shape[1]
        return Maps(values.reshape(-1, self.channels), offsets, self.grid)
