"""The source behind everything tabular: a relation, the columns chosen from it, and the stream of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pyarrow as pa

from seqbag.batch import ImageColumn, InputKind, Rows, TextColumn, TokensColumn
from seqbag.errors import DataError, UsageError
from seqbag_connectors.arrow import label_column, rebatch, text_column, tokens_column
from seqbag_connectors.columns import choose
from seqbag_connectors.engine import connect, keeps_order, one_line
from seqbag_connectors.options import ReadOptions
from seqbag_connectors.prefetch import prefetch
from seqbag_connectors.relations import Relation

_READ_ERRORS = (duckdb.Error, OSError, pa.ArrowException)


class TableSource:
    """A `seqbag.batch.Source` over a relation.

    kind, input, label: the kind of input, and the input and label as column names or expressions.
    class_names: the names behind class numbers, where the files hold them; labels then arrive as names.
    skipped_row_groups: how many were left out (`skip_bad`). replaced: undecodable sequences of the last pass.
    """

    def __init__(self, relation: Relation, options: ReadOptions) -> None:
        """Open and check everything that can be checked without reading rows. Raises DataError."""
        self._relation, self._options = relation, options
        self._shape = options.shape or relation.shape
        self._query = ""
        con = connect(options.threads, options.memory_bytes)
        try:
            relation.attach(con)
            chosen = choose(con, relation.name, options, relation.class_names)
            self.kind: InputKind = chosen.kind
            if options.shape is not None and self.kind != "image":
                raise UsageError(f"--shape is about images, and `{chosen.input}` is read as {self.kind}: leave it out")
            self.input, self.label, self.class_names = chosen.input, chosen.label, chosen.class_names
            self._query = chosen.query
            if options.skip_bad:
                relation.skip_damaged(self._query)
            self._threads = options.threads if keeps_order(con, self._query) else 1
            self.rows = self._count(con)
        except _READ_ERRORS as error:
            raise self._explained(error) from None
        finally:
            con.close()
        if self.rows == 0:
            raise self._empty()
        self.fingerprint = relation.files.fingerprint(relation.name, self._query)

    @property
    def skipped_row_groups(self) -> int:
        return self._relation.skipped_row_groups

    @property
    def replaced(self) -> int:
        return self._relation.replaced

    def describe(self) -> str:
        """One line for people: what is read and which columns were chosen."""
        files = len(self._relation.files.paths)
        parts = [f"{files} files"] if files > 1 else []
        parts.append(f"{self.kind} from `{self.input}`")
        if self.label is not None:
            parts.append(f"label from `{self.label}`")
        if self._options.sql is not None:
            parts.append("by --sql")
        if self._options.where is not None:
            parts.append(f"where {self._options.where}")
        if self.skipped_row_groups:
            parts.append(f"{self.skipped_row_groups} damaged row groups skipped")
        if self.replaced:
            parts.append(f"{self.replaced} undecodable byte sequences replaced")
        return " ".join(f"{self._relation.name}: {', '.join(parts)}".split())

    def batches(self, size: int) -> Iterator[Rows]:
        """Stream the rows in batches of `size` (the last may be shorter), read ahead by one thread."""
        self._relation.files.check()
        con = connect(self._threads, self._options.memory_bytes)
        try:
            yield from prefetch(self._read(con, size), con.interrupt)
        finally:
            con.close()

    def _read(self, con: duckdb.DuckDBPyConnection, size: int) -> Iterator[Rows]:
        read, empty = self._reader(), True
        try:
            self._relation.attach(con)
            for batch in rebatch(con.sql(self._query).to_arrow_reader(size), size):
                empty = False
                yield Rows(read(batch.column(0)), label_column(batch.column(1)) if self.label is not None else None)
        except _READ_ERRORS as error:
            raise self._explained(error) from None
        self._relation.files.check()
        if empty:
            raise self._empty()

    def _reader(self) -> Callable[[Any], TextColumn | TokensColumn | ImageColumn]:
        """What makes an input column of an Arrow one."""
        if self.kind == "text":
            return text_column
        if self.kind == "tokens":
            return tokens_column
        from seqbag_connectors.images import ImageReader  # a tenth of a second that others need not wait

        return ImageReader(self._relation.name, self._shape, self._options.threads).read

    def _count(self, con: duckdb.DuckDBPyConnection) -> int | None:
        """The number of rows where the format knows it: a filter or query would have to be run."""
        if not self._relation.countable or self._options.where is not None or self._options.sql is not None:
            return None
        if self.skipped_row_groups:
            con.execute("DROP VIEW source")
            self._relation.attach(con)
        return int(con.execute("SELECT count(*) FROM source").fetchall()[0][0])

    def _empty(self) -> DataError:
        condition = " match --where" if self._options.where is not None else ""
        return DataError(f"{self._relation.name}: no rows{condition}; give a source that holds some")

    def _explained(self, error: BaseException) -> DataError:
        """The most telling message: a file changed, the format's own diagnosis, or what the engine said."""
        try:
            self._relation.files.check()
        except DataError as changed:
            return changed
        if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory Error" in str(error):
            what = "give it less to sort, group or join, or `seqbag train` more --memory"
            return DataError(f"{self._relation.name}: the query needs more memory ({one_line(error)}): {what}")
        told = None if "Conversion Error" in str(error) else self._relation.explain(self._query)
        return told or DataError(f"{self._relation.name}: {one_line(error)}")
