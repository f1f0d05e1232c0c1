"""What every implementation of a protocol must keep, whatever it is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from seqbag.batch import ImageColumn, Rows, Source, TextColumn, TokensColumn


def text_values(column: TextColumn) -> list[str]:
    return [bytes(column.data[a:b]).decode() for a, b in pairwise(column.offsets)]


def row_values(rows: Rows) -> list[tuple[Any, str | None]]:
    """Every row as (input, label): text, a tuple of tokens, or the bytes of an image."""
    inputs: list[Any]
    if isinstance(rows.input, TextColumn):
        inputs = text_values(rows.input)
    elif isinstance(rows.input, TokensColumn):
        tokens = text_values(rows.input.tokens)
        offsets = rows.input.offsets
        inputs = [tuple(tokens[a:b]) for a, b in pairwise(offsets)]
    else:
        inputs = [image.tobytes() for image in rows.input.pixels]
    if rows.labels is None:
        return [(value, None) for value in inputs]
    names = (*rows.labels.names, None)  # code -1 is the last
    return [(value, names[code]) for value, code in zip(inputs, rows.labels.codes, strict=True)]


def all_rows(source: Source, size: int = 700) -> list[tuple[Any, str | None]]:
    return [row for rows in source.batches(size) for row in row_values(rows)]


def check_rows(rows: Rows, kind: str) -> None:
    """The layout that seqbag.batch promises."""
    if isinstance(rows.input, ImageColumn):
        assert kind == "image"
        assert rows.input.pixels.dtype == np.uint8
        assert rows.input.pixels.ndim == 4
    else:
        columns = [rows.input]
        if isinstance(rows.input, TokensColumn):
            assert kind == "tokens"
            columns = [rows.input.tokens, rows.input]
            assert rows.input.offsets[-1] <= len(rows.input.tokens)
        else:
            assert kind == "text"
        for column in columns:
            assert column.offsets.dtype == np.int64
            assert column.offsets[0] >= 0
            assert (np.diff(column.offsets) >= 0).all()
        text = columns[0]
        assert text.data.dtype == np.uint8
        assert text.offsets[-1] <= len(text.data)
    if rows.labels is not None:
        assert rows.labels.codes.dtype == np.int32
        assert len(rows.labels.codes) == len(rows)
        assert len(set(rows.labels.names)) == len(rows.labels.names)
        seen = rows.labels.codes[rows.labels.codes >= 0]
        assert (rows.labels.codes >= -1).all()
        first_seen = list(dict.fromkeys(seen.tolist()))
        assert first_seen == list(range(len(rows.labels.names))), "names in the order they first appear, none unused"


def check_source(make: Callable[[int], Source]) -> None:
    """`make(threads)` opens a source of more than 10 rows."""
    source = make(1)
    assert "\n" not in source.describe()
    batches = list(source.batches(7))
    for rows in batches:
        check_rows(rows, source.kind)
    assert [len(rows) for rows in batches[:-1]] == [7] * (len(batches) - 1)
    assert 1 <= len(batches[-1]) <= 7
    first = [row for rows in batches for row in row_values(rows)]
    assert len(first) > 10
    assert source.rows in (None, len(first))
    assert all_rows(source) == first, "a second pass, in other batches, gives the same rows"
    check_early_close(source)
    other = make(2)
    assert [[*row_values(rows)] for rows in other.batches(7)] == [[*row_values(rows)] for rows in batches]
    assert other.fingerprint == source.fingerprint == make(1).fingerprint


def check_early_close(source: Source) -> None:
    before = set(threading.enumerate())
    stream = source.batches(3)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) == before
    assert next(iter(source.batches(3))) is not None
    assert set(threading.enumerate()) == before, "a stream that is dropped ends its reader too"
