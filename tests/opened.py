"""Sources opened in tests, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seqbag.errors import DataError
from seqbag_connectors import open_source
from seqbag_connectors.table import TableSource
from tests.builders import stripes, write_hub_images


def table_source(uri: Path | str, **options: Any) -> TableSource:
    """The source, once it is one of a table."""
    source = open_source(str(uri), **options)
    assert isinstance(source, TableSource)
    return source


def refusal(uri: Path | str, **options: Any) -> str:
    """The one line a source is refused with, at opening or in the first pass."""
    with pytest.raises(DataError) as caught:
        list(open_source(str(uri), **options).batches(100))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def hub(path: Path, rows: int = 400, shape: tuple[int, int, int] = (16, 16, 3)) -> TableSource:
    """Images of stripes, written to `path`."""
    pixels, labels = stripes(rows, shape)
    return table_source(write_hub_images(path, pixels, labels, ["across", "down"]))
