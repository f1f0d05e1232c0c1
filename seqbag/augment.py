"""Views of images: what a net learns from beside the images as they are.

The draws hang on the seed, the row and the view alone, so that every pass sees the same views, in batches of any size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seqbag.batch import ImageColumn
from seqbag.passes import scatter

MOVED = 2  # pixels along each axis, at most
_STREAM = 3  # of random bits for a row: others serve to hold rows out and to sample them


def seen(column: ImageColumn, view: int, rows: npt.NDArray[np.intp], seed: int) -> ImageColumn:
    """One view of the images of rows (n,): 0 as they are, 1 mirrored, 2 moved, 3 moved and mirrored, 4 moved, ..."""
    if view > 1:
        column = moved(column, _moves(column.pixels.shape[1:-1], scatter(rows, seed + _STREAM + view)))
    return mirrored(column) if view % 2 else column


def mirrored(column: ImageColumn) -> ImageColumn:
    """The images left to right: flipped along the last axis of space."""
    return ImageColumn(np.ascontiguousarray(column.pixels[..., ::-1, :]))


def moved(column: ImageColumn, moves: npt.NDArray[np.int64]) -> ImageColumn:
    """Each image moved by its own (axes,) pixels, fewer than it has; what comes in is mirrored at the edge."""
    pixels = column.pixels
    for axis, size in enumerate(pixels.shape[1:-1]):
        places = np.abs(np.arange(size) + moves[:, axis, None])
        places = size - 1 - np.abs(size - 1 - places)
        shape = [1] * pixels.ndim
        shape[0], shape[axis + 1] = len(pixels), size
        pixels = np.take_along_axis(pixels, places.reshape(shape), axis + 1)
    return ImageColumn(pixels)


def _moves(grid: tuple[int, ...], bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """(n, axes) pixels that images on a grid are moved by, from random bits (n,) of each."""
    moves = np.empty((len(bits), len(grid)), np.int64)
    for axis, size in enumerate(grid):
        most = min(MOVED, size - 1)
        moves[:, axis] = (bits >> np.uint64(16 * axis)).astype(np.uint16) % (2 * most + 1) - np.int64(most)
    return moves
