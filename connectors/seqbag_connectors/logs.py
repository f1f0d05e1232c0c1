"""Text logs as a table: one row a line, from plain, gzip and zstd files, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from seqbag.batch import TextColumn
from seqbag.errors import DataError
from seqbag_connectors.lines import LineSplitter
from seqbag_connectors.relations import Relation

SCHEMA = pa.schema([("line", pa.large_string()), ("file", pa.string()), ("line_number", pa.int64())])
_BLOCK = 1 << 22  # bytes read at a time


class LogRelation(Relation):
    """Log files with the columns `line`, `file` and `line_number` (from 1).

    Undecodable bytes are replaced and counted in `replaced`; a damaged compressed file is a DataError that names it.
    """

    def __init__(self, name: str, paths: Sequence[str]) -> None:
        super().__init__(name, paths)
        self._failure: DataError | None = None

    def attach(self, con: duckdb.DuckDBPyConnection) -> None:
        con.register("source", self)

    def explain(self, query: str) -> DataError | None:
        return self._failure

    def __arrow_c_schema__(self) -> Any:
        return SCHEMA.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> Any:
        """A new stream from the first line on: the engine asks for one at every scan."""
        return pa.RecordBatchReader.from_batches(SCHEMA, self._batches()).__arrow_c_stream__(requested_schema)

    def _batches(self) -> Iterator[Any]:
        replaced = 0
        for path in self.files.paths:
            splitter = LineSplitter()
            try:
                number = 1
                for lines in self._lines(path, splitter):
                    yield record_batch(lines, path, number)
                    number += len(lines)
            except OSError as error:
                what = " ".join(str(error).split())
                self._failure = DataError(f"{path}: cannot be read to its end ({what}); copy or compress it again")
                raise
            replaced += splitter.replaced
        self.replaced = replaced

    @staticmethod
    def _lines(path: str, splitter: LineSplitter) -> Iterator[TextColumn]:
        compression = {"gz": "gzip", "zst": "zstd"}.get(path.lower().rpartition(".")[2])
        with pa.input_stream(path, compression=compression, buffer_size=None) as stream:
            while block := stream.read(_BLOCK):
                yield from splitter.feed(block)
            yield from splitter.finish()


def record_batch(lines: TextColumn, path: str, first: int) -> Any:
    """Lines as a record batch of SCHEMA, sharing their bytes; `first` is the number of the first line."""
    count = len(lines)
    text = pa.LargeStringArray.from_buffers(count, pa.py_buffer(lines.offsets), pa.py_buffer(lines.data))
    numbers = pa.array(np.arange(first, first + count))
    return pa.record_batch([text, pa.repeat(path, count), numbers], schema=SCHEMA)
