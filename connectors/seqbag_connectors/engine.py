"""The query engine under every table: DuckDB in memory, bounded in memory and threads."""

from __future__ import annotations

import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import duckdb

_PREFIX = re.compile(r"^[A-Z][A-Za-z -]* Error: ")
# Operators that hand rows on in the order they came, whatever the number of threads.
_STREAMING = re.compile(r"^(PROJECTION|FILTER|UNNEST|EMPTY_RESULT|.*SCAN.*|READ_.*)$")


def connect(threads: int, memory_bytes: int) -> duckdb.DuckDBPyConnection:
    """A connection that spills beyond `memory_bytes`, keeps rows in order, and fetches and shows nothing by itself."""
    spill = os.path.join(tempfile.gettempdir(), f"seqbag-spill-{uuid.uuid4().hex}")
    con = duckdb.connect(
        ":memory:",
        config={
            "threads": threads,
            "memory_limit": f"{memory_bytes}B",
            "temp_directory": spill,
            "preserve_insertion_order": True,
            "arrow_large_buffer_size": True,
            "autoinstall_known_extensions": False,
            "python_enable_replacements": False,
        },
    )
    con.execute("SET enable_progress_bar = false")  # it is on by itself wherever Python has no main script
    return con


def identifier(name: str) -> str:
    """`name` quoted as a column or table name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` quoted as a string."""
    return "'" + text.replace("'", "''") + "'"


def one_line(error: BaseException) -> str:
    """What the engine had to say, without its error class, its pointer into the query and its line breaks."""
    text = str(error).split("\n\n")[0].split("Possible Solution:")[0]
    while match := _PREFIX.match(text):
        text = text[match.end() :]
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def describe(con: duckdb.DuckDBPyConnection, query: str) -> dict[str, str]:
    """The columns of a query's result and their types, without running it."""
    return {row[0]: row[1] for row in con.execute(f"DESCRIBE {query}").fetchall()}


def keeps_order(con: duckdb.DuckDBPyConnection, query: str) -> bool:
    """Whether the plan of `query` only streams, so that its rows come in one order for any number of threads."""
    plan = json.loads(con.execute(f"EXPLAIN (FORMAT json) {query}").fetchall()[0][1])
    return all(_STREAMING.match(name) for node in plan for name in _operators(node))


def _operators(node: dict[str, Any]) -> Iterator[str]:
    yield str(node["name"]).strip()
    for child in node["children"]:
        yield from _operators(child)
