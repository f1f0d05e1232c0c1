"""The wheel holds the three packages, typed, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"seqbag": ".", "seqbag_connectors": "connectors", "seqbag_cli": "cli"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel built from a copy of the checkout's own files, so that nothing is left behind in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ["seqbag", "connectors", "cli", "tests", "examples", "benchmarks"]:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.nb?")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ["pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("seqbag-*.whl")
    return zipfile.ZipFile(path)


def test_installs_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_has_every_module_and_the_mark_of_types(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for package, where in PACKAGES.items():
        assert f"{package}/py.typed" in names
        modules = {path.relative_to(ROOT / where).as_posix() for path in (ROOT / where / package).rglob("*.py")}
        assert modules
        assert modules <= names


def test_names_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert "seqbag = seqbag_cli.main:cli" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "License-Expression: Apache-2.0" in wheel.read(f"{info}/METADATA").decode()
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
