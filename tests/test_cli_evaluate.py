"""`seqbag evaluate`, and what is wrong with model files."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
import safetensors.numpy

from tests.builders import stripes, write_parquet
from tests.command import call, fails, run_json
from tests.conftest import log_columns


def test_json_is_the_whole_output(logs: Path, model: Path) -> None:
    report = run_json("evaluate", model, "--source", logs)
    assert list(report) == [
        "rows", "accuracy", "macro_f1", "log_loss", "unseen_rows", "per_class", "seconds", "rows_per_second"
    ]  # fmt: skip
    assert (report["rows"], report["accuracy"], report["macro_f1"], report["unseen_rows"]) == (600, 1.0, 1.0, 0)
    assert report["per_class"]["disk"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "rows": 200}


def test_the_table_for_people(logs: Path, model: Path) -> None:
    done = call("evaluate", model, "--source", logs, "--quiet")
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("600 rows: accuracy 1.0000, macro-F1 1.0000, log-loss ")
    assert [line.split()[0] for line in lines[1:]] == ["class", "disk", "network", "normal"]


def test_threads_change_nothing(model: Path, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "many.parquet", log_columns(9_000))
    one, two = (run_json("evaluate", model, "--source", path, "--threads", threads) for threads in (1, 3))
    assert one["rows"] == 9_000
    assert all(one[name] == two[name] for name in ("accuracy", "log_loss", "per_class"))


def test_where_and_other_columns(logs: Path, model: Path) -> None:
    report = run_json(
        "evaluate", model, "--source", logs, "--text", "upper(message)", "--label", "upper(label)",
        "--where", "label = 'disk'",
    )  # fmt: skip
    assert (report["rows"], report["accuracy"], report["unseen_rows"]) == (200, 0.0, 200)
    assert report["log_loss"] is None


def test_labels_not_seen_in_training_count_as_wrong(model: Path, tmp_path: Path) -> None:
    columns = log_columns(100)
    columns["label"][:5] = ["new", "newer", "new", "newest", "last"]
    done = call("evaluate", model, "--source", write_parquet(tmp_path / "a.parquet", columns))
    assert done.returncode == 0
    warning = "seqbag: 5 rows have labels not seen in training ('new', 'newer', 'newest'): counted as wrong"
    assert warning in done.stderr.splitlines()
    assert done.stdout.startswith("100 rows: accuracy 0.9500")


def test_null_labels(model: Path, tmp_path: Path) -> None:
    columns = log_columns(100)
    columns["label"][7] = None
    path = write_parquet(tmp_path / "a.parquet", columns)
    message = 'row 8 has no label (1 in this batch): leave such rows out with --where "LABEL IS NOT NULL"'
    fails(3, message, "evaluate", model, "--source", path)


def test_a_column_of_another_kind(logs: Path, model: Path) -> None:
    message = "the model was trained with --text and cannot read --tokens: name a column with --text"
    fails(2, message, "evaluate", model, "--source", logs, "--tokens", "tags")


def test_the_models_column_is_missing(model: Path, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"body": ["x", "y"], "label": ["disk", "disk"]})
    fails(3, f"{path}: no column `message` for --text; Columns: body, label", "evaluate", model, "--source", path)


class TestModelFiles:
    """Exit code 4, whatever the command."""

    @pytest.mark.parametrize("args", [("evaluate", "--source", "x"), ("predict", "--source", "x"), ("inspect",)])
    def test_missing(self, tmp_path: Path, args: tuple[str, ...]) -> None:
        path = tmp_path / "absent.seqbag"
        message = f"{path} does not exist: give the file that `seqbag train --out` wrote"
        fails(4, message, args[0], path, *args[1:])

    def test_not_a_model(self, logs: Path) -> None:
        done = call("inspect", logs)
        assert done.returncode == 4
        assert done.stderr.startswith(f"seqbag: {logs} is not a model file (")
        assert done.stderr.endswith("): give a file that `seqbag train` wrote\n")

    def test_safetensors_of_something_else(self, tmp_path: Path) -> None:
        path = tmp_path / "other.safetensors"
        safetensors.numpy.save_file({}, path)
        message = f"{path} is a safetensors file but not a seqbag model: give a file that `seqbag train` wrote"
        fails(4, message, "inspect", path)

    def test_truncated(self, model: Path, tmp_path: Path) -> None:
        path = tmp_path / "cut.seqbag"
        path.write_bytes(model.read_bytes()[:-1000])
        done = call("inspect", path)
        assert done.returncode == 4
        assert done.stderr.startswith(f"seqbag: {path} is not a model file (")
        assert done.stderr.count("\n") == 1

    def test_newer_format(self, model: Path, tmp_path: Path) -> None:
        path = tmp_path / "new.seqbag"
        description = json.dumps({"format": 99})
        safetensors.numpy.save_file({}, path, metadata={"seqbag": description})
        done = call("evaluate", path, "--source", "x")
        assert done.returncode == 4
        assert done.stderr.startswith(f"seqbag: {path} has format 99, newer than the ")
        assert done.stderr.endswith(" reads: update seqbag\n")


def test_pixels_in_lists_have_the_shape_of_training(tmp_path: Path) -> None:
    pixels, labels = stripes(120, (8, 8, 1))
    lists = pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), 64)
    columns = {"image": lists, "label": [("across", "down")[label] for label in labels]}
    source, model, packed = write_parquet(tmp_path / "p.parquet", columns), tmp_path / "m.seqbag", tmp_path / "packed"
    small = ("--layers", "1", "--filters", "8", "--polish", "1", "--activation", "sign")
    run_json("train", "--source", source, "--shape", "8,8,1", "--out", model, *small)
    export = ("export", model, "--weights", "ternary", "--activations", "sign", "--out", packed, "--source", source)
    assert call(*export).returncode == 0
    for file in (model, packed):
        assert run_json("evaluate", file, "--source", source)["rows"] == 120
    told = f"{source}: row 1: 64 pixels, not 4x8x1 = 32; mend --shape"
    fails(3, told, "evaluate", model, "--source", source, "--shape", "4,8,1", "--quiet")
