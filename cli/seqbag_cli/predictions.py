"""Predictions as Parquet, CSV or JSON lines, to a file that appears whole or not at all, or to standard output.

Columns: `row` (its number in what was read, from 0), `class`, `probability` of that class, and, where they are asked
for, the probabilities of all classes: a column `p_CLASS` each, or in JSON one object `probabilities`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, get_args

import numpy as np

from seqbag.batch import Float32s, Rows, TextColumn
from seqbag.errors import DataError, UsageError
from seqbag.store import check_writable

Format = Literal["parquet", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
MOST_PROBABILITIES = 50  # classes, up to which all probabilities are written unasked


class Writer(Protocol):
    """Takes batches in order."""

    def write(self, first_row: int, rows: Rows, probabilities: Float32s) -> None:
        """Add predictions for rows numbered from first_row. probabilities: (n, classes)."""

    def close(self) -> None:
        """Finish the file."""


def choose_format(given: Format | None, out: Path | None) -> Format:
    """The format named, else that of the suffix, else JSON lines. Raises UsageError if it cannot be told."""
    if out is None:
        if given == "parquet":
            raise UsageError("--format parquet needs --out: Parquet does not go to a terminal or a pipe")
        return given or "jsonl"
    suffixes: dict[str, Format] = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
    chosen = given or suffixes.get(out.suffix.lower())
    if chosen is None:
        raise UsageError(f"--out {out} tells no format: name it .parquet, .csv or .jsonl, or give --format")
    return chosen


@contextmanager
def open_writer(out: Path | None, kind: Format, classes: tuple[str, ...], every: bool, lines: bool) -> Iterator[Writer]:
    """A writer to `out`, or to standard output. every: all probabilities; lines: JSON objects repeat the text.

    Raises DataError, naming the file, if it cannot be written.
    """
    if out is None:
        yield _writer(sys.stdout.buffer, kind, classes, every, lines)
        sys.stdout.buffer.flush()
        return
    check_writable(out)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            writer = _writer(file, kind, classes, every, lines)
            try:
                yield writer
            except BaseException:
                with suppress(Exception):  # what is written of it is thrown away below
                    writer.close()
                raise
            writer.close()
        temporary.replace(out)
    except OSError as error:
        what = error.strerror or " ".join(str(error).split())
        raise DataError(f"{out} cannot be written ({what}): choose another place with --out") from error
    finally:
        temporary.unlink(missing_ok=True)


def _writer(file: BinaryIO, kind: Format, classes: tuple[str, ...], every: bool, lines: bool) -> Writer:
    if kind == "jsonl":
        return JsonLines(file, classes, every, lines)
    return Table(file, kind, classes, every)


class JsonLines:
    """One object a line, handed on at the end of every batch."""

    def __init__(self, file: BinaryIO, classes: tuple[str, ...], every: bool, lines: bool) -> None:
        self._file, self._every, self._lines = file, every, lines
        self._names = [json.dumps(name, ensure_ascii=False) for name in classes]

    def write(self, first_row: int, rows: Rows, probabilities: Float32s) -> None:
        best = probabilities.argmax(1)
        texts = _texts(rows.input) if self._lines and isinstance(rows.input, TextColumn) else None
        out = []
        for number, (chosen, values) in enumerate(zip(best.tolist(), probabilities.tolist(), strict=True)):
            text = "" if texts is None else f', "line": {json.dumps(texts[number], ensure_ascii=False)}'
            line = f'{{"row": {first_row + number}{text}, "class": {self._names[chosen]}'
            line += f', "probability": {values[chosen]:.6g}'
            if self._every:
                each = ", ".join(f"{name}: {value:.6g}" for name, value in zip(self._names, values, strict=True))
                line += f', "probabilities": {{{each}}}'
            out.append(line + "}\n")
        self._file.write("".join(out).encode("utf-8", "replace"))
        self._file.flush()

    def close(self) -> None:
        self._file.flush()


class Table:
    """Parquet or CSV, a row group or a piece of text for every batch."""

    def __init__(self, file: BinaryIO, kind: Format, classes: tuple[str, ...], every: bool) -> None:
        import pyarrow as pa
        from pyarrow import csv, parquet

        self._file, self._classes, self._every = file, classes, every
        fields = [("row", pa.int64()), ("class", pa.string()), ("probability", pa.float32())]
        fields += [(f"p_{name}", pa.float32()) for name in classes] if every else []
        self._schema = pa.schema(fields)
        self._names = pa.array(classes, pa.string())
        writer = parquet.ParquetWriter if kind == "parquet" else csv.CSVWriter
        self._writer = writer(file, self._schema)

    def write(self, first_row: int, rows: Rows, probabilities: Float32s) -> None:
        import pyarrow as pa

        best = probabilities.argmax(1)
        numbers = np.arange(first_row, first_row + len(rows))
        columns = [pa.array(numbers), self._names.take(pa.array(best)), pa.array(probabilities.max(1))]
        if self._every:
            columns += [pa.array(column) for column in np.ascontiguousarray(probabilities.T)]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._file.flush()

    def close(self) -> None:
        self._writer.close()


def _texts(column: TextColumn) -> list[str]:
    offsets = (column.offsets - column.offsets[0]).tolist()
    data = column.data[column.offsets[0] : column.offsets[-1]].tobytes()
    return [data[start:stop].decode("utf-8", "replace") for start, stop in pairwise(offsets)]
