"""Images in tables: pixels kept, shapes checked, faults named by row, numbers of classes named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from seqbag.errors import DataError
from seqbag_connectors import open_source
from tests.builders import pictures, png, write_hub_images, write_parquet
from tests.contracts import all_rows
from tests.opened import refusal, table_source


def _images(folder: Path, blobs: list[bytes | None]) -> Path:
    columns = {"image": pa.array(blobs, pa.binary()), "label": [0] * len(blobs)}
    return write_parquet(folder / "a.parquet", columns)


def test_png_and_grey_images_keep_their_pixels(tmp_path: Path) -> None:
    grey = pictures(5, (6, 4, 1))
    path = _images(tmp_path, [png(image) for image in grey])
    rows = next(open_source(str(path)).batches(10))
    assert np.array_equal(rows.input.pixels, grey)  # type: ignore[union-attr]
    raw = _images(tmp_path, [image.tobytes() for image in grey])
    rows = next(open_source(str(raw), shape=(6, 4, 1)).batches(10))
    assert np.array_equal(rows.input.pixels, grey)  # type: ignore[union-attr]


def test_mixed_colour_is_read_as_the_shape_says(tmp_path: Path) -> None:
    colour, grey = pictures(1, (6, 4, 3))[0], pictures(1, (6, 4, 1))[0]
    path = _images(tmp_path, [png(colour), png(grey)])
    expected = "row 2: the image is 6x4x1, the first image has 6x4x3; give --shape 6,4,3 to read them all in colour"
    assert refusal(path) == f"{path}: {expected}"
    rows = next(open_source(str(path), shape=(6, 4, 3)).batches(10))
    assert np.array_equal(rows.input.pixels[1], np.repeat(grey, 3, axis=2))  # type: ignore[union-attr]


@pytest.mark.parametrize("threads", [1, 2])
def test_faulty_images_are_named_by_row(threads: int, tmp_path: Path) -> None:
    good = png(pictures(1, (6, 4, 3))[0])
    deep = png(np.zeros((6, 4), np.uint16))
    faults: list[tuple[bytes | None, str]] = [
        (b"no image", "8 bytes that are no image; leave such rows out with --where"),
        (good[:-30], "the image cannot be decoded ("),
        (
            png(pictures(1, (4, 6, 3))[0]),
            "the image is 4x6x3, the first image has 6x4x3; all images must have one size",
        ),
        (deep, "pixels of mode I;16 are not bytes; convert it to 8 bits a channel"),
        (None, "the image is null; leave such rows out with --where"),
    ]
    for blob, what in faults:
        path = _images(tmp_path, [good] * 700 + [blob] + [good] * 700)
        with pytest.raises(DataError, match=re.escape(f"{path}: row 701: {what}")):
            list(open_source(str(path), threads=threads).batches(600))
    path = _images(tmp_path, [good])
    assert "row 1: the image is 6x4x3, --shape says 7x4x3; all images must have one size" in refusal(
        path, shape=(7, 4, 3)
    )


def test_pixel_lists_must_be_bytes_of_the_shape(tmp_path: Path) -> None:
    lists = [[0, 1], [0, 1], [0, 1, 2]]
    path = write_parquet(tmp_path / "a.parquet", {"img": pa.array(lists, pa.list_(pa.uint8())), "label": [1, 2, 3]})
    assert "row 3: 3 pixels, not 1x2x1 = 2; mend --shape" in refusal(path, shape=(1, 2, 1))
    assert "give --shape HEIGHT,WIDTH,CHANNELS" in refusal(path)
    floats = write_parquet(tmp_path / "b.parquet", {"img": [[0.5, float("nan")]], "label": [1]})
    assert "--image img is DOUBLE[]; pixels must be bytes" in refusal(floats, image="img", shape=(1, 2, 1))


def test_class_numbers_become_names(tmp_path: Path) -> None:
    path = write_hub_images(tmp_path / "a.parquet", pictures(5, (3, 3, 3)), [2, 0, -1, 7, 1], ("cat", "dog", "it's"))
    source = table_source(path)
    assert source.class_names == ("cat", "dog", "it's")
    assert [label for _, label in all_rows(source)] == ["it's", "cat", None, "7", "dog"]


def test_class_numbers_that_a_query_made_stay_numbers(tmp_path: Path) -> None:
    path = write_hub_images(tmp_path / "a.parquet", pictures(3, (3, 3, 3)), [2, 0, 1], ("cat", "dog", "it's"))
    source = table_source(path, sql="SELECT img, label % 2 AS label FROM source")
    assert [label for _, label in all_rows(source)] == ["0", "0", "1"]
