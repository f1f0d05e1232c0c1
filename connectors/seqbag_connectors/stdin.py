"""Standard input as a source: read once, each line handed on as soon as it is there (`tail -f app.log | ...`)."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator

import duckdb
import pyarrow as pa

from seqbag.batch import InputKind, Rows, TextColumn
from seqbag.errors import DataError, UsageError
from seqbag_connectors.arrow import rebatch, text_column, tokens_column
from seqbag_connectors.columns import choose
from seqbag_connectors.engine import connect, one_line
from seqbag_connectors.lines import LineSplitter
from seqbag_connectors.logs import SCHEMA, record_batch
from seqbag_connectors.options import ReadOptions

_BLOCK = 1 << 16
_NAME = "standard input"


class StandardInput:
    """Lines of a stream with the columns `line`, `file` and `line_number`, without labels; a single pass.

    Holds back no complete line: a batch ends when nothing more can be read without waiting.
    """

    rows: int | None = None
    fingerprint = "standard input"
    label: str | None = None
    class_names: tuple[str, ...] | None = None
    skipped_row_groups = 0

    def __init__(self, options: ReadOptions, descriptor: int | None = None) -> None:
        """descriptor: the file descriptor to read (default: that of standard input)."""
        if options.need_label or options.label is not None:
            raise UsageError("`-` reads lines without labels, for predict; give a file to train on or evaluate")
        if options.sql is not None or options.image is not None:
            raise UsageError("`-` reads lines: --sql and --image do not go with it; use --text, --tokens and --where")
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self._splitter = LineSplitter()
        self._used = False
        self._con = connect(1, options.memory_bytes)
        self._con.register("source", pa.Table.from_batches([], SCHEMA))
        chosen = choose(self._con, _NAME, options, lambda column: None)
        self.kind: InputKind = chosen.kind
        self.input = chosen.input
        self._query = None if chosen.input == "line" and options.where is None else chosen.query

    @property
    def replaced(self) -> int:
        return self._splitter.replaced

    def describe(self) -> str:
        """One line for people: what is read and which column was chosen."""
        return f"{_NAME}: {self.kind} from `{self.input}`"

    def batches(self, size: int) -> Iterator[Rows]:
        """Stream the lines as they arrive in batches of at most `size`."""
        if self._used:
            raise DataError(f"{_NAME}: can be read only once; save it to a file and give that")
        self._used = True
        number = 1
        for lines in self._lines():
            for batch in rebatch([record_batch(lines, "-", number)], size):
                yield from self._rows_of(batch)
            number += len(lines)

    def _lines(self) -> Iterator[TextColumn]:
        while block := self._available():
            yield from self._splitter.feed(block)
        yield from self._splitter.finish()

    def _available(self) -> bytes:
        """What can be read now, waiting only for the first byte; empty at the end."""
        blocks = [os.read(self._descriptor, _BLOCK)]
        while blocks[-1] and len(blocks) < 16 and select.select([self._descriptor], [], [], 0)[0]:
            blocks.append(os.read(self._descriptor, _BLOCK))
        return b"".join(blocks)

    def _rows_of(self, batch: pa.RecordBatch) -> Iterator[Rows]:
        if self._query is None:
            yield Rows(text_column(batch.column(0)), None)
            return
        self._con.register("source", pa.Table.from_batches([batch]))
        try:
            table = self._con.sql(self._query).to_arrow_table()
        except duckdb.Error as error:
            raise DataError(f"{_NAME}: {one_line(error)}") from None
        column = text_column if self.kind == "text" else tokens_column
        for part in table.combine_chunks().to_batches():
            yield Rows(column(part.column(0)), None)
