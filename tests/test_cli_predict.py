"""`seqbag predict`."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.builders import damage_row_group, write_parquet
from tests.command import SEQBAG, call, fails, run, run_json
from tests.conftest import QUICK, log_columns

COLUMNS = ["row", "class", "probability", "p_disk", "p_network", "p_normal"]


@contextmanager
def stream(model: Path, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [SEQBAG, "predict", str(model), *args]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        yield process


def ask(process: subprocess.Popen[bytes], line: str) -> dict[str, object]:
    """Write a line and read the answer; the input stays open."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line.encode() + b"\n")
    answer: dict[str, object] = json.loads(process.stdout.readline())
    return answer


def test_the_formats_agree(logs: Path, model: Path, tmp_path: Path) -> None:
    for suffix in ("parquet", "csv", "jsonl"):
        done = call("predict", model, "--source", logs, "--out", tmp_path / f"p.{suffix}")
        assert (done.returncode, done.stdout) == (0, "")
    table = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert list(table) == COLUMNS
    assert table["row"] == list(range(600))
    assert table["class"] == log_columns(600)["label"]
    assert table["probability"] == [max(values) for values in zip(*(table[name] for name in COLUMNS[3:]), strict=True)]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text())))
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    for name in COLUMNS[3:]:
        assert [float(row[name]) for row in rows] == pytest.approx(table[name], rel=1e-5)
        assert [line["probabilities"][name[2:]] for line in lines] == pytest.approx(table[name], rel=1e-5)
    assert [row["class"] for row in rows] == [line["class"] for line in lines] == table["class"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "p.jsonl", "p.parquet"]


def test_json_lines_on_standard_output_need_no_labels(model: Path, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"message": ["worker 1 says unreachable after 12 ms"]})
    done = call("predict", model, "--source", path, "--no-probabilities", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert list(answer) == ["row", "class", "probability"]
    assert (answer["row"], answer["class"]) == (0, "network")


def test_json_tells_of_the_run(logs: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.parquet"
    report = run_json("predict", model, "--source", logs, "--where", "label = 'disk'", "--out", out)
    assert (report["rows"], report["out"]) == (200, str(out))


def test_many_classes_are_not_spread_over_columns(tmp_path: Path) -> None:
    columns = {"message": [f"word{chr(97 + i % 60 // 10)}{chr(97 + i % 10)}" for i in range(600)]}
    path = write_parquet(tmp_path / "a.parquet", columns | {"label": [i % 60 for i in range(600)]})
    assert call("train", "--source", path, "--out", tmp_path / "m", *QUICK).returncode == 0
    done = call("predict", tmp_path / "m", "--source", path, "--format", "csv")
    assert done.stdout.splitlines()[0] == '"row","class","probability"'
    done = call("predict", tmp_path / "m", "--source", path, "--format", "csv", "--probabilities")
    assert done.stdout.splitlines()[0].count(",") == 62


def test_lines_of_a_stream_are_answered_at_once(model: Path) -> None:
    with stream(model, "-") as process:
        answer = ask(process, "worker 1 says unreachable after 12 ms")
        assert (answer["row"], answer["line"], answer["class"]) == (
            0,
            "worker 1 says unreachable after 12 ms",
            "network",
        )
        answer = ask(process, 'worker 2 says "completed" after 7 ms')
        assert (answer["row"], answer["line"], answer["class"]) == (1, 'worker 2 says "completed" after 7 ms', "normal")
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stream_stops_when_told(model: Path, number: int) -> None:
    with stream(model, "--source", "-") as process:
        ask(process, "worker 1 says unreachable after 12 ms")
        process.send_signal(number)
        assert process.stderr is not None
        assert process.stderr.read() == b"seqbag: interrupted\n"
    assert process.returncode == 130


def test_a_reader_that_has_seen_enough(model: Path) -> None:
    with stream(model, "-") as process:
        ask(process, "worker 1 says unreachable after 12 ms")
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(b"one more\n")
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_model_of_tokens_is_told_how_to_read_lines(logs: Path, tmp_path: Path) -> None:
    model = tmp_path / "tokens.seqbag"
    assert call("train", "--source", logs, "--tokens", "tags", "--out", model, *QUICK).returncode == 0
    message = "the model reads tokens and `-` gives lines: say how to make them, e.g. "
    fails(2, message + "--tokens \"string_split(line, ' ')\"", "predict", model, "-")
    done = run("predict", model, "-", "--tokens", "string_split(line, ' ')", stdin=b"start readonly e1\n")
    assert json.loads(done.stdout)["class"] == "disk"


def test_a_model_of_an_oddly_named_column_reads_lines(tmp_path: Path) -> None:
    columns = log_columns(600)
    path = write_parquet(tmp_path / "a.parquet", {"log.message": columns["message"], "label": columns["label"]})
    model = tmp_path / "m.seqbag"
    assert call("train", "--source", path, "--out", model, *QUICK).returncode == 0
    done = run("predict", model, "-", stdin=b"worker 1 says unreachable after 5 ms\n")
    assert (json.loads(done.stdout)["class"], done.stderr) == ("network", "")


def test_nothing_half_written(model: Path, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", log_columns(12_000), row_group_size=3000)
    damage_row_group(path, 3)
    for name in ("p.parquet", "p.jsonl"):
        done = call("predict", model, "--source", path, "--out", tmp_path / name)
        assert done.returncode == 3
        assert done.stderr.splitlines()[-1].startswith(f"seqbag: {path}: ")
        assert "Exception" not in done.stderr
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_output_that_cannot_be_written(logs: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "absent" / "p.parquet"
    message = f"{out} cannot be written (there is no folder {out.parent}): choose another place with --out"
    fails(3, message, "predict", model, "--source", logs, "--out", out)
    message = f"--out {tmp_path}/p.txt tells no format: name it .parquet, .csv or .jsonl, or give --format"
    fails(2, message, "predict", model, "--source", logs, "--out", tmp_path / "p.txt")
    message = "--format parquet needs --out: Parquet does not go to a terminal or a pipe"
    fails(2, message, "predict", model, "--source", logs, "--format", "parquet")


def test_a_full_disk(logs: Path, model: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [SEQBAG, "predict", model, "--source", logs], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (3, "seqbag: No space left on device\n")
