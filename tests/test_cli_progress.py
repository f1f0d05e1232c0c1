"""Progress as lines and as bars."""

from __future__ import annotations

import io
import os
import pty
import subprocess
from pathlib import Path

from seqbag_cli.progress import Lines
from tests.command import SEQBAG
from tests.conftest import QUICK


class Clock:
    """A clock that is moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_are_few_and_tell_speed_and_time_left() -> None:
    out, clock = io.StringIO(), Clock()
    lines = Lines(out, clock)
    lines.begin("counting", 1000, "rows")
    for _ in range(6):
        clock.now += 2
        lines.advance(100, "accuracy 0.9")
    lines.end()
    lines.begin("training", None, "epochs")
    clock.now += 1
    lines.advance(1)
    lines.note("a choice")
    lines.end()
    assert out.getvalue().splitlines() == [
        "counting: 300 of 1,000 rows, 50 rows/s, 14 s left, accuracy 0.9",
        "counting: 600 of 1,000 rows, 50 rows/s, 8 s left, accuracy 0.9",
        "counting: 600 of 1,000 rows, 50 rows/s, 12.0 s, accuracy 0.9",
        "a choice",
        "training: 1 epochs, 1.0 s",
    ]


def test_a_terminal_gets_bars(logs: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [SEQBAG, "train", "--source", str(logs), "--out", str(tmp_path / "m.seqbag"), *QUICK]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 1 << 16):
                shown += block
        except OSError:  # how a terminal ends when its other side is closed
            pass
        assert process.stdout is not None
        assert process.stdout.read().startswith(b"600 rows, 3 classes: accuracy ")
    os.close(ours)
    assert process.returncode == 0
    assert b"layer 1: training" in shown
    assert "━".encode() in shown
    assert b"held-out accuracy" in shown


def test_a_training_goes_on_when_nobody_reads_its_progress(logs: Path, tmp_path: Path) -> None:
    """As in `seqbag train ... 2>&1 | head -1`."""
    command = [SEQBAG, "train", "--source", str(logs), "--out", str(tmp_path / "m.seqbag"), *QUICK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.stdout is not None
        assert process.stdout.read().startswith(b"600 rows, 3 classes: accuracy ")
    assert process.returncode == 0
    assert (tmp_path / "m.seqbag").is_file()
