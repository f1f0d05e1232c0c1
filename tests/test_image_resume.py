"""Runs over images that are stopped at every checkpoint, or killed, and end with the model of a run left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kill_resume import SETTINGS
from benchmarks.kill_resume import train as start
from seqbag.batch import Source
from seqbag.checkpoint import Checkpoint, State
from seqbag.config import TrainConfig
from seqbag.spill import PROCESS
from seqbag.store import to_bytes
from seqbag.trainer import train
from tests.command import call, wait_for_layer
from tests.opened import hub
from tests.test_images import SMALL

COLUMNS = {"kind": "image", "input": "img", "label": "label"}
QUICK = replace(SMALL, filters=(6,), project=4, polish=2, epochs=2)


class Stopped(Exception):  # noqa: N818
    pass


class Stopping(Checkpoint):
    """Ends the run at each checkpoint, once it is written."""

    def save(self, state: State) -> None:
        super().save(state)
        raise Stopped


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """More than one batch."""
    return hub(tmp_path_factory.mktemp("images") / "images.parquet", 600, (8, 8, 3))


def resumed(source: Source, config: TrainConfig, work: Path, columns: Mapping[str, str] = COLUMNS) -> tuple[bytes, int]:
    """The model of a run stopped at every checkpoint, and how often it was."""
    stops = 0
    while True:
        try:
            with Stopping(work, config.to_json(), every=0, resume=True) as checkpoint:
                return to_bytes(train(source, config, checkpoint=checkpoint).model(dict(columns))), stops
        except Stopped:
            stops += 1


@pytest.mark.parametrize(
    ("change", "room", "stops"),
    [
        ({}, 1e9, 2),
        ({"views": 4, "threads": 2, "codebook": 16}, 1e9, 2),
        ({"activation": "sign"}, 1e9, 2),
        ({"activation": "sign", "signs": 2}, 1e9, 2),
        ({}, 1.2e6, 2),  # for the maps in two of the four views
        ({"filters": (64,), "project": 64}, 2.1e6, 2),  # for those of the second layer in fewer than of the first
        ({}, 0, 4),  # for none: the last pass reads the source in two batches
        ({"polish": 0, "codebook": 16}, 0, 6),  # as do all but the first
    ],
)
def test_stopped_at_every_checkpoint(
    images: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], room: float, stops: int
) -> None:
    config = replace(QUICK, **change)
    monkeypatch.setattr("seqbag.polishing._CACHE_SHARE", room / (config.memory - PROCESS))
    alone = to_bytes(train(images, config).model(COLUMNS))
    assert resumed(images, config, tmp_path / "work") == (alone, stops)


def test_killed_in_its_second_layer(tmp_path: Path) -> None:
    source, out = tmp_path / "images.parquet", tmp_path / "m.seqbag"
    hub(source, 600, (8, 8, 3))
    with start(source, out, "--polish", "20") as process:
        wait_for_layer(tmp_path / "m.seqbag.work")
        process.kill()
    command = ("train", "--source", source, "--out", out, *SETTINGS, "--polish", "20")
    done = call(*command, "--resume")
    assert "resumed at pass 2, row 0" in done.stderr.splitlines()
    model = out.read_bytes()
    assert call(*command).returncode == 0
    assert model == out.read_bytes()
