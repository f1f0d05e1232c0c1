"""The installed command, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SEQBAG = str(Path(sys.executable).with_name("seqbag"))


def run(*args: object, cwd: Path | None = None, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run `seqbag` with its output captured."""
    done = subprocess.run([SEQBAG, *map(str, args)], cwd=cwd, input=stdin, capture_output=True, timeout=120)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def run_json(*args: object, stdin: bytes = b"") -> dict[str, Any]:
    """Run `seqbag ... --json --quiet`, which must print nothing but one object."""
    done = run(*args, "--json", "--quiet", stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def fails(code: int, message: str, *args: object, cwd: Path | None = None) -> None:
    """The command ends with this exit code and `seqbag: message` as the last and only complaint."""
    done = run(*args, cwd=cwd)
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
