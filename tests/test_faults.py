"""What goes wrong around a run: full disks, sources that change, two runs at once, signals, damage. All real."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.kill_resume import generate
from tests.builders import damage_row_group, write_parquet
from tests.command import SEQBAG, call, fails, run, wait_for_layer

SETTINGS = ("--layers", "2", "--epochs", "1", "--filters", "8", "--threads", "1", "--checkpoint-every", "0")
ROWS = 9000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated logs in many row groups."""
    path = generate(tmp_path_factory.mktemp("source") / "logs.parquet", ROWS)
    pq.write_table(pq.read_table(path), path, row_group_size=300)
    return path


@pytest.fixture(scope="module")
def trained(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of an undisturbed train."""
    out = tmp_path_factory.mktemp("trained") / "m.seqbag"
    done = call("train", "--source", source, "--out", out, *SETTINGS)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


def start(source: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [SEQBAG, "train", "--source", str(source), "--out", str(out), *SETTINGS, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], beginning: str) -> None:
    """Read what the process tells until a line begins like this."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(beginning):
            return
    raise AssertionError(f"it never told {beginning!r}")


def last_line(process: subprocess.Popen[str]) -> str:
    told = process.communicate(timeout=60)[1]
    assert "Traceback" not in told
    return told.splitlines()[-1]


class TestFullDisk:
    """Exit code 3, one line, and what was there before stays."""

    def test_model(self, source: Path, small_disk: Path, tmp_path: Path, trained: Path) -> None:
        out, work = small_disk / "m.seqbag", tmp_path / "work"
        out.write_text("an older model")
        command = ("train", "--source", source, "--out", out, *SETTINGS, "--work-dir", work)
        done = run(*command, "--quiet")
        message = f"seqbag: {out} cannot be written (No space left on device): choose another place with --out\n"
        assert (done.returncode, done.stdout, done.stderr) == (3, "", message)
        assert (os.listdir(small_disk), out.read_text()) == (["m.seqbag"], "an older model")
        subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)  # room is made, and nothing was lost
        done = run(*command, "--resume")
        assert done.returncode == 0, done.stderr
        assert "resumed at pass 3" in done.stderr
        assert out.read_bytes() == trained.read_bytes()
        assert not work.exists()

    def test_checkpoint(self, source: Path, small_disk: Path, tmp_path: Path) -> None:
        out, work = tmp_path / "m.seqbag", small_disk / "work"
        out.write_text("an older model")
        done = run("train", "--source", source, "--out", out, *SETTINGS, "--work-dir", work, "--quiet")
        remedy = "make room, or choose another place with --work-dir"
        message = f"seqbag: {work}/checkpoint cannot be written (No space left on device): {remedy}\n"
        assert (done.returncode, done.stdout, done.stderr) == (3, "", message)
        assert (out.read_text(), os.listdir(small_disk)) == ("an older model", [])

    def test_checkpoint_beyond_a_limit(self, source: Path, tmp_path: Path) -> None:
        command = [SEQBAG, "train", "--source", source, "--out", tmp_path / "m", *SETTINGS, "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=files_up_to(100_000))
        remedy = "make room, or choose another place with --work-dir"
        message = f"seqbag: {tmp_path}/m.work/checkpoint cannot be written (File too large): {remedy}\n"
        assert (done.returncode, done.stdout, done.stderr) == (3, "", message)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
    def test_predictions(self, source: Path, trained: Path, tmp_path: Path, suffix: str) -> None:
        """A limit on the size of files stands for the disk, for those who may not mount one."""
        out = tmp_path / f"p.{suffix}"
        out.write_text("older predictions")
        done = subprocess.run(
            [SEQBAG, "predict", trained, "--source", source, "--out", out, "--quiet"],
            capture_output=True, text=True, preexec_fn=files_up_to(100_000),
        )  # fmt: skip
        message = f"seqbag: {out} cannot be written (File too large): choose another place with --out\n"
        assert (done.returncode, done.stdout, done.stderr) == (3, "", message)
        assert (os.listdir(tmp_path), out.read_text()) == ([out.name], "older predictions")


def files_up_to(size: int) -> Callable[[], None]:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    other = generate(path.with_name("other.parquet"), 500)
    other.replace(path)


def swap(path: Path) -> None:
    """Another file of the same size and time."""
    other = path.with_name("other.parquet")
    other.write_bytes(path.read_bytes().replace(b"parquet-cpp", b"parquet-CPP"))
    shutil.copystat(path, other)
    other.replace(path)


def touch(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (truncate, "changed while in use: {before} bytes before, {now} now; start again on files that hold still"),
        (replace, "changed while in use: {before} bytes before, {now} now; start again on files that hold still"),
        (touch, "changed while in use: it was written again; start again on files that hold still"),
        (
            swap,
            "changed while in use: it has other bytes of the same size and time; start again on files that hold still",
        ),
        (Path.unlink, "changed while in use: it was deleted; put it back and start again"),
    ],
)
def test_a_source_that_changes_between_passes(
    source: Path, tmp_path: Path, change: Callable[[Path], None], what: str
) -> None:
    path, out = Path(shutil.copy(source, tmp_path / "logs.parquet")), tmp_path / "m.seqbag"
    before = path.stat().st_size
    with start(path, out, "--epochs", "3") as process:
        wait_for(process, f"layer 1: counting windows: {ROWS:,} rows, ")
        process.send_signal(signal.SIGSTOP)  # so that the change comes before the next pass
        change(path)
        process.send_signal(signal.SIGCONT)
        message = what.format(before=before, now=path.stat().st_size if path.exists() else 0)
        assert last_line(process) == f"seqbag: {path} {message}"
    assert process.returncode == 3
    assert not out.exists()


