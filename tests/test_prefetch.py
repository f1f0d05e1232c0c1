"""Reading ahead: in order, no further than it should, and cancelled."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice

import duckdb
import pytest

from seqbag.errors import DataError
from seqbag_connectors.prefetch import prefetch


def test_what_the_reader_raises_is_raised_in_order() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise DataError("the sixth")

    stream = prefetch(items(), lambda: None)
    assert list(islice(stream, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="the sixth"):
        next(stream)


def test_no_more_than_the_depth_is_read_ahead() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            read.append(i)
            yield i

    stream = prefetch(items(), lambda: None, depth=2)
    assert next(stream) == 0
    deadline = time.monotonic() + 5
    while len(read) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(read) <= 4  # one handed out, two waiting, one in the reader's hand
    stream.close()  # type: ignore[attr-defined]
    assert len(read) <= 5


def test_a_blocked_reader_is_cancelled() -> None:
    with duckdb.connect() as con:
        endless = con.sql("SELECT count(*) FROM range(1000000000000) t(x) WHERE sin(x) > 2")

        def items() -> Iterator[int]:
            yield 1
            yield from (row[0] for row in endless.fetchall())

        before = threading.active_count()
        stream = prefetch(items(), con.interrupt)
        assert next(stream) == 1
        stream.close()  # type: ignore[attr-defined]
        assert threading.active_count() == before
