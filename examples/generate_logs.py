"""Write realistic service logs with sessions, incidents and labels: any number of rows, the same for the same seed.

    python examples/generate_logs.py --rows 100000 --seed 1 --out logs.parquet
    python examples/generate_logs.py --rows 100000 --seed 1 --split 0.2 --sessions --out demo

The first n rows of a seed do not depend on how many follow, and memory does not grow with their number.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from log_lines import BLOCK_ROWS, LINE_SCHEMA, generate_block, read_catalogue

SESSION_SCHEMA = pa.schema([("session", pa.string()), ("events", pa.list_(pa.string())), ("label", pa.string())])
FORMATS = ("parquet", "jsonl", "log")


def generate(rows: int, seed: int) -> Iterator[tuple[pa.Table, npt.NDArray[np.float64]]]:
    """The first `rows` lines of the stream of `seed`, block by block, as generate_block gives them."""
    catalogue = read_catalogue()
    for index in range(-(-rows // BLOCK_ROWS)):
        table, held = generate_block(catalogue, seed, index)
        left = rows - index * BLOCK_ROWS
        yield table.slice(0, left), held[:left]


def sessions_of(lines: pa.Table) -> pa.Table:
    """One row a session (SESSION_SCHEMA): its events in order, and the incident among its labels, or else normal.

    lines: LINE_SCHEMA, the lines of a session side by side and in order of time.
    """
    names = lines["session"].combine_chunks()
    starts = np.flatnonzero(np.concatenate([[True], pc.not_equal(names[1:], names[:-1]).to_numpy(False)]))
    label = lines["label"].combine_chunks().dictionary_encode()
    words = label.dictionary.to_pylist()
    normal = words.index("normal") if "normal" in words else -1
    codes = label.indices.to_numpy().astype(np.int64)
    worst = np.maximum.reduceat(np.where(codes == normal, -1, codes), starts)
    events = pa.ListArray.from_arrays(
        pa.array(np.append(starts, len(lines)).astype(np.int32)), lines["event"].combine_chunks()
    )
    chosen = pa.array([*words, "normal"]).take(pa.array(np.where(worst < 0, len(words), worst)))
    return pa.table([names.take(pa.array(starts)), events, chosen], schema=SESSION_SCHEMA)


def as_text(column: pa.Array) -> pa.Array:
    """A column as JSON values: lists of plain words, times as ISO 8601, anything else as escaped text."""
    if pa.types.is_list(column.type):
        return pc.binary_join_element_wise('["', pc.binary_join(column, '","'), '"]', "")
    if pa.types.is_timestamp(column.type):
        text = iso_time(column)
    else:
        text = pc.replace_substring(pc.replace_substring(column, "\\", "\\\\"), '"', '\\"')
    return pc.binary_join_element_wise('"', text, '"', "")


def iso_time(column: pa.Array) -> pa.Array:
    """Times as 2026-01-05T00:00:00.123456Z."""
    return pc.replace_substring(column.cast(pa.string()), " ", "T")


def json_lines(table: pa.Table) -> pa.Array:
    """Each row as a JSON object."""
    pieces: list[pa.Array | str] = []
    for number, name in enumerate(table.column_names):
        pieces += [f'{"," if number else "{"}"{name}":', as_text(table[name].combine_chunks())]
    return pc.binary_join_element_wise(*pieces, "}\n", "")


def log_lines(table: pa.Table) -> pa.Array:
    """Each row as a line of a log file; its label is left out, as it would be in life."""
    columns = [table[name].combine_chunks() for name in ("host", "service", "level", "message")]
    lines = pc.binary_join_element_wise(iso_time(table["timestamp"].combine_chunks()), *columns, " ")
    return pc.binary_join_element_wise(lines, "\n", "")


class Target:
    """A file that tables are appended to, in one of FORMATS. The folder is made where it is missing."""

    def __init__(self, path: Path, kind: str, schema: pa.Schema) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.parquet: pq.ParquetWriter | None = None
        self.file: BinaryIO | None = None
        self.as_lines = json_lines if kind == "jsonl" else log_lines
        if kind == "parquet":
            repeated = [field.name for field in schema if field.name != "message"]
            self.parquet = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated)
        else:
            self.file = path.open("wb")

    def append(self, table: pa.Table) -> None:
        """Write the rows of `table`: one row group in Parquet."""
        if len(table) and self.parquet is not None:
            self.parquet.write_table(table)
        elif len(table) and self.file is not None:
            lines = self.as_lines(table)
            offsets = np.frombuffer(lines.buffers()[1], np.int32)[lines.offset : lines.offset + len(lines) + 1]
            self.file.write(lines.buffers()[2][int(offsets[0]) : int(offsets[-1])])

    def close(self) -> None:
        """Finish the file."""
        for written in (self.parquet, self.file):
            if written is not None:
                written.close()


def write(rows: int, seed: int, out: Path, kind: str, split: float | None, sessions: bool) -> list[Path]:
    """Generate `rows` lines into `out`, a file or a folder, and return the files written.

    kind: one of FORMATS; split: the share of sessions that go to `test` instead of `train`; sessions: whether to write
    a session table beside each file of lines.
    """
    single = out.suffix[1:] in FORMATS
    names = ["train", "test"] if split is not None else ["logs"]
    paths = [out] if single else [out / f"{name}.{kind}" for name in names]
    beside = [path.with_stem(path.stem + "_sessions") for path in paths] if sessions else []
    targets = [Target(path, kind, LINE_SCHEMA) for path in paths]
    session_targets = [Target(path, kind, SESSION_SCHEMA) for path in beside]
    for table, held in generate(rows, seed):
        for number, target in enumerate(targets):
            part = table if split is None else table.filter(pa.array((held < split) == (number == 1)))
            target.append(part)
            if sessions and len(part):
                session_targets[number].append(sessions_of(part))
    for target in targets + session_targets:
        target.close()
    return paths + beside


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description="Write realistic service logs with sessions, incidents and labels.")
    parser.add_argument("--rows", type=int, required=True, help="log lines to write")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same rows (default 0)")
    parser.add_argument("--out", type=Path, required=True, help="a .parquet, .jsonl or .log file, or else a folder")
    parser.add_argument("--format", choices=FORMATS, help="default: by the suffix of --out, else parquet")
    parser.add_argument("--split", type=float, help="share of sessions for test.*, the others go to train.*")
    parser.add_argument("--sessions", action="store_true", help="write a table of sessions beside the lines")
    given = parser.parse_args()
    suffix = given.out.suffix[1:] if given.out.suffix[1:] in FORMATS else None
    kind = given.format or suffix or "parquet"
    if given.rows < 1 or given.seed < 0:
        parser.error("--rows must be at least 1 and --seed at least 0")
    if given.split is not None and not 0 < given.split < 1:
        parser.error(f"--split {given.split}: a share between 0 and 1 is needed, such as 0.2")
    if suffix not in (None, kind):
        parser.error(f"--out {given.out} does not end in .{kind}: change --format or the suffix")
    if suffix and given.split is not None:
        parser.error(f"--out {given.out} is one file: name a folder to use --split")
    if kind == "log" and given.sessions:
        parser.error("--sessions needs --format parquet or jsonl")
    for path in write(given.rows, given.seed, given.out, kind, given.split, given.sessions):
        print(path)


if __name__ == "__main__":
    main()
