"""The installed command, run as a user runs it; and the same command inside this process, which starts at once."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from seqbag_cli.main import cli

SEQBAG = str(Path(sys.executable).with_name("seqbag"))


def run(*args: object, cwd: Path | None = None, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run `seqbag` with its output captured."""
    done = subprocess.run([SEQBAG, *map(str, args)], cwd=cwd, input=stdin, capture_output=True, timeout=120)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def call(*args: object) -> subprocess.CompletedProcess[str]:
    """`run`, without a process of its own: for what neither a signal, a stream nor the working directory changes."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            cli.main([str(arg) for arg in args])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    told = []
    for stream in (out, err):
        stream.seek(0)
        told.append(stream.read())
    return subprocess.CompletedProcess(["seqbag", *map(str, args)], ended.value.code, *told)


def run_json(*args: object) -> dict[str, Any]:
    """Call `seqbag ... --json --quiet`, which must print nothing but one object."""
    done = call(*args, "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def fails(code: int, message: str, *args: object) -> None:
    """The command ends with this exit code and `seqbag: message` as the last and only complaint."""
    done = call(*args)
    lines = done.stderr.splitlines()
    assert (lines[-1] if lines else "", done.returncode) == (f"seqbag: {message}", code)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def wait_for_layer(work: Path, patience: float = 100) -> None:
    """Until a train that works in this folder has a checkpoint with its first layer in it."""
    layer, checkpoint, deadline = work / "network-1", work / "checkpoint", time.monotonic() + patience
    while not (layer.exists() and checkpoint.exists()) or layer.stat().st_mtime_ns > checkpoint.stat().st_mtime_ns:
        assert time.monotonic() < deadline
        time.sleep(0.005)
