"""Fixtures that several files of tests share, because they take a second to make."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.builders import write_parquet
from tests.command import run

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")
QUICK = ("--epochs", "8", "--filters", "8", "--threads", "1")  # settings that train in a moment


def log_columns(rows: int) -> dict[str, list[object]]:
    """Log lines of three classes, told apart by one word each, with noise around it."""
    telling = {"network": "unreachable", "disk": "readonly", "normal": "completed"}
    labels = [list(telling)[(i + i // 3) % 3] for i in range(rows)]
    return {
        "message": [f"worker {i % 5} says {telling[label]} after {i * 37} ms" for i, label in enumerate(labels)],
        "label": labels,
        "tags": [["start", telling[label], f"e{i % 4}"] for i, label in enumerate(labels)],
    }


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of 600 log lines."""
    return write_parquet(tmp_path_factory.mktemp("logs") / "logs.parquet", log_columns(600), row_group_size=100)


@pytest.fixture(scope="session")
def model(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on the messages of `logs`."""
    path = tmp_path_factory.mktemp("model") / "logs.seqbag"
    done = run("train", "--source", logs, "--out", path, *QUICK)
    assert done.returncode == 0, done.stderr
    return path
