"""Tables from Parquet files and databases: what is chosen, pushed down, and said when something is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from seqbag.batch import TextColumn
from seqbag.errors import UsageError
from seqbag_connectors import open_source
from tests.builders import EVENTS, LABELS, MESSAGES, damage_row_group, table, write_database, write_parquet
from tests.contracts import all_rows
from tests.opened import refusal, table_source


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


def test_a_query_that_outgrows_its_memory_says_so(tmp_path: Path) -> None:
    sql = "SELECT list(x) AS tokens FROM range(30000000) t(x)"
    message = refusal(":memory:", sql=sql, need_label=False, memory_bytes=50 << 20)
    assert message.startswith(":memory:: the query needs more memory (failed to")
    assert message.endswith("): give it less to sort, group or join, or `seqbag train` more --memory")


def test_a_database_without_one_table_needs_sql(tmp_path: Path) -> None:
    path = write_database(tmp_path / "a.duckdb", table(20))
    write_database(path, table(20), "other")
    assert refusal(path).startswith(f"{path}: 2 tables (logs, other)")
    assert len(all_rows(open_source(str(path), sql="FROM other"))) == 20
    assert refusal(tmp_path / "a.duckdb", sql="FROM third").startswith(f"{path}: --sql: Table with name third")


def test_one_database_is_read_at_a_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_database(tmp_path / f"{name}.duckdb", table(20))
    assert refusal(tmp_path) == f"{tmp_path}: 2 databases, of which one can be read at a time: name it"


def test_values_of_several_types_are_read_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"message": "a \\"b\\" \\u00e9", "label": "x"}\n{"message": 7, "label": 3}\n')
    assert all_rows(open_source(str(path))) == [('a "b" é', "x"), ("7", "3")]


def test_bytes_that_are_text_are_decoded_on_request(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"message": ["é".encode()], "label": ["x"]})
    told = f'{path}: --text message is BLOB; try --text "decode(message)"'
    assert refusal(path, text="message") == told
    assert all_rows(open_source(str(path), text="decode(message)")) == [("é", "x")]


def test_a_shape_is_of_images(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", table(20))
    with pytest.raises(UsageError) as caught:
        open_source(str(path), text="message", shape=(28, 28, 1))
    assert str(caught.value) == "--shape is about images, and `message` is read as text: leave it out"
    with pytest.raises(UsageError, match="--shape 28,28: give HEIGHT,WIDTH,CHANNELS, each at least 1"):
        open_source(str(path), text="message", shape=(28, 28))


def test_only_literals_that_name_files_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", table(20))
    (tmp_path / "b.log").touch()
    monkeypatch.chdir(tmp_path)
    sql = f"SELECT string_split(message, '.') AS tokens, message LIKE '*' AS label, '/' AS x FROM '{path}'"
    assert table_source(":memory:", sql=sql)._relation.files.paths == (str(path),)


def test_the_engine_shows_no_progress_of_its_own() -> None:
    """Where Python has no main script, as in a notebook, it would."""
    code = (
        "from seqbag_connectors.engine import connect\n"
        "print(connect(1, 10**9).execute(\"SELECT current_setting('enable_progress_bar')\").fetchall())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[(False,)]\n"