def test_damaged_row_groups_among_many(source: Path, tmp_path: Path) -> None:
    path, out = Path(shutil.copy(source, tmp_path / "logs.parquet")), tmp_path / "m.seqbag"
    column = pq.read_schema(path).names.index("message")
    for group in (11, 17):
        damage_row_group(path, group, column)
    done = call("train", "--source", path, "--out", out, *SETTINGS)
    told = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (3, "", False)
    assert told.startswith(f"seqbag: {path}: row group 12 of 30 cannot be read (")
    assert told.endswith("); write the file again, or leave such row groups out with --skip-bad")
    assert os.listdir(tmp_path) == ["logs.parquet"]
    done = call("train", "--source", path, "--out", out, *SETTINGS, "--skip-bad", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == ROWS - 2 * 300
    assert "2 damaged row groups were left out" in done.stderr
    done = call("predict", out, "--source", path, "--skip-bad", "--quiet", "--no-probabilities")
    assert (done.returncode, done.stdout.count("\n")) == (0, ROWS - 2 * 300)


def test_labels_that_are_not_utf8_behind_a_damaged_row_group(tmp_path: Path) -> None:
    """What is left of a damaged file is read by Arrow, which does not look at the bytes of texts."""
    raw = pa.array([(b"b\x85d", b"good")[i % 2] for i in range(400)], pa.binary())
    label = pa.StringArray.from_buffers(len(raw), *raw.buffers()[1:])
    path = write_parquet(tmp_path / "a.parquet", {"message": ["full", "login"] * 200, "label": label}, 100)
    damage_row_group(path, 1)
    done = call("train", "--source", path, "--out", tmp_path / "m", *SETTINGS, "--skip-bad")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert "2 classes: b\N{REPLACEMENT CHARACTER}d, good" in done.stderr


def test_the_fuzzer_finds_nothing_at_once() -> None:
    command = [sys.executable, "-m", "benchmarks.fuzz", "--cases", "60", "--kind", "parquet", "--kind", "text"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tracebacks 0  crashes 0  hangs 0" in done.stdout


def test_two_trains_with_one_output(source: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.seqbag"
    with start(source, out) as first:
        wait_for(first, "tokenizer words")
        while not (tmp_path / "m.seqbag.work" / "lock").exists():
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        message = f"{out}.work is in use by another train: wait for it, or choose another --out"
        fails(3, message, "train", "--source", source, "--out", out, *SETTINGS)
        fails(3, message, "train", "--source", source, "--out", out, *SETTINGS, "--resume")
        first.send_signal(signal.SIGCONT)
        first.communicate(timeout=60)
    assert first.returncode == 0
    assert out.read_bytes() == trained.read_bytes()
    assert os.listdir(tmp_path) == ["m.seqbag"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_keeps_what_was_done(source: Path, trained: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "m.seqbag"
    with start(source, out) as process:
        wait_for(process, "layer 1: training")
        wait_for_layer(tmp_path / "m.seqbag.work")
        process.send_signal(number)
        assert last_line(process) == "seqbag: interrupted"
    assert (process.returncode, os.listdir(tmp_path)) == (130, ["m.seqbag.work"])
    if number == signal.SIGTERM:
        done = run("train", "--source", source, "--out", out, *SETTINGS, "--resume")
        assert "resumed at pass 2" in done.stderr
        assert out.read_bytes() == trained.read_bytes()


def test_a_stalled_reader_holds_nothing_back(trained: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "app.log"
    os.mkfifo(pipe)
    command = f"exec {SEQBAG} predict {trained} - --text line --quiet < {pipe}"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with pipe.open("w") as writer:
            writer.write("disk full on node 3\nlogin failed\nhalf a li")
            writer.flush()  # and no more, for now
            lines = [json.loads(process.stdout.readline())["line"] for _ in range(2)]
            assert lines == ["disk full on node 3", "login failed"]
            writer.write("ne\n")
            writer.flush()
            assert json.loads(process.stdout.readline())["line"] == "half a line"
            process.send_signal(signal.SIGTERM)  # while it waits
            assert process.communicate(timeout=60) == ("", "seqbag: interrupted\n")
    assert process.returncode == 130


def test_a_pipe_is_no_source_that_can_be_read_twice(trained: Path, tmp_path: Path) -> None:
    for name in ("a.log", "a.parquet"):
        os.mkfifo(tmp_path / name)
        message = f"{tmp_path / name}: not a regular file; save it to one, or pipe it into `seqbag predict MODEL -`"
        fails(3, message, "predict", trained, "--source", tmp_path / name)


class TestPlacesThatCannotBeWritten:
    def test_a_work_folder_under_a_file(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        work = tmp_path / "file" / "work"
        message = f"{work} cannot be written (Not a directory): choose another place with --work-dir"
        fails(3, message, "train", "--source", source, "--out", tmp_path / "m.seqbag", *SETTINGS, "--work-dir", work)
        assert os.listdir(tmp_path) == ["file"]

    def test_a_work_folder_that_is_a_file(self, source: Path, tmp_path: Path) -> None:
        work = tmp_path / "m.seqbag.work"
        work.write_text("mine")
        message = f"{work} cannot be written (File exists): choose another place with --work-dir"
        fails(3, message, "train", "--source", source, "--out", tmp_path / "m.seqbag", *SETTINGS)
        assert work.read_text() == "mine"

    def test_a_work_folder_of_other_files(self, source: Path, tmp_path: Path) -> None:
        """Whose names are almost ours, and which a run would write over and remove."""
        names = ["network-2024.parquet", "bags-1.arrow", "checkpoint"]
        for name in names:
            (tmp_path / name).write_text("mine")
        message = f"{tmp_path} is no work folder, as bags-1.arrow is in it: name a new or an empty one with --work-dir"
        out = tmp_path / "m.seqbag"
        fails(3, message, "train", "--source", source, "--out", out, *SETTINGS, "--work-dir", tmp_path)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "mine")

    def test_a_file_system_that_is_read_only(self, source: Path, trained: Path, small_disk: Path) -> None:
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        out = small_disk / "m.seqbag"
        message = f"{out} cannot be written (the folder {small_disk} is read-only): choose another place with --out"
        fails(3, message, "train", "--source", source, "--out", out, *SETTINGS)
        out = small_disk / "p.csv"
        message = f"{out} cannot be written (the folder {small_disk} is read-only): choose another place with --out"
        fails(3, message, "predict", trained, "--source", source, "--out", out)
        work, out = small_disk / "work", trained.with_name("never.seqbag")
        message = f"{work} cannot be written (Read-only file system): choose another place with --work-dir"
        fails(3, message, "train", "--source", source, "--out", out, *SETTINGS, "--work-dir", work)
