"""One contract for sources of every kind, from this project or another."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from seqbag.batch import Rows, TextColumn
from seqbag.errors import DataError, UsageError
from seqbag_connectors import ReadOptions, open_source
from seqbag_connectors.files import Files
from tests.builders import (
    CLASSES,
    LABELS,
    MESSAGES,
    pictures,
    table,
    write_cifar_binary,
    write_cifar_python,
    write_database,
    write_hub_images,
    write_lines,
    write_parquet,
)
from tests.command import call, run_json
from tests.conftest import QUICK
from tests.contracts import all_rows, check_source
from tests.opened import refusal, table_source

SESSIONS = "SELECT n % 40 AS s, list(message ORDER BY n) AS events, min(label) AS label FROM source GROUP BY s"


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


def _swapped(path: Path, data: bytes) -> None:
    """Put another file there, of the size and times of the one that was."""
    other = path.with_name("other")
    other.write_bytes(data)
    assert other.stat().st_size == path.stat().st_size
    shutil.copystat(path, other)
    other.replace(path)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.strip("_"))
@pytest.mark.parametrize("place", [0, -1])
def test_a_file_of_the_same_size_and_time_is_noticed(
    kind: Callable[[Path], tuple[Path | str, dict[str, Any]]], place: int, tmp_path: Path
) -> None:
    uri, options = kind(tmp_path)
    source = table_source(uri, **options)
    changed = Path(source._relation.files.paths[-1])
    data = bytearray(changed.read_bytes())
    data[place] ^= 1
    _swapped(changed, data)
    what = "it has other bytes of the same size and time; start again on files that hold still"
    with pytest.raises(DataError) as caught:
        next(source.batches(10))
    assert str(caught.value) == f"{changed} changed while in use: {what}"
    assert Files([str(changed)]).fingerprint() != source._relation.files.fingerprint()


def test_the_same_bytes_in_another_file_are_the_same_source(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "logs.parquet", table())
    source = open_source(str(path))
    _swapped(path, path.read_bytes())
    path.chmod(0o600)
    assert open_source(str(path)).fingerprint == source.fingerprint
    assert len(all_rows(source)) == 5000


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


def test_the_query_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "logs.parquet", table())
    prints = {open_source(str(path), where=where).fingerprint for where in (None, "n < 10", "n < 11")}
    assert len(prints) == 3


def test_a_glob_reads_all_that_it_matches(tmp_path: Path) -> None:
    for name in ("a.log", "b.log.1", "c.log.2.gz"):
        write_lines(tmp_path / name, [f"line of {name}"])
    (tmp_path / "_SUCCESS").touch()
    source = open_source(str(tmp_path / "*"), need_label=False)
    assert [text for text, _ in all_rows(source)] == ["line of a.log", "line of b.log.1", "line of c.log.2.gz"]
    assert source.describe() == f"{tmp_path}/*: 3 files, text from `line`"
    (tmp_path / "b.log.2.bz2").touch()
    told = f"{tmp_path}/b.log.2.bz2 is not read as the log files beside it are; name files of one kind"
    assert refusal(tmp_path / "*") == f"{tmp_path}/*: {told}"
    assert len(all_rows(open_source(str(tmp_path), need_label=False))) == 3


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.parquet") == f"{tmp_path}/no.parquet: no such file or folder"
    assert refusal(tmp_path / "*.log") == f"{tmp_path}/*.log: no file matches"
    assert "holds no file of a kind that is understood" in refusal(tmp_path)
    assert refusal("what.ever") == "what.ever: no such file or folder"
    (tmp_path / "what.ever").touch()
    unknown = str(tmp_path / "what.ever")
    for uri, what in ((unknown, "not a source"), ("ftp://x/y", "no such kind of source"), (":memory:", "--sql")):
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


LEAST_SOURCE = """
import numpy as np
from tests.memory import MemorySource

class Least:
    kind, rows, fingerprint = "text", None, "here"

    def __init__(self, uri, options):
        self.inner = MemorySource("text", (["disk is full", "all is well"] * 100, ["bad", "good"] * 100))

    def describe(self):
        return "what the third party has"

    def batches(self, size):
        return self.inner.batches(size)
"""


def test_a_source_of_five_members_trains_and_evaluates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site"
    (package / "least-1.0.dist-info").mkdir(parents=True)
    (package / "least-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: least\nVersion: 1.0\n")
    (package / "least-1.0.dist-info" / "entry_points.txt").write_text("[seqbag.sources]\nleast = least_source:Least\n")
    (package / "least_source.py").write_text(LEAST_SOURCE)
    monkeypatch.syspath_prepend(package)
    model = tmp_path / "m.seqbag"
    done = call("train", "--source", "least://here", "--out", model, *QUICK)
    assert done.returncode == 0, done.stderr
    assert run_json("evaluate", model, "--source", "least://here")["accuracy"] == 1.0
    assert run_json("inspect", model)["classes"] == ["bad", "good"]


def test_rows_have_a_length() -> None:
    assert len(Rows(TextColumn(np.zeros(0, np.uint8), np.zeros(4, np.int64)), None)) == 3
