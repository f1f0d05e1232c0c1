"""The generator of example logs: the same for the same seed, whatever the number of rows, and worth learning from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import generate_logs
from log_lines import BLOCK_ROWS, LINE_SCHEMA, generate_block, read_catalogue

EXAMPLES = Path(__file__).parents[1] / "examples"
ROWS = 2 * BLOCK_ROWS + 5000


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "generate_logs.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with logs.parquet of several blocks and its session table, made by the command."""
    made = tmp_path_factory.mktemp("logs")
    done = run("--rows", str(ROWS), "--seed", "7", "--out", "logs.parquet", "--sessions", folder=made)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["logs.parquet", "logs_sessions.parquet"]
    return made


@pytest.fixture(scope="module")
def lines(folder: Path) -> pa.Table:
    return pq.read_table(folder / "logs.parquet")


def test_parquet_has_the_schema_and_a_row_group_for_each_block(folder: Path) -> None:
    file = pq.ParquetFile(folder / "logs.parquet")
    assert file.schema_arrow.equals(LINE_SCHEMA)
    groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert groups == [BLOCK_ROWS, BLOCK_ROWS, 5000]


def test_first_rows_do_not_depend_on_how_many_follow(lines: pa.Table) -> None:
    (few, _), *more = generate_logs.generate(1000, seed=7)
    assert more == []
    assert few.equals(lines.slice(0, 1000).combine_chunks())


def test_blocks_and_seeds_differ(lines: pa.Table) -> None:
    catalogue = read_catalogue()
    again, _ = generate_block(catalogue, 7, 1)
    assert again.equals(lines.slice(BLOCK_ROWS, BLOCK_ROWS).combine_chunks())
    other, _ = generate_block(catalogue, 8, 1)
    for first, second in ((again, other), (again, lines.slice(0, BLOCK_ROWS))):
        same = pc.equal(first["message"].combine_chunks(), second["message"].combine_chunks())
        assert pc.mean(same.cast(pa.int8())).as_py() < 0.01


def test_every_state_service_and_shape_of_line_occurs(lines: pa.Table) -> None:
    catalogue = read_catalogue()
    assert set(lines["label"].unique().to_pylist()) == set(catalogue.states)
    assert set(lines["service"].unique().to_pylist()) == set(catalogue.services)
    assert set(lines["event"].unique().to_pylist()) == {line.event for line in catalogue.lines}
    counts = {count["values"]: count["counts"] for count in lines["label"].value_counts().to_pylist()}
    assert 0.4 < counts["normal"] / ROWS < 0.7
    assert min(counts.values()) > 0.01 * ROWS


def test_messages_are_whole(lines: pa.Table) -> None:
    message = lines["message"]
    assert message.null_count == 0
    assert pc.min(pc.utf8_length(message)).as_py() > 10
    assert not pc.any(pc.match_substring_regex(message, r"[{}\n]")).as_py()
    uuids = lines.filter(pc.match_substring(message, "order "))["message"].slice(0, 50).to_pylist()
    pattern = r"order [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12} "
    assert pc.all(pc.match_substring_regex(pa.array(uuids), f"{pattern}|challenge failed")).as_py()


def test_label_cannot_be_read_off_event_and_level(lines: pa.Table) -> None:
    counted = lines.group_by(["event", "level", "label"]).aggregate([([], "count_all")])
    best = counted.group_by(["event", "level"]).aggregate([("count_all", "max")])
    assert pc.sum(best["count_all_max"]).as_py() < 0.9 * ROWS


def test_a_session_is_a_run_of_lines_in_order_of_time(lines: pa.Table) -> None:
    session = lines["session"].combine_chunks()
    starts = np.concatenate([[True], pc.not_equal(session[1:], session[:-1]).to_numpy(False)])
    assert starts.sum() == pc.count_distinct(session).as_py()
    waited = np.diff(lines["timestamp"].combine_chunks().cast(pa.int64()).to_numpy())
    assert (waited[~starts[1:]] > 0).all()


def test_session_table_is_what_the_sql_example_makes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    made = duckdb.sql((EXAMPLES / "sessions.sql").read_text())
    written = duckdb.sql("SELECT session, events, label FROM 'logs_sessions.parquet'")
    assert made.columns == written.columns
    assert sorted(made.fetchall()) == sorted(written.fetchall())


def test_split_keeps_sessions_whole_and_loses_no_line(tmp_path: Path) -> None:
    done = run("--rows", "30000", "--split", "0.25", "--out", "demo", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    train, test = (pq.read_table(tmp_path / "demo" / f"{name}.parquet") for name in ("train", "test"))
    assert len(train) + len(test) == 30000
    assert 0.2 < len(test) / 30000 < 0.3
    assert not set(train["session"].to_pylist()) & set(test["session"].to_pylist())


def test_json_lines_and_log_hold_the_same_messages(tmp_path: Path, lines: pa.Table) -> None:
    for name in ("logs.jsonl", "logs.log"):
        done = run("--rows", "2000", "--seed", "7", "--out", name, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    expected = lines.slice(0, 2000).to_pylist()
    objects = [json.loads(line) for line in (tmp_path / "logs.jsonl").read_text().splitlines()]
    for name in ("session", "host", "event", "message", "label"):
        assert [row[name] for row in objects] == [row[name] for row in expected]
    assert objects[0]["timestamp"] == expected[0]["timestamp"].isoformat().replace("+00:00", "Z")
    plain = (tmp_path / "logs.log").read_text().splitlines()
    assert [line.split(" ", 4)[1:] for line in plain] == [
        [row["host"], row["service"], row["level"], row["message"]] for row in expected
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rows", "0", "--out", "x.parquet"], "--rows must be at least 1"),
        (["--rows", "9", "--out", "x", "--split", "1"], "a share between 0 and 1"),
        (["--rows", "9", "--out", "x.parquet", "--split", "0.5"], "name a folder"),
        (["--rows", "9", "--out", "x.log", "--sessions"], "--format parquet or jsonl"),
        (["--rows", "9", "--out", "x.log", "--format", "jsonl"], "does not end in .jsonl"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert list(tmp_path.iterdir()) == []
