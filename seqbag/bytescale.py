"""Numbers kept as signed bytes, each channel at a scale of its own: what is kept of the maps and features of images.

Kept to half precision a layer over 50,000 images in four views would take twice the memory; a byte's step is a
hundredth of a channel's range, which is a small part of what it varies (Jacob et al. 2018, arXiv 1712.05877).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s, Int32s
from seqbag.kernels.maps import sample_windows, to_bytes

Int8s = npt.NDArray[np.int8]
_MOST = 127


@dataclass(frozen=True, eq=False)
class ByteScale:
    """value = byte * step, bytes from -127 to 127. step: (channels,) float32, powers of two: signs are exact."""

    step: Float32s

    @staticmethod
    def of(values: npt.NDArray[Any]) -> ByteScale:
        """For values that look like these (n, channels): the least step at which they all fit; larger ones are cut."""
        largest = np.abs(values).max(axis=0, initial=0).astype(np.float64)
        exponent = np.ceil(np.log2(np.maximum(largest, 1e-20) / _MOST))
        return ByteScale(np.exp2(np.maximum(exponent, -60)).astype(np.float32))

    def __len__(self) -> int:
        return len(self.step)

    @property
    def site_bytes(self) -> int:
        """Bytes of a site."""
        return len(self)

    @property
    def readers(self) -> int:
        """In how many parts, at most, the channels can be sampled, and in any number that divides it."""
        return len(self)

    def encode(self, values: npt.NDArray[Any]) -> Int8s:
        """(n, channels) int8, rounded to the nearest."""
        out = np.empty(values.shape, np.int8)
        to_bytes(np.ascontiguousarray(values, np.float32), 1 / self.step, out)
        return out

    def decode(self, codes: Int8s) -> Float32s:
        """(..., channels) float32."""
        values: Float32s = codes.astype(np.float32)
        values *= self.step
        return values

    def sample(
        self, codes: Int8s, examples: npt.NDArray[np.intp], sites: Int32s, index: Int32s, read: slice, scale: Float32s,
        offset: Float32s, out: Float32s,
    ) -> None:  # fmt: skip
        """Fill out with windows of sampled sites, times scale, plus offset; what is outside reads nought.

        codes: (n, sites, site_bytes); read: some of the channels; the rest as for the kernel.
        """
        factor = np.tile(self.step[read], index.shape[1]) * scale
        sample_windows(codes, examples, sites, index, read.start, read.step, factor, offset, out)
