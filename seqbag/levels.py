"""Signs, and means of a few of them, kept as numbers of few bits: what is kept of the maps of a net of signs.

A sign takes a bit, a mean of two signs two, and one of four or eight signs four, where a byte each would keep a layer
from seeing whole maps: 16 x 16 sites of 384 filters of two signs, of 50,000 images in four views, take 4.9 GB so.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s, Int32s
from seqbag.bytescale import Int8s
from seqbag.kernels.levels import from_levels, sample_levels, to_levels
from seqbag.layer import Layer


@dataclass(frozen=True)
class Levels:
    """value = 2 * code / signs - 1, codes from 0 to `signs`, several of them in a byte.

    channels: how many values a site has; signs: how many are in a mean. Byte j of a site holds the codes of channels j,
    j + site_bytes, j + 2 * site_bytes and so on, from its lowest bits up, so that codes side by side in memory, or
    every n-th of them, are shifted alike.
    """

    channels: int
    signs: int

    @classmethod
    def of(cls, layer: Layer) -> Self:
        """Of what a layer of signs hands on: the means over the sites that become one."""
        return cls(layer.channels, prod(layer.pooling) * layer.signs)

    def __len__(self) -> int:
        return self.channels

    @property
    def bits(self) -> int:
        """Of a code."""
        return next(bits for bits in (1, 2, 4, 8) if self.signs < 1 << bits)

    @property
    def site_bytes(self) -> int:
        """Bytes of a site."""
        return -(-self.channels * self.bits // 8)

    @property
    def readers(self) -> int:
        """As of a `ByteScale`: 1, 2 or 4."""
        return gcd(self.channels, self.site_bytes, 4)

    def encode(self, values: npt.NDArray[Any]) -> Int8s:
        """(n, site_bytes) of (n, channels), rounded to the nearest."""
        out = np.empty((len(values), self.site_bytes), np.uint8)
        to_levels(np.ascontiguousarray(values, np.float32), self.signs, self.bits, out)
        return out.view(np.int8)

    def decode(self, codes: Int8s) -> Float32s:
        """(..., channels) float32 of (..., site_bytes)."""
        values = np.empty((*codes.shape[:-1], self.channels), np.float32)
        flat = np.ascontiguousarray(codes).view(np.uint8).reshape(-1, self.site_bytes)
        from_levels(flat, self.signs, self.bits, values.reshape(-1, self.channels))
        return values

    def sample(
        self, codes: Int8s, examples: npt.NDArray[np.intp], sites: Int32s, index: Int32s, read: slice, scale: Float32s,
        offset: Float32s, out: Float32s,
    ) -> None:  # fmt: skip
        """See `ByteScale.sample`; every n-th channel, n being one of `readers`.

        Every n-th channel is in every n-th byte, that is, in one byte of each word of n.
        """
        factor, first, step = scale * np.float32(2 / self.signs), read.start, read.step or 1
        words = codes.view(f"u{step}")
        sample_levels(words, examples, sites, index, 8 * first, self.bits, factor, offset - scale, offset, out)
