"""The maps that a layer is polished on, kept as float16, in each view (see `augment`).

They serve twice: for the polish, and, once the layer is frozen, to make the next layer's maps from.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seqbag.batch import Int32s
from seqbag.layer import Maps
from seqbag.passes import Forwarded


class MapCache:
    """Maps of `rows` examples on one grid, with labels, which of them are held out, and features of layers below.

    halves: (rows * views, sites, channels), the bits of float16; view v of example e is at e * views + v. features:
    (rows * views, width) float16. Room is made at once and touched as it is filled.
    """

    def __init__(self, rows: int, views: int, grid: tuple[int, ...], channels: int, width: int = 0) -> None:
        self.views, self.grid, self.channels = views, grid, channels
        self.rows = 0
        self._halves = np.empty((rows * views, int(np.prod(grid)), channels), np.uint16)
        self.features = np.empty((rows * views, width), np.float16)
        self._labels = np.empty(rows, np.int32)
        self._held = np.zeros(rows, np.bool_)

    @staticmethod
    def bytes_needed(rows: int, views: int, grid: tuple[int, ...], channels: int) -> int:
        """Memory that a cache takes once it is full."""
        return 2 * rows * views * int(np.prod(grid)) * channels

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
        return self._halves.nbytes + self.features.nbytes

    def update(self, part: Forwarded) -> None:
        """Add examples: their maps and, if there is room for any, features in each view."""
        stop = self.rows + len(part.labels)
        for view, (features, maps) in enumerate(part.views):
            own = slice(self.rows * self.views + view, stop * self.views, self.views)
            if self.features.shape[1]:
                self.features[own] = features
            values = maps.values.reshape(len(part.labels), *self._halves.shape[1:]).astype(np.float16).view(np.uint16)
            self._halves[own] = values
        self._labels[self.rows : stop], self._held[self.rows : stop] = part.labels, part.held
        self.rows = stop

    def maps(self, examples: npt.NDArray[np.intp], view: int = 0) -> Maps:
        """The maps of some examples in one view, in float32."""
        values = self.halves[examples * self.views + view].view(np.float16).astype(np.float32)
        offsets = np.arange(len(examples) + 1, dtype=np.int64) * values.shape[1]
        return Maps(values.reshape(-1, self.channels), offsets, self.grid)
