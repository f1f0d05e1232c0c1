"""The README's sessions run and print what it says; every command has help that ends with an example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peer_table import read, table
from seqbag_cli.main import COMMANDS, cli
from tests.command import SEQBAG, call

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def sessions() -> list[tuple[str, list[str]]]:
    """Every command of the README's sessions, and the lines it is said to print."""
    found = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            complete = re.match(r'((?:[^"\n]|"[^"]*")*)\n', part)  # quotes may span lines
            assert complete is not None
            found.append((complete.group(1), part[complete.end() :].splitlines()))
    return found


def shape(line: str) -> str:
    """A line without its figures and the names that depend on them."""
    return re.sub(r"[\d.,]+( [kMG]?B)?", "N", line)


# Lines that do not depend on what was learned from how many rows.
_SURE = re.compile(r"^(demo/|class |[\d,]+ rows|accuracy )")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples in it, in which the README's sessions have run on fewer rows."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(ROOT / "examples")
    environment = {**os.environ, "PATH": f"{Path(SEQBAG).parent}{os.pathsep}{os.environ['PATH']}"}
    for command, expected in sessions():
        smaller = command.replace("50000", "1500")
        done = subprocess.run(["bash", "-c", smaller], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        printed = {shape(line) for line in (done.stdout + done.stderr).splitlines()}
        assert {shape(line) for line in expected if _SURE.match(line)} <= printed, command
    return folder


def test_the_sessions_run_as_printed(workplace: Path) -> None:
    assert {"model.seqbag", "sessions.seqbag", "predictions.parquet"} <= {
        p.name for p in (workplace / "demo").iterdir()
    }


def test_the_python_examples_run(workplace: Path) -> None:
    program = "\n".join(blocks("python"))
    done = subprocess.run([sys.executable, "-c", program], cwd=workplace, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_option_in_the_readme_exists() -> None:
    context = cli.make_context("seqbag", ["train", "-h"], resilient_parsing=True)
    known = {"--help", "--version"}
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        known |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    generator = {"--rows", "--split"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) <= known | generator


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_ends_with_an_example(command: str) -> None:
    last = call(command, "--help").stdout.strip().split("\n\n")[-1]
    assert last.startswith("  Example: ")
    assert f"seqbag {command} " in last


def test_the_table_of_peers_is_what_was_measured() -> None:
    assert table(read(ROOT / "benchmarks" / "results" / "peers.csv")) in README
