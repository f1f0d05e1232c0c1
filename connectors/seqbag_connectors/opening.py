"""From a URI to a source: by scheme, suffix, or what a third party installed."""

from __future__ import annotations

import os
import re
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from seqbag.errors import DataError, SeqbagError, UsageError
from seqbag_connectors.files import find_files, kind_of
from seqbag_connectors.options import ReadOptions

if TYPE_CHECKING:
    from seqbag.batch import Source
    from seqbag_connectors.relations import Relation

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://")
_UNDERSTOOD = (
    "Parquet (.parquet), CSV (.csv, .tsv), JSON (.json, .jsonl, .ndjson), a DuckDB database (.duckdb, .db), "
    "logs (.log, .txt, .gz, .zst), CIFAR-10 batches, folders and globs of these, `:memory:` with --sql, "
    "and `-` (standard input, for predict)"
)


def open_source(uri: str, **options: Any) -> Source:
    """Open what `uri` names as a stream of rows; `options` are the fields of `ReadOptions`.

    uri: a file, folder or glob of Parquet, CSV, JSON, log or CIFAR-10 files; a DuckDB database; `:memory:` (with sql,
    for a query that names its files itself); `-` for standard input; or `scheme://...` of an installed entry point of
    the group `seqbag.sources` named `scheme`, called with (uri, ReadOptions).

    Raises UsageError where options or the kind of source make no sense, DataError for what cannot be read.
    """
    chosen = ReadOptions(**options)
    if uri == "-":
        from seqbag_connectors.stdin import StandardInput

        return StandardInput(chosen)
    if match := _SCHEME.match(uri):
        return _third_party(uri, match.group(1), chosen)
    from seqbag_connectors.table import TableSource

    return TableSource(_relation(uri, chosen), chosen)


def _relation(uri: str, options: ReadOptions) -> Relation:
    from seqbag_connectors import relations

    if uri == ":memory:":
        if options.sql is None:
            raise UsageError("`:memory:` holds nothing by itself: give --sql with a query over files")
        return relations.NoRelation(uri, _files_in(options.sql))
    found = find_files(uri)
    if found is None:
        raise UsageError(f"{uri}: not a source that is understood; understood are {_UNDERSTOOD}{_installed()}")
    kind, paths = found
    if kind == "parquet":
        return relations.ParquetRelation(uri, paths)
    if kind == "database":
        if len(paths) > 1:
            raise DataError(f"{uri}: {len(paths)} databases, of which one can be read at a time: name it")
        return relations.DatabaseRelation(uri, paths, has_query=options.sql is not None)
    if kind == "log":
        from seqbag_connectors.logs import LogRelation

        return LogRelation(uri, paths)
    if kind == "cifar":
        from seqbag_connectors.cifar import CifarRelation

        return CifarRelation(uri, paths)
    return relations.FileRelation(uri, paths, {"csv": "read_csv", "json": "read_json"}[kind])


def _files_in(sql: str) -> list[str]:
    """The files a query names, as far as its string literals tell; they are watched for changes."""
    paths: list[str] = []
    for text in re.findall(r"'((?:[^']|'')+)'", sql):
        name = text.replace("''", "'")
        if kind_of(name) is None or os.path.isdir(name):  # a separator, a pattern, any other text
            continue
        try:
            found = find_files(name)
        except DataError:
            continue
        paths.extend(found[1] if found is not None else [])
    return paths


def _third_party(uri: str, scheme: str, options: ReadOptions) -> Source:
    for entry in entry_points(group="seqbag.sources", name=scheme):
        try:
            source: Source = entry.load()(uri, options)
        except SeqbagError:
            raise
        except Exception as error:  # someone else's code
            raise DataError(f"{uri}: the source `{entry.value}` failed: {' '.join(str(error).split())}") from error
        return source
    raise UsageError(f"{scheme}://: no such kind of source; understood are {_UNDERSTOOD}{_installed()}")


def _installed() -> str:
    names = sorted({f"{entry.name}://" for entry in entry_points(group="seqbag.sources")})
    return f"; installed: {', '.join(names)}" if names else ""
