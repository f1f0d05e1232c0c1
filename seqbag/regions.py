"""Regions: the pooling areas of a layer, as disjoint segments of an example's output sites.

A layer pools its activations over regions. Four kinds:

- `none`: nothing is pooled, as of the whitening layer over pixels.
- `whole`: the whole example is one region.
- `tail:8,2,1`: nested spans anchored at the end of a sequence: the whole, the last 8, the last 2, the last 1 sites.
  In event sequences the recent past matters most.
- `grid:2`: a 2 x 2 grid (2 per axis) of equal cells, for images and volumes; fewer where maps are small (`on`).

Every site lies in exactly one *segment*; a region is a union of segments. Counting per segment stores each site once
even where regions nest: the sums of nested regions are cumulative sums over segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from seqbag.batch import Float32s, Int32s, Int64s
from seqbag.errors import UsageError

_MOST = 2**31 - 1  # sites in a span


@dataclass(frozen=True, slots=True)
class Regions:
    """Regions of a layer. kind: which family; sizes: tail spans (falling) or cells per axis."""

    kind: Literal["none", "whole", "tail", "grid"]
    sizes: tuple[int, ...] = ()

    @staticmethod
    def parse(spec: str) -> Regions:
        """Read `whole`, `tail:8,2,1` or `grid:2`. Raises UsageError for anything else."""
        kind, _, sizes = spec.partition(":")
        try:
            numbers = tuple(int(part) for part in sizes.split(",")) if sizes else ()
        except ValueError:
            numbers = (0,)
        if spec in ("none", "whole"):
            return Regions("none" if spec == "none" else "whole")
        if max(numbers, default=0) > _MOST:
            numbers = (0,)
        if kind == "tail" and numbers and min(numbers) > 0 and len(set(numbers)) == len(numbers):
            return Regions("tail", tuple(sorted(numbers, reverse=True)))
        if kind == "grid" and len(numbers) == 1 and numbers[0] > 0:
            return Regions("grid", numbers)
        raise UsageError(f"regions {spec!r} are not understood: use whole, tail:8,2,1 or grid:2")

    def __str__(self) -> str:
        return self.kind if not self.sizes else f"{self.kind}:{','.join(map(str, self.sizes))}"

    def count(self, axes: int = 1) -> int:
        """Number of regions (and of segments) on a grid of `axes` axes."""
        if not self.sizes:
            return int(self.kind == "whole")
        return len(self.sizes) + 1 if self.kind == "tail" else int(self.sizes[0] ** axes)

    def on(self, grid: tuple[int, ...]) -> Regions:
        """The regions of maps on a grid: a cell is no narrower than two sites, as of maps that were pooled often."""
        if self.kind != "grid":
            return self
        return Regions("grid", (min(self.sizes[0], *(-(-size // 2) for size in grid)),))

    def segments(self, offsets: Int64s, grid: tuple[int, ...] | None = None) -> Int32s:
        """Segment of every site. offsets: (n + 1,) site offsets; grid: the fixed output shape, None for sequences.

        Returns (sites,) int32. For tails, segment r holds the sites that lie in span r but not in span r + 1.
        """
        sites = int(offsets[-1] - offsets[0])
        if not self.sizes:
            return np.zeros(sites, np.int32)
        if self.kind == "grid":
            if grid is None:
                raise UsageError(f"regions {self} need a fixed grid: use whole or tail:… for sequences")
            cell = np.zeros(grid, np.int32)
            for axis, size in enumerate(grid):
                shape = [1] * len(grid)
                shape[axis] = size
                index = np.arange(size) * self.sizes[0] // size
                cell = cell * self.sizes[0] + index.reshape(shape).astype(np.int32)
            return np.tile(cell.reshape(-1), len(offsets) - 1)
        from_end = np.repeat(offsets[1:], np.diff(offsets)) - np.arange(offsets[0], offsets[-1])  # 1 = last site
        ring = np.zeros(sites, np.int32)
        for size in self.sizes:
            ring += from_end <= size
        return ring

    def lengths(self, sites: Int64s, axes: int = 1) -> Float32s:
        """Sites in each region of each example. sites: (n,) sites per example. Returns (n, regions) float32."""
        if self.kind == "tail":
            spans = [sites] + [np.minimum(sites, size) for size in self.sizes]
            return np.stack(spans, axis=1).astype(np.float32)
        regions = self.count(axes)
        return np.repeat((sites / max(regions, 1)).astype(np.float32)[:, None], regions, axis=1)

    def nest(self, sums: Float32s) -> Float32s:
        """Segment sums (n, regions, features) to region sums of the same shape."""
        if self.kind != "tail":
            return sums
        nested = sums.copy()
        for region in range(len(self.sizes) - 1, -1, -1):  # a sum along the axis takes five times as long
            nested[:, region] += nested[:, region + 1]
        return nested

    def nest_gradient(self, gradient: Float32s) -> Float32s:
        """Adjoint of `nest`: gradient of the region sums to gradient of the segment sums."""
        if self.kind != "tail":
            return gradient
        own = gradient.copy()
        for segment in range(1, len(self.sizes) + 1):
            own[:, segment] += own[:, segment - 1]
        return own
