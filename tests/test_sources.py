"""Sources: one contract for every kind, then what each chooses, pushes down, and says when something is wrong."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbag.batch import Rows, TextColumn
from seqbag.errors import DataError, UsageError
from seqbag_connectors import ReadOptions, open_source
from seqbag_connectors.lines import LineSplitter
from seqbag_connectors.prefetch import prefetch
from seqbag_connectors.stdin import StandardInput
from seqbag_connectors.table import TableSource
from tests.builders import (
    CLASSES,
    EVENTS,
    LABELS,
    MESSAGES,
    damage_row_group,
    pictures,
    png,
    table,
    write_cifar_binary,
    write_cifar_python,
    write_database,
    write_hub_images,
    write_lines,
    write_parquet,
)
from tests.contracts import all_rows, check_source, row_values, text_values

SESSIONS = "SELECT n % 40 AS s, list(message ORDER BY n) AS events, min(label) AS label FROM source GROUP BY s"


def table_source(uri: Path | str, **options: Any) -> TableSource:
    source = open_source(str(uri), **options)
    assert isinstance(source, TableSource)
    return source


def refusal(uri: Path | str, **options: Any) -> str:
    """The one line a source is refused with, at opening or in the first pass."""
    with pytest.raises(DataError) as caught:
        list(open_source(str(uri), **options).batches(100))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _parquet(folder: Path) -> tuple[Path, dict[str, Any]]:
    return write_parquet(folder / "logs.parquet", table()), {}


def _parquet_text(folder: Path) -> tuple[Path, dict[str, Any]]:
    return write_parquet(folder / "logs.parquet", table()), {"text": "message", "where": "n % 3 = 1"}


def _parquet_glob(folder: Path) -> tuple[Path, dict[str, Any]]:
    for i in range(3):
        write_parquet(folder / f"part [{i}]'s.parquet", {"message": MESSAGES[i::3], "label": LABELS[i::3]})
    return folder / "part*.parquet", {}


def _hive(folder: Path) -> tuple[Path, dict[str, Any]]:
    for day in range(3):
        path = folder / "logs" / f"day={day}" / "a.parquet"
        write_parquet(path, {"message": MESSAGES[day::50], "label": LABELS[day::50]})
    (folder / "logs" / "README.txt").write_text("what these are\n")
    return folder / "logs", {"where": "day <> 1"}


def _database(folder: Path) -> tuple[Path, dict[str, Any]]:
    return write_database(folder / "logs.duckdb", table()), {"text": "upper(message)"}


def _database_sql(folder: Path) -> tuple[Path, dict[str, Any]]:
    return write_database(folder / "logs.db", table(400)), {"sql": "SELECT * FROM logs WHERE n > 10;"}


def _memory(folder: Path) -> tuple[str, dict[str, Any]]:
    path = write_parquet(folder / "logs.parquet", table(400))
    return ":memory:", {"sql": f"SELECT message, label FROM '{path}' UNION ALL SELECT 'x', 'y' FROM range(20)"}


def _csv(folder: Path) -> tuple[Path, dict[str, Any]]:
    lines = [f"{m},{label or ''}" for m, label in zip(MESSAGES[:300], LABELS, strict=False)]
    return write_lines(folder / "logs.csv.gz", ["message,label", *lines]), {}


def _json(folder: Path) -> tuple[Path, dict[str, Any]]:
    lines = [json.dumps({"tokens": [i, i * 7], "label": i % 3}) for i in range(300)]
    return write_lines(folder / "logs.jsonl", lines), {}


def _log(folder: Path) -> tuple[Path, dict[str, Any]]:
    lines = [f"{label} {m}" for m, label in zip(MESSAGES, LABELS, strict=True)]
    for i, suffix in enumerate(("log", "log.gz", "log.zst")):
        write_lines(folder / f"app{i}.{suffix}", lines[i::3])
    return folder, {"label": "regexp_extract(line, '^(info|warn)', 1)", "where": "line_number > 20"}


def _sessions(folder: Path) -> tuple[Path, dict[str, Any]]:
    return write_parquet(folder / "logs.parquet", table()), {"sql": SESSIONS}


def _hub(folder: Path) -> tuple[Path, dict[str, Any]]:
    labels = [i * 3 % 10 for i in range(30)]
    return write_hub_images(folder / "train.parquet", pictures(30), labels, CLASSES), {}


def _raw_lists(folder: Path) -> tuple[Path, dict[str, Any]]:
    pixels = [image.ravel().tolist() for image in pictures(30, (4, 5, 2))]
    columns = {"pixels": pa.array(pixels, pa.list_(pa.uint8(), 40)), "label": [i % 2 for i in range(30)]}
    return write_parquet(folder / "train.parquet", columns, row_group_size=9), {"shape": (4, 5, 2)}


def _cifar_binary(folder: Path) -> tuple[Path, dict[str, Any]]:
    return write_cifar_binary(folder / "cifar", pictures(25), [i % 10 for i in range(25)]), {}


def _cifar_python(folder: Path) -> tuple[Path, dict[str, Any]]:
    return write_cifar_python(folder / "cifar", pictures(25), [i % 10 for i in range(25)]), {}


KINDS = [
    _parquet,
    _parquet_text,
    _parquet_glob,
    _hive,
    _database,
    _database_sql,
    _memory,
    _csv,
    _json,
    _log,
    _sessions,
    _hub,
    _raw_lists,
    _cifar_binary,
    _cifar_python,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.strip("_"))
def test_contract(kind: Callable[[Path], tuple[Path | str, dict[str, Any]]], tmp_path: Path) -> None:
    uri, options = kind(tmp_path)
    check_source(lambda threads: open_source(str(uri), threads=threads, **options))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.strip("_"))
def test_a_changed_file_is_noticed(kind: Callable[[Path], tuple[Path | str, dict[str, Any]]], tmp_path: Path) -> None:
    uri, options = kind(tmp_path)
    source = table_source(uri, **options)
    changed = source._relation.files.paths[-1]
    status = os.stat(changed)
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert table_source(uri, **options).fingerprint != source.fingerprint
    with pytest.raises(DataError, match=re.escape(f"{changed} changed while in use")):
        next(source.batches(10))


# --- what is read


def test_rows_arrive_as_they_were_written(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "logs.parquet", table())
    tokens = all_rows(open_source(str(path)))
    assert tokens == [(tuple(e), label) for e, label in zip(EVENTS, LABELS, strict=True)]
    text = all_rows(open_source(str(path), text="message"))
    assert text == list(zip(MESSAGES, LABELS, strict=True))


def test_numbers_arrive_as_text_and_nulls_as_empty(tmp_path: Path) -> None:
    columns = {"events": [[1, None, -30], None, []], "text": ["a", None, "b"], "label": [1.5, None, 2.0]}
    path = write_parquet(tmp_path / "a.parquet", columns)
    assert all_rows(open_source(str(path))) == [(("1", "", "-30"), "1.5"), ((), None), ((), "2.0")]
    assert all_rows(open_source(str(path), text="text")) == [("a", "1.5"), ("", None), ("b", "2.0")]


def test_strings_share_the_bytes_of_the_engine(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "logs.parquet", table())
    rows = next(open_source(str(path), text="message").batches(1000))
    assert isinstance(rows.input, TextColumn)
    assert not rows.input.data.flags.owndata
    assert not rows.input.offsets.flags.owndata


@pytest.mark.parametrize(
    ("columns", "options", "chosen"),
    [
        ({"message": ["m"], "tokens": [["t"]], "label": [1]}, {}, ("tokens", "tokens", "label")),
        ({"line": ["m"], "message": ["m"], "label": [1]}, {}, ("text", "message", "label")),
        ({"events": ["not a list"], "text": ["m"], "label": [1]}, {}, ("text", "text", "label")),
        ({"body": ["m"], "n": [3], "label": ["x"]}, {}, ("text", "body", "label")),
        ({"body": ["m"], "other": ["o"], "kind": [1]}, {"text": "other", "label": "kind"}, ("text", "other", "kind")),
        ({"a b": ["m"], "label": ["x"]}, {"text": "a b"}, ("text", "a b", "label")),
        ({"body": ["m"], "n": [1]}, {"need_label": False}, ("text", "body", None)),
    ],
)
def test_columns_are_chosen_by_type_and_usual_name(
    columns: dict[str, Any], options: dict[str, Any], chosen: tuple[str, str, str | None], tmp_path: Path
) -> None:
    source = table_source(write_parquet(tmp_path / "a.parquet", columns), **options)
    assert (source.kind, source.input, source.label) == chosen
    assert f"`{chosen[1]}`" in source.describe()
    assert all(rows.labels is None for rows in source.batches(5)) == (chosen[2] is None)


def test_sessions_are_built_from_log_lines(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "app.log", [f"{i % 3} event{i}" for i in range(9)])
    sql = """SELECT split_part(line, ' ', 1) AS session, list(split_part(line, ' ', 2) ORDER BY line_number) AS events,
             session AS label FROM source GROUP BY session ORDER BY session"""
    expected = [((f"event{i}", f"event{i + 3}", f"event{i + 6}"), str(i)) for i in range(3)]
    assert all_rows(open_source(str(path), sql=sql)) == expected


def test_a_query_may_read_the_lines_twice(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "app.log", ["a", "b"])
    sql = "SELECT l.line || r.line AS text FROM source l, source r ORDER BY ALL"
    assert [v for v, _ in all_rows(open_source(str(path), sql=sql, need_label=False))] == ["aa", "ab", "ba", "bb"]


def test_only_needed_columns_and_rows_are_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "logs.parquet", table())
    source = table_source(path, text="message", where="n < 10")
    with duckdb.connect() as con:
        source._relation.attach(con)
        plan = con.execute(f"EXPLAIN (FORMAT json) {source._query}").fetchall()[0][1]
    projections, filters = (re.search(f'"{what}": "?(.*)', plan) for what in ("Projections", "Filters"))
    assert projections is not None
    assert "message" in plan
    assert "label" in plan
    assert "events" not in plan
    assert filters is not None
    assert "n < 10" in filters.group(1)


def test_row_counts_are_known_early(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "logs.parquet", table())
    database = write_database(tmp_path / "logs.duckdb", table(123))
    assert open_source(str(path)).rows == 5000
    assert open_source(str(database)).rows == 123
    assert open_source(str(path), where="n < 10").rows is None


def test_the_query_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "logs.parquet", table())
    prints = {open_source(str(path), where=where).fingerprint for where in (None, "n < 10", "n < 11")}
    assert len(prints) == 3


# --- logs


@given(
    st.lists(st.binary(max_size=8).filter(lambda line: b"\n" not in line), max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
    st.integers(1, 9),
)
def test_lines_are_split_as_python_would(lines: list[bytes], end: bytes, last: bool, step: int) -> None:
    data = end.join(lines) + (end if last else b"")
    splitter = LineSplitter()
    found = [t for at in range(0, len(data), step) for c in splitter.feed(data[at : at + step]) for t in text_values(c)]
    found += [t for c in splitter.finish() for t in text_values(c)]
    expected = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if expected[-1] == b"":
        del expected[-1]
    if not data.startswith(b"\xef") or step >= 3:  # a byte order mark is only looked for in one piece
        assert found == [line.removesuffix(b"\r").decode(errors="replace") for line in expected]
        good = b"".join(expected).decode(errors="ignore")
        assert (splitter.replaced > 0) == (len(good.encode()) < len(b"".join(expected)))


def test_undecodable_bytes_are_replaced_and_counted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "app.log", [b"caf\xe9 \xff", "fine", b"nul \x00 \xf0\x9f"])
    source = table_source(path, need_label=False)
    expected = ["caf\ufffd \ufffd", "fine", "nul \x00 \ufffd"]
    assert [value for value, _ in all_rows(source)] == expected
    assert source.replaced == 3
    assert "3 undecodable byte sequences replaced" in source.describe()


def test_a_file_of_one_endless_line_is_cut(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "app.log.gz", [b"x" * (40 << 20), b"end"])
    lengths = [len(value) for value, _ in all_rows(open_source(str(path), need_label=False))]
    assert sum(lengths) == (40 << 20) + 3
    assert max(lengths) < 24 << 20


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_broken_tail_is_named(suffix: str, tmp_path: Path) -> None:
    good = write_lines(tmp_path / "a.log", ["fine"])
    path = write_lines(tmp_path / f"b.log.{suffix}", MESSAGES)
    path.write_bytes(path.read_bytes()[:-40])
    message = refusal(tmp_path / "*.log*", need_label=False)
    assert message.startswith(f"{path}: cannot be read to its end")
    assert good.exists()


# --- standard input


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


# --- what is refused, and how


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"text": "mesage"},
            "no column `mesage` for --text; did you mean `message`? Columns: message, events, label, n",
        ),
        (
            {"label": "labels"},
            "no column `labels` for --label; did you mean `label`? Columns: message, events, label, n",
        ),
        ({"text": "n"}, '--text n is BIGINT; try --text "CAST(n AS VARCHAR)"'),
        ({"text": "events"}, "--text events is VARCHAR[]; read it with --tokens events"),
        (
            {"tokens": "message"},
            "--tokens message is VARCHAR; read it with --text message, "
            "or split it: --tokens \"string_split(message, ' ')\"",
        ),
        (
            {"image": "message"},
            "--image message is VARCHAR; images are PNG or JPEG bytes, or lists of UTINYINT with --shape",
        ),
        ({"label": "events"}, "--label events is VARCHAR[]; a label is one text or number a row"),
        ({"text": "lower(message"}, "--text lower(message: syntax error"),
        ({"where": "n <"}, "--where n <: syntax error"),
        ({"where": "m = 1"}, '--where m = 1: Referenced column "m" not found in FROM clause!'),
        ({"where": "n > 9999"}, "no rows match --where; give a source that holds some"),
        ({"sql": "SELECT * FROM nowhere"}, "--sql: Table with name nowhere does not exist!"),
        ({"sql": "DROP TABLE x"}, "--sql: syntax error"),
        ({"text": "CAST(CAST(message AS INTEGER) AS VARCHAR)"}, "Could not convert string"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], expected: str, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "logs.parquet", table(50))
    assert refusal(path, **options).startswith(f"{path}: {expected}")


def test_columns_that_cannot_be_guessed_are_listed(tmp_path: Path) -> None:
    two = write_parquet(tmp_path / "two.parquet", {"a": ["x"], "b": ["y"], "label": [1]})
    assert refusal(two) == (
        f"{two}: 2 columns could be the input; name one with --text, --tokens or --image. Columns: a, b, label"
    )
    none = write_parquet(tmp_path / "none.parquet", {"a": [1], "label": [1]})
    assert "no column holds text, lists or images" in refusal(none)
    unlabelled = write_parquet(tmp_path / "u.parquet", {"text": ["x"], "y": [1]})
    assert refusal(unlabelled) == f"{unlabelled}: no column `label`; name the label with --label. Columns: text, y"


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.parquet") == f"{tmp_path}/no.parquet: no such file or folder"
    assert refusal(tmp_path / "*.log") == f"{tmp_path}/*.log: no file matches"
    assert "holds no file of a kind that is understood" in refusal(tmp_path)
    for uri, what in (("what.ever", "not a source"), ("ftp://x/y", "no such kind of source"), (":memory:", "--sql")):
        with pytest.raises(UsageError, match=what):
            open_source(uri)
    with pytest.raises(UsageError, match="exclude each other"):
        open_source("a.parquet", text="a", tokens="b")


@pytest.mark.parametrize("name", ["a.parquet", "a.duckdb", "a.log", "a.csv", "a.jsonl", "a.log.gz", "data_batch_1.bin"])
def test_empty_and_foreign_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    assert refusal(path, need_label=False).startswith(f"{path}: ")
    if not name.endswith(".log"):
        path.write_bytes(bytes(range(1, 256)) * 9)
        assert refusal(path, need_label=False, text="line").startswith(f"{path}: ")


def test_no_rows(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": pa.array([], pa.string()), "label": pa.array([], pa.int8())})
    assert refusal(path) == f"{path}: no rows; give a source that holds some"


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", table(50))
    path = write_parquet(tmp_path / "b.parquet", table())
    path.write_bytes(path.read_bytes()[:-1000])
    assert refusal(tmp_path).startswith(f"{path}: not a whole Parquet file (")


def test_a_damaged_row_group_is_named_or_skipped(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", table(1500))
    path = damage_row_group(write_parquet(tmp_path / "b.parquet", table()), 2)
    options = {"text": "message", "where": "n >= 0"}
    assert refusal(tmp_path, **options).startswith(f"{path}: row group 3 of 5 cannot be read (")
    left = [(m, label) for i, (m, label) in enumerate(zip(MESSAGES, LABELS, strict=True)) if i // 1000 != 2]
    expected = list(zip(MESSAGES[:1500], LABELS[:1500], strict=True)) + left
    for threads in (1, 2):
        source = table_source(tmp_path, skip_bad=True, threads=threads, **options)
        assert source.skipped_row_groups == 1
        assert "1 damaged row groups skipped" in source.describe()
        assert all_rows(source) == expected
    assert table_source(tmp_path, text="message", skip_bad=True).rows == len(expected)
    assert table_source(path, tokens="events", skip_bad=True).skipped_row_groups == 0, "the damage is in `message`"
    assert table_source(write_parquet(tmp_path / "c.parquet", table()), skip_bad=True).rows == 5000


def test_a_file_that_vanishes_or_shrinks_between_passes(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", table())
    source = open_source(str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(
        DataError, match=f"{path} changed while in use: {len(whole)} bytes before, {len(whole) - 100} now"
    ):
        next(source.batches(10))
    path.unlink()
    with pytest.raises(DataError, match=f"{path} changed while in use: it was deleted"):
        next(source.batches(10))


def test_a_query_that_outgrows_its_memory_says_so(tmp_path: Path) -> None:
    sql = "SELECT list(x) AS tokens FROM range(30000000) t(x)"
    message = refusal(":memory:", sql=sql, need_label=False, memory_bytes=50 << 20)
    assert message.startswith(":memory:: the query needs more memory; raise --memory (failed to")


def test_a_database_without_one_table_needs_sql(tmp_path: Path) -> None:
    path = write_database(tmp_path / "a.duckdb", table(20))
    write_database(path, table(20), "other")
    assert refusal(path).startswith(f"{path}: 2 tables (logs, other)")
    assert len(all_rows(open_source(str(path), sql="FROM other"))) == 20
    assert refusal(tmp_path / "a.duckdb", sql="FROM third").startswith(f"{path}: --sql: Table with name third")


# --- images


def _images(folder: Path, blobs: list[bytes | None]) -> Path:
    columns = {"image": pa.array(blobs, pa.binary()), "label": [0] * len(blobs)}
    return write_parquet(folder / "a.parquet", columns)


def test_png_and_grey_images_keep_their_pixels(tmp_path: Path) -> None:
    grey = pictures(5, (6, 4, 1))
    path = _images(tmp_path, [png(image) for image in grey])
    rows = next(open_source(str(path)).batches(10))
    assert np.array_equal(rows.input.pixels, grey)  # type: ignore[union-attr]
    raw = _images(tmp_path, [image.tobytes() for image in grey])
    rows = next(open_source(str(raw), shape=(6, 4, 1)).batches(10))
    assert np.array_equal(rows.input.pixels, grey)  # type: ignore[union-attr]


def test_mixed_colour_is_read_as_the_shape_says(tmp_path: Path) -> None:
    colour, grey = pictures(1, (6, 4, 3))[0], pictures(1, (6, 4, 1))[0]
    path = _images(tmp_path, [png(colour), png(grey)])
    expected = "row 2: the image is 6x4x1, the first image has 6x4x3; give --shape 6,4,3 to read them all in colour"
    assert refusal(path) == f"{path}: {expected}"
    rows = next(open_source(str(path), shape=(6, 4, 3)).batches(10))
    assert np.array_equal(rows.input.pixels[1], np.repeat(grey, 3, axis=2))  # type: ignore[union-attr]


@pytest.mark.parametrize("threads", [1, 2])
def test_faulty_images_are_named_by_row(threads: int, tmp_path: Path) -> None:
    good = png(pictures(1, (6, 4, 3))[0])
    deep = png(np.zeros((6, 4), np.uint16))
    faults: list[tuple[bytes | None, str]] = [
        (b"no image", "8 bytes that are no image; leave such rows out with --where"),
        (good[:-30], "the image cannot be decoded ("),
        (
            png(pictures(1, (4, 6, 3))[0]),
            "the image is 4x6x3, the first image has 6x4x3; all images must have one size",
        ),
        (deep, "pixels of mode I;16 are not bytes; convert it to 8 bits a channel"),
        (None, "the image is null; leave such rows out with --where"),
    ]
    for blob, what in faults:
        path = _images(tmp_path, [good] * 700 + [blob] + [good] * 700)
        with pytest.raises(DataError, match=re.escape(f"{path}: row 701: {what}")):
            list(open_source(str(path), threads=threads).batches(600))
    path = _images(tmp_path, [good])
    assert "row 1: the image is 6x4x3, --shape says 7x4x3; all images must have one size" in refusal(
        path, shape=(7, 4, 3)
    )


def test_pixel_lists_must_be_bytes_of_the_shape(tmp_path: Path) -> None:
    lists = [[0, 1], [0, 1], [0, 1, 2]]
    path = write_parquet(tmp_path / "a.parquet", {"img": pa.array(lists, pa.list_(pa.uint8())), "label": [1, 2, 3]})
    assert "row 3: 3 pixels, not 1x2x1 = 2; mend --shape" in refusal(path, shape=(1, 2, 1))
    assert "give --shape HEIGHT,WIDTH,CHANNELS" in refusal(path)
    floats = write_parquet(tmp_path / "b.parquet", {"img": [[0.5, float("nan")]], "label": [1]})
    assert "--image img is DOUBLE[]; pixels must be bytes" in refusal(floats, image="img", shape=(1, 2, 1))


def test_class_numbers_become_names(tmp_path: Path) -> None:
    path = write_hub_images(tmp_path / "a.parquet", pictures(5, (3, 3, 3)), [2, 0, -1, 7, 1], ("cat", "dog", "it's"))
    source = table_source(path)
    assert source.class_names == ("cat", "dog", "it's")
    assert [label for _, label in all_rows(source)] == ["it's", "cat", None, "7", "dog"]


# --- reading ahead


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


# --- third parties


def test_a_third_party_adds_a_source_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site"
    (package / "other-1.0.dist-info").mkdir(parents=True)
    (package / "other-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (package / "other-1.0.dist-info" / "entry_points.txt").write_text(
        "[seqbag.sources]\nother = other_source:Opened\nfaulty = other_source:Missing\n"
    )
    (package / "other_source.py").write_text(
        "class Opened:\n    def __init__(self, uri, options):\n        self.uri, self.options = uri, options\n"
    )
    monkeypatch.syspath_prepend(package)
    source: Any = open_source("other://here", where="x")
    assert (source.uri, source.options) == ("other://here", ReadOptions(where="x"))
    assert "the source `other_source:Missing` failed" in refusal("faulty://here")
    with pytest.raises(UsageError, match="installed: faulty://, other://"):
        open_source("third://here")


def test_rows_have_a_length() -> None:
    assert len(Rows(TextColumn(np.zeros(0, np.uint8), np.zeros(4, np.int64)), None)) == 3
