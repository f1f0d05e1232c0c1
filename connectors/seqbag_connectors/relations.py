"""What `FROM source` means for each kind of file: how the engine is told of it, and what its failures mean."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from seqbag.errors import DataError
from seqbag_connectors.engine import identifier, literal, one_line
from seqbag_connectors.files import Files


class Relation:
    """A table behind a URI. Subclasses say how a connection is told of it."""

    #: Whether counting all rows costs next to nothing.
    countable = False
    #: The shape of raw pixels in it, where the format fixes one.
    shape: tuple[int, ...] | None = None
    #: Row groups left out because they could not be read.
    skipped_row_groups = 0
    #: Undecodable byte sequences replaced in the last pass.
    replaced = 0

    def __init__(self, name: str, paths: Sequence[str] = ()) -> None:
        self.name = name
        self.files = Files(paths)

    def attach(self, con: duckdb.DuckDBPyConnection) -> None:
        """Make `source` known to `con`. Raises duckdb.Error or DataError."""
        raise NotImplementedError

    def explain(self, query: str) -> DataError | None:
        """After a failed read: a better message than the engine's, where one can be found."""
        return None

    def class_names(self, column: str) -> tuple[str, ...] | None:
        """The names behind a column of class numbers, where the files hold them."""
        return None

    def skip_damaged(self, query: str) -> None:
        """Leave out the parts that cannot be read, where the format has parts."""


class FileRelation(Relation):
    """CSV or JSON files, read by the engine's own reader of that name."""

    def __init__(self, name: str, paths: Sequence[str], reader: str) -> None:
        super().__init__(name, paths)
        self._reader = reader

    def attach(self, con: duckdb.DuckDBPyConnection) -> None:
        _view(con, f"{self._reader}([{', '.join(map(_path, self.files.paths))}])")


class NoRelation(Relation):
    """No table of its own: `--sql` names the files itself."""

    def attach(self, con: duckdb.DuckDBPyConnection) -> None:
        pass


class DatabaseRelation(Relation):
    """A DuckDB database file, attached read-only; `source` is its table if it has but one."""

    countable = True

    def __init__(self, name: str, paths: Sequence[str], has_query: bool) -> None:
        """has_query: whether a query will say which tables are read."""
        super().__init__(name, paths)
        self._has_query = has_query

    def attach(self, con: duckdb.DuckDBPyConnection) -> None:
        try:
            con.execute(f"ATTACH {literal(self.files.paths[0])} AS db (TYPE duckdb, READ_ONLY)")
        except duckdb.Error as error:
            raise DataError(f"{self.name}: cannot be opened as a DuckDB database: {one_line(error)}") from None
        con.execute("USE db")
        tables = con.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'db' UNION ALL "
            "SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = 'db' AND NOT internal"
        ).fetchall()
        if len(tables) == 1:
            _view(con, f"db.{identifier(tables[0][0])}.{identifier(tables[0][1])}")
        elif not self._has_query:
            names = ", ".join(sorted(table for _, table in tables)[:30]) or "none"
            raise DataError(f"{self.name}: {len(tables)} tables ({names}); say what to read with --sql")


class ParquetRelation(Relation):
    """Parquet files, hive partitions as columns."""

    countable = True

    def __init__(self, name: str, paths: Sequence[str]) -> None:
        super().__init__(name, paths)
        self._sound: Any = None  # the dataset of the row groups that can be read, once some were left out

    def attach(self, con: duckdb.DuckDBPyConnection) -> None:
        if self._sound is None:
            _view(con, f"read_parquet([{', '.join(map(_path, self.files.paths))}])")
        else:
            con.register("source", self._sound)

    def class_names(self, column: str) -> tuple[str, ...] | None:
        """The names the hub's `datasets` library keeps in the schema of the files it writes."""
        import pyarrow.parquet as pq  # here and below: other files do without

        try:
            metadata = pq.read_schema(self.files.paths[0]).metadata or {}
            feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
            names = feature["names"] if feature["_type"] == "ClassLabel" else None
        except (KeyError, ValueError, TypeError, OSError, pa.ArrowException):
            return None
        return tuple(map(str, names)) if names else None

    def explain(self, query: str) -> DataError | None:
        import pyarrow.parquet as pq

        for path in self.files.paths:
            try:
                pq.read_metadata(path)
            except (OSError, pa.ArrowException) as error:
                return DataError(f"{path}: not a whole Parquet file ({_squeezed(error)}); write or copy it again")
            for group, groups, what in _damaged(path, query) if query else ():
                return DataError(
                    f"{path}: row group {group + 1} of {groups} cannot be read ({_squeezed(what)}); "
                    "write the file again, or leave such row groups out with --skip-bad"
                )
        return None

    def skip_damaged(self, query: str) -> None:
        """Read every row group once and leave out those of which a column named in `query` cannot be read."""
        damaged = {path: {group for group, _, _ in _damaged(path, query)} for path in self.files.paths}
        self.skipped_row_groups = sum(map(len, damaged.values()))
        if self.skipped_row_groups == 0:
            return
        import pyarrow.dataset as ds  # which takes a while to load and is hardly ever needed

        whole = ds.dataset(list(self.files.paths), format="parquet", partitioning="hive")
        sound = []
        for fragment in whole.get_fragments():
            bad = damaged[fragment.path]
            sound.append(fragment.subset(row_group_ids=[i for i in range(fragment.num_row_groups) if i not in bad]))
        self._sound = ds.FileSystemDataset(sound, whole.schema, whole.format, whole.filesystem)


def _damaged(path: str, query: str) -> Iterator[tuple[int, int, Exception]]:
    """The row groups of a file (index, how many there are, what is wrong) that cannot be read for `query`."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        # A column whose name does not occur in the query is not read by it, and may be as damaged as it likes.
        needed = [name for name in file.schema_arrow.names if name.lower() in query.lower()]
        needed = needed or list(file.schema_arrow.names)
        for group in range(file.num_row_groups):
            try:
                for _ in file.iter_batches(batch_size=8192, row_groups=[group], columns=needed):
                    pass
            except (OSError, pa.ArrowException) as error:
                yield group, file.num_row_groups, error


def _view(con: duckdb.DuckDBPyConnection, relation: str) -> None:
    con.execute(f"CREATE TEMP VIEW source AS SELECT * FROM {relation}")


def _path(path: str) -> str:
    """A path as a string in which the engine sees no wildcards."""
    return literal("".join(f"[{char}]" if char in "*?[" else char for char in path))


def _squeezed(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
