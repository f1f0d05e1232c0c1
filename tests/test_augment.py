"""Views of images: as they are, mirrored, moved."""

from __future__ import annotations

import numpy as np
import pytest

from seqbag.augment import MOVED, mirrored, moved, seen
from seqbag.batch import ImageColumn


def images(*shape: int) -> ImageColumn:
    return ImageColumn(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


@pytest.mark.parametrize("shape", [(50, 7, 5, 3), (40, 3, 6, 4, 1), (9, 1, 2, 1)])
def test_images_move_as_if_there_were_a_mirror_at_each_edge(shape: tuple[int, ...]) -> None:
    column = images(*shape)
    most = np.minimum(MOVED, np.array(shape[1:-1]) - 1)
    moves = np.random.default_rng(1).integers(-most, most + 1, (shape[0], len(shape) - 2))
    result = moved(column, moves).pixels
    for image, move, got in zip(column.pixels, moves, result, strict=True):
        wide = np.pad(image, [*((m, m) for m in most), (0, 0)], mode="reflect")
        at = tuple(slice(m + d, m + d + size) for m, d, size in zip(most, move, image.shape[:-1], strict=True))
        np.testing.assert_array_equal(got, wide[at])


def test_the_first_views_are_the_images_and_their_mirror_images() -> None:
    column, rows = images(6, 5, 4, 2), np.arange(6)
    np.testing.assert_array_equal(seen(column, 0, rows, 7).pixels, column.pixels)
    np.testing.assert_array_equal(seen(column, 1, rows, 7).pixels, column.pixels[:, :, ::-1])
    np.testing.assert_array_equal(mirrored(column).pixels, column.pixels[:, :, ::-1])


@pytest.mark.parametrize("view", [2, 3, 4])
def test_a_view_is_the_same_in_batches_of_any_size(view: int) -> None:
    column, rows = images(40, 6, 6, 1), np.arange(100, 140)
    whole = seen(column, view, rows, 3).pixels
    parts = [seen(column.take(part), view, rows[part], 3).pixels for part in np.array_split(np.arange(40), 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (whole != seen(column, view, rows, 4).pixels).any()
    assert (whole != seen(column, view + 2, rows, 3).pixels).any()


def test_all_moves_up_to_two_pixels_occur_and_no_others() -> None:
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None], (2000, 100, 3, 1))
    found = seen(ImageColumn(np.ascontiguousarray(ramp)), 2, np.arange(2000), 0).pixels[:, 50, 1, 0].astype(int) - 50
    numbers, counts = np.unique(found, return_counts=True)
    assert numbers.tolist() == [-2, -1, 0, 1, 2]
    assert counts.min() > 300
