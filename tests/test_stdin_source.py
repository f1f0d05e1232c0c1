"""Standard input: lines as they come, once."""

from __future__ import annotations

import os

import pytest

from seqbag.errors import DataError, UsageError
from seqbag_connectors import ReadOptions, open_source
from seqbag_connectors.stdin import StandardInput
from tests.contracts import row_values


def _pipe() -> tuple[int, int]:
    read, write = os.pipe()
    return read, write


def test_lines_of_standard_input_arrive_at_once() -> None:
    read, write = _pipe()
    stream = StandardInput(ReadOptions(need_label=False), read).batches(100)
    for line in (b"first\n", b"second\r\n", b"caf\xe9\n"):
        os.write(write, line)
        assert row_values(next(stream)) == [(line.decode(errors="replace").strip(), None)]
    os.write(write, b"whole\nhalf")
    assert row_values(next(stream)) == [("whole", None)]
    os.close(write)
    assert row_values(next(stream)) == [("half", None)]
    assert list(stream) == []
    os.close(read)


def test_standard_input_takes_expressions_and_bounds_batches() -> None:
    read, write = _pipe()
    options = ReadOptions(need_label=False, tokens="string_split(line, ' ')", where="line <> ''")
    source = StandardInput(options, read)
    os.write(write, b"a b\n\nc\n" * 5)
    os.close(write)
    batches = list(source.batches(4))
    assert [row for rows in batches for row in row_values(rows)] == [(("a", "b"), None), (("c",), None)] * 5
    assert max(map(len, batches)) <= 4
    with pytest.raises(DataError, match="only once"):
        next(source.batches(4))
    os.close(read)


def test_standard_input_is_for_predict_only() -> None:
    with pytest.raises(UsageError, match="without labels"):
        open_source("-")
