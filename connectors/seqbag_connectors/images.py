"""Image columns as pixels: PNG/JPEG bytes decoded in parallel, raw bytes and lists of bytes taken as they are."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from seqbag.batch import ImageColumn, UInt8s
from seqbag.errors import DataError

_CHUNK = 256  # images a thread decodes at a time
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff")
_GREY = ("1", "L", "LA", "La")
_COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")


class ImageReader:
    """Turns the image arrays of one pass into pixels of one shape, counting rows for its messages.

    shape: (height, width, channels), or None for the shape of the first image. Every fault is a DataError that names
    the row, counted from 1 over the rows read.
    """

    def __init__(self, name: str, shape: tuple[int, ...] | None, threads: int) -> None:
        self._name, self._given, self._threads = name, shape is not None, threads
        self.shape = shape
        self._rows = 0

    def read(self, array: Any) -> ImageColumn:
        """The pixels (n, height, width, channels) uint8 of a binary array or an array of uint8 lists."""
        if array.null_count:
            first = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
            raise self._error(first, "the image is null", "leave such rows out with --where")
        if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
            raw = self._raw_blobs(array)
            pixels = self._decoded(array) if raw is None else raw
        else:
            pixels = self._lists(array)
        self._rows += len(array)
        return ImageColumn(pixels)

    def _error(self, row: int, what: str, remedy: str) -> DataError:
        return DataError(f"{self._name}: row {self._rows + row + 1}: {what}; {remedy}")

    def _raw_blobs(self, array: Any) -> UInt8s | None:
        """Blobs that are pixels already, where a shape was given and every blob has just that many bytes."""
        if not self._given or self.shape is None or len(array) == 0:
            return None
        _, offsets, data = array.buffers()
        width = np.int64 if pa.types.is_large_binary(array.type) else np.int32
        ends = np.frombuffer(offsets, width)[array.offset : array.offset + len(array) + 1]
        size = math.prod(self.shape)
        if not (np.diff(ends) == size).all() or array[0].as_buffer()[:4].to_pybytes().startswith(_SIGNATURES):
            return None
        pixels: UInt8s = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].reshape(len(array), *self.shape)
        return pixels

    def _lists(self, array: Any) -> UInt8s:
        """Lists of uint8, every one as long as the shape says."""
        if self.shape is None:
            raise DataError(
                f"{self._name}: lists of pixels have no shape of their own; give --shape HEIGHT,WIDTH,CHANNELS"
            )
        import pyarrow.compute as pc  # which text and tokens do without

        size = math.prod(self.shape)
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != size)
        if len(wrong):
            wanted = "x".join(map(str, self.shape))
            raise self._error(int(wrong[0]), f"{lengths[wrong[0]]} pixels, not {wanted} = {size}", "mend --shape")
        values = array.flatten()
        if values.null_count:
            null = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
            raise self._error(null // size, "a pixel is null", "leave such rows out with --where")
        pixels: UInt8s = values.to_numpy(zero_copy_only=False).reshape(len(array), *self.shape)
        return pixels

    def _decoded(self, array: Any) -> UInt8s:
        """PNG, JPEG and whatever else Pillow reads, decoded to uint8."""
        if len(array) == 0:
            return np.zeros((0, *(self.shape or (0, 0, 0))), np.uint8)
        blobs = [value.as_buffer() for value in array]
        if self.shape is None:
            self.shape = self._open(0, blobs[0], lambda image: (*image.size[::-1], 1 if image.mode in _GREY else 3))
        if len(self.shape) != 3 or self.shape[2] not in (1, 3):
            given = ",".join(map(str, self.shape))
            raise DataError(
                f"{self._name}: --shape {given} fits no decoded image; give HEIGHT,WIDTH,1 or HEIGHT,WIDTH,3"
            )
        out = np.empty((len(blobs), *self.shape), np.uint8)
        chunks = [range(start, min(start + _CHUNK, len(blobs))) for start in range(0, len(blobs), _CHUNK)]

        def decode(rows: range) -> None:
            for row in rows:
                self._open(row, blobs[row], partial(self._fill, row, out[row]))

        if self._threads == 1 or len(chunks) == 1:
            decode(range(len(blobs)))
        else:
            with ThreadPoolExecutor(min(self._threads, len(chunks))) as pool:
                list(pool.map(decode, chunks))  # in order, so that the first faulty row is the one named
        return out

    def _open(self, row: int, blob: Any, use: Callable[[Image.Image], Any]) -> Any:
        try:
            with Image.open(io.BytesIO(blob)) as image:
                if image.mode not in _GREY and image.mode not in _COLOUR:
                    remedy = "convert it to 8 bits a channel, or leave the row out with --where"
                    raise self._error(row, f"pixels of mode {image.mode} are not bytes", remedy)
                return use(image)
        except UnidentifiedImageError:
            what = f"{len(blob)} bytes that are no image"
            if self._given and self.shape is not None:
                what += f" and not {'x'.join(map(str, self.shape))} = {math.prod(self.shape)} raw pixels"
            remedy = "leave such rows out with --where, or give the --shape of raw pixels"
            raise self._error(row, what, remedy) from None
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            what = f"the image cannot be decoded ({' '.join(str(error).split())})"
            raise self._error(row, what, "leave such rows out with --where") from None

    def _fill(self, row: int, out: UInt8s, image: Image.Image) -> None:
        height, width, channels = self.shape or (0, 0, 0)
        grey = image.mode in _GREY
        if image.size != (width, height) or (not self._given and grey != (channels == 1)):
            has = f"{image.size[1]}x{image.size[0]}x{1 if grey else 3}"
            origin = "--shape says" if self._given else "the first image has"
            remedy = "all images must have one size"
            if image.size == (width, height):
                remedy = f"give --shape {height},{width},3 to read them all in colour"
            raise self._error(row, f"the image is {has}, {origin} {height}x{width}x{channels}", remedy)
        mode = "L" if channels == 1 else "RGB"
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        out[...] = pixels[:, :, None] if channels == 1 else pixels
