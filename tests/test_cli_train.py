"""`seqbag train`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.builders import damage_row_group, write_changing, write_lines, write_parquet
from tests.command import SEQBAG, call, fails, run, run_json
from tests.conftest import QUICK, log_columns


def test_it_finds_the_columns_and_says_what_it_chose(logs: Path, tmp_path: Path) -> None:
    done = run("train", "--source", logs, *QUICK, cwd=tmp_path)
    told = done.stderr.splitlines()
    assert told[0] == f"{logs}: text from `message`, label from `label`"
    assert told[1] == "tokenizer words, 1 layer, windows of 1, 3, 8 filters each"
    assert told[2].startswith("layer 1: counting windows: 600 rows, ")
    assert told[3].startswith("3 classes: disk, network, normal; ")
    assert told[3].endswith(" of 600 rows held out")
    summary = done.stdout.splitlines()
    assert summary[0].startswith("600 rows, 3 classes: accuracy ")
    assert summary[1].startswith("model.seqbag (")
    assert [path.name for path in tmp_path.iterdir()] == ["model.seqbag"]


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="elsewhere a program's usage begins with its parent's"
)
def test_peak_memory_is_that_of_the_program_alone(logs: Path, tmp_path: Path) -> None:
    ballast = bytearray(b"x") * 900_000_000
    report = json.loads(run("train", "--source", logs, "--out", tmp_path / "m.seqbag", *QUICK, "--json").stdout)
    assert 50e6 < report["peak_memory_bytes"] < len(ballast) - 100e6


def test_json_is_the_whole_output(logs: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.seqbag"
    report = run_json("train", "--source", logs, "--out", out, *QUICK)
    assert list(report) == [
        "rows", "classes", "layers", "valid_accuracy", "seconds", "model_bytes", "peak_memory_bytes"
    ]  # fmt: skip
    assert (report["rows"], report["classes"], report["model_bytes"]) == (600, 3, out.stat().st_size)
    assert list(report["layers"][0]) == [
        "patches", "distinct", "codebook", "bags", "clusters", "proxy_accuracy", "valid_accuracy", "seconds"
    ]  # fmt: skip
    assert report["valid_accuracy"] == report["layers"][0]["valid_accuracy"] > 0.9


def test_the_same_seed_gives_the_same_bytes_and_another_others(logs: Path, model: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        run_json("train", "--source", logs, "--out", tmp_path / f"{seed}.seqbag", "--seed", seed, *QUICK)
    assert (tmp_path / "0.seqbag").read_bytes() == model.read_bytes()
    assert (tmp_path / "1.seqbag").read_bytes() != model.read_bytes()


def test_layers_and_no_held_out_rows(logs: Path, tmp_path: Path) -> None:
    report = run_json(
        "train", "--source", logs, "--layers", 2, "--valid-fraction", 0, "--out", tmp_path / "m.seqbag", *QUICK
    )
    assert len(report["layers"]) == 2
    assert report["valid_accuracy"] is None


def test_a_process_that_changed_and_rows_that_weigh_alike_if_told_to(tmp_path: Path) -> None:
    rows, newest = write_changing(tmp_path)
    told, accuracy = [], []
    for number, more in enumerate(([], ["--no-recency"])):
        out = tmp_path / f"{number}.seqbag"
        done = run("train", "--source", rows, "--out", out, *QUICK, "--epochs", 3, *more)
        told += [line for line in done.stderr.splitlines() if line.startswith("recency: ")]
        accuracy.append(run_json("evaluate", out, "--source", newest)["accuracy"])
    assert accuracy == [1, 0]
    assert told == [
        "recency: of 1,633 of the newest rows, equal ones before them predict 0.0000, "
        "and 1.0000 if newer ones weigh more, as they do now"
    ]


def test_the_last_tokens_alone_are_read_by_every_kind_of_model(tmp_path: Path) -> None:
    """Rows that end alike are predicted alike, whatever came before."""
    rows = {
        "events": [[f"e{i % 7}", f"e{i % 3}", f"e{i % 2}"] for i in range(600)],
        "label": [i % 2 for i in range(600)],
    }
    source, model, small = write_parquet(tmp_path / "rows.parquet", rows), tmp_path / "m.seqbag", tmp_path / "s.seqbag"
    report = run_json("train", "--source", source, "--last", 1, "--activation", "sign", "--out", model, *QUICK)
    assert report["valid_accuracy"] == 1
    run_json("export", model, "--out", small, "--source", source)
    for path in (model, small):
        found = run("predict", path, "--source", source, "--format", "jsonl").stdout.splitlines()
        classes = {(i % 2, json.loads(line)["class"]) for i, line in enumerate(found)}
        assert classes == {(0, "0"), (1, "1")}
        assert len({json.dumps(json.loads(line)["probabilities"]) for line in found}) == 2


def test_sessions_by_sql(tmp_path: Path) -> None:
    lines = {"session": [i // 4 for i in range(400)], "event": [f"e{i % 4 + i // 4 % 2 * 2}" for i in range(400)]}
    path = write_parquet(tmp_path / "lines.parquet", lines)
    chosen = "list(event ORDER BY event) AS events, session % 2 AS label"
    sql = f"SELECT {chosen} FROM source GROUP BY session ORDER BY session"
    report = run_json("train", "--source", path, "--sql", sql, "--out", tmp_path / "m.seqbag", *QUICK)
    assert (report["rows"], report["valid_accuracy"]) == (100, 1.0)


def test_text_that_is_not_utf8_trains(tmp_path: Path) -> None:
    lines = [b"level=%s caf\xe9 %d \xff" % ((b"info", b"error")[i % 2], i) for i in range(200)]
    done = call(
        "train", "--source", write_lines(tmp_path / "app.log", lines), "--label", "line LIKE '%error%'",
        "--out", tmp_path / "m.seqbag", *QUICK,
    )  # fmt: skip
    assert done.returncode == 0
    assert "byte sequences that are not UTF-8 were replaced" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_leaves_nothing(logs: Path, tmp_path: Path, number: int) -> None:
    args = [SEQBAG, "train", "--source", str(logs), "--epochs", "1000000", "--threads", "1"]
    with subprocess.Popen(args, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("layer 1: counting"):  # the training of the head is next
                break
        process.send_signal(number)
        rest = process.stderr.read().splitlines()
        assert process.stdout.read() == ""
    assert (process.returncode, rest[-1]) == (130, "seqbag: interrupted")
    assert "Traceback" not in "".join(rest)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_that_is_lost_is_raised_again() -> None:
    """As one that comes while a finaliser runs is."""
    script = (
        "import os, signal\n"
        "from seqbag_cli import interrupt, progress\n"
        "class Last:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGINT)\n"
        "interrupt.catch()\n"
        "with progress.show_progress(True) as shown:\n"
        "    shown.advance(1)\n"
        "    last = Last()\n"
        "    del last\n"
        "    print('went on', flush=True)\n"
        "    shown.advance(1)\n"
        "    print('and on')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "went on\n"
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"


def without(column: str) -> dict[str, Any]:
    return {name: values for name, values in log_columns(300).items() if name != column}


class TestErrors:
    """Each is one line that names the thing and the remedy, with exit code 3, before or without any output."""

    def refused(self, message: str, source: Path, *args: object) -> None:
        out = source.parent / "never.seqbag"
        fails(3, message.replace("SOURCE", str(source)), "train", "--source", source, "--out", out, *QUICK, *args)
        assert not [path for path in source.parent.iterdir() if "never" in path.name]

    def test_missing_file(self, tmp_path: Path) -> None:
        self.refused("SOURCE: no such file or folder", tmp_path / "absent.parquet")

    def test_missing_column(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", log_columns(300))
        message = "SOURCE: no column `mesage` for --text; did you mean `message`? Columns: message, label, tags"
        self.refused(message, path, "--text", "mesage")

    def test_no_label_column(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", without("label"))
        self.refused("SOURCE: no column `label`; name the label with --label. Columns: message, tags", path)

    def test_wrong_type(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", log_columns(300))
        self.refused("SOURCE: --text tags is VARCHAR[]; read it with --tokens tags", path, "--text", "tags")

    def test_null_labels(self, tmp_path: Path) -> None:
        columns = log_columns(300)
        columns["label"][41] = None
        path = write_parquet(tmp_path / "a.parquet", columns)
        message = 'row 42 has no label (1 in this batch): leave such rows out with --where "LABEL IS NOT NULL"'
        self.refused(message, path)

    def test_a_single_class(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", without("label") | {"label": ["x"] * 300})
        self.refused("the label column holds only 'x': training needs rows of two classes or more", path)

    def test_an_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        path.touch()
        self.refused("SOURCE: not a whole Parquet file (Parquet file size is 0 bytes); write or copy it again", path)

    def test_no_rows(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", log_columns(300))
        self.refused("SOURCE: no rows match --where; give a source that holds some", path, "--where", "label = 'x'")

    def test_truncated_parquet(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", log_columns(300))
        path.write_bytes(path.read_bytes()[:-100])
        why = "Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file"
        self.refused(f"SOURCE: not a whole Parquet file ({why}); write or copy it again", path)

    def test_corrupt_parquet(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", log_columns(300), row_group_size=100)
        out = tmp_path / "m.seqbag"
        done = call("train", "--source", damage_row_group(path, 1), "--out", out, *QUICK)
        assert done.returncode == 3
        told = done.stderr.splitlines()[-1]
        assert told.startswith(f"seqbag: {path}: row group 2 of 3 cannot be read (")
        assert told.endswith("); write the file again, or leave such row groups out with --skip-bad")
        assert not out.exists()

    def test_a_column_of_empty_texts(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "a.parquet", without("message") | {"message": [""] * 300})
        message = "SOURCE: text from `message`, label from `label`: every row is empty, there is nothing to learn from"
        self.refused(message, path, "--text", "message")

    def test_output_that_cannot_be_written_is_told_before_training(self, logs: Path, tmp_path: Path) -> None:
        absent = tmp_path / "absent" / "m.seqbag"
        remedy = "choose another place with --out"
        message = f"{absent} cannot be written (there is no folder {absent.parent}): {remedy}"
        fails(3, message, "train", "--source", logs, "--out", absent)
        fails(
            3, f"{tmp_path} cannot be written (it is a folder): {remedy}", "train", "--source", logs, "--out", tmp_path
        )
        message = f"/dev/null cannot be written (it is not a regular file): {remedy}"
        fails(3, message, "train", "--source", logs, "--out", "/dev/null")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
    def test_a_folder_that_is_read_only(self, logs: Path, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        out = tmp_path / "x"
        message = f"{out} cannot be written (the folder {tmp_path} is read-only): choose another place with --out"
        fails(3, message, "train", "--source", logs, "--out", out)


def test_skip_bad_goes_on_without_the_damaged_rows(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", log_columns(600), row_group_size=100)
    damage_row_group(path, 2)
    report = run_json("train", "--source", path, "--skip-bad", "--out", tmp_path / "m.seqbag", *QUICK)
    assert report["rows"] == 500


def test_a_query_over_a_database(tmp_path: Path) -> None:
    with duckdb.connect(tmp_path / "logs.duckdb") as con:
        con.execute(
            "CREATE TABLE lines AS SELECT if(i % 2 = 0, 'up', 'down') AS line, i % 2 AS kind FROM range(300) AS r(i)"
        )
    report = run_json(
        "train", "--source", tmp_path / "logs.duckdb", "--sql", "SELECT * FROM lines", "--label", "kind",
        "--out", tmp_path / "m.seqbag", *QUICK,
    )  # fmt: skip
    assert report["valid_accuracy"] == 1.0
