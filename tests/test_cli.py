"""What all commands share: help, version, usage errors, and that help costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seqbag import __version__
from seqbag_cli.main import COMMANDS
from tests.command import call, fails, run


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, seqbag_cli.main as m\n"
        "try:\n    m.cli(['--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "print([name for name in ('numpy', 'numba', 'duckdb', 'pyarrow', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version() -> None:
    assert run("--version").stdout == f"seqbag {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_answers_both_spellings_of_help(command: str) -> None:
    short, long = call(command, "-h"), call(command, "--help")
    assert (short.returncode, short.stdout) == (0, long.stdout)
    assert "--json" in short.stdout
    assert "--quiet" in short.stdout


def test_usage_errors_are_one_line(logs: Path, model: Path) -> None:
    fails(2, "No such command 'tain' (see `seqbag --help`)", "tain")
    fails(2, "Missing option '--source' (see `seqbag train --help`)", "train")
    fails(2, "No such option '--zzz' (see `seqbag train --help`)", "train", "--zzz", logs)
    message = "Invalid value for '--memory': 'lots' is not a size: write it like 2GB, 512MiB or 300000000"
    fails(2, f"{message} (see `seqbag train --help`)", "train", "--source", logs, "--memory", "lots")
    message = "Invalid value for '--window': '1;3' is not a list of whole numbers: write it like 1,3"
    fails(2, f"{message} (see `seqbag train --help`)", "train", "--source", logs, "--window", "1;3")
    fails(2, "layers is 0: it must be 1 or more", "train", "--source", logs, "--layers", 0)
    fails(2, "nothing to read: give --source URI, or - for standard input", "predict", model)
    fails(2, "- and --source exclude each other: give one", "predict", model, "-", "--source", logs)
