"""`seqbag inspect --plot`: pictures of logs' and of images' models."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seqbag.errors import DataError
from seqbag.layer import Layer
from seqbag.patches import Patcher
from seqbag.regions import Regions
from seqbag_cli.plot import Line, chart, seen_by, ticks, whitening_pictures
from tests.command import call, fails
from tests.opened import hub
from tests.test_images import SMALL


def colours(path: Path) -> int:
    with Image.open(path) as picture:
        return len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0))


def test_logs_have_a_confusion_matrix(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "logs.png"
    assert call("inspect", model, "--plot", out, "--quiet").returncode == 0
    assert colours(out) > 3


def test_images_have_filters(tmp_path: Path) -> None:
    from dataclasses import replace

    from seqbag.store import save
    from seqbag.trainer import train

    trained = train(hub(tmp_path / "images.parquet", 200), replace(SMALL, polish=1))
    save(trained.model({"kind": "image", "input": "img", "label": "label"}), tmp_path / "model")
    done = call("inspect", tmp_path / "model", "--plot", tmp_path / "images.png")
    assert done.returncode == 0, done.stderr
    assert "whitening  windows of 3x3; 54 filters, relu" in done.stdout
    assert "layer 1  windows of 3x3; 12 filters, relu; 8 principal axes; read out by 16; regions grid:2" in done.stdout
    assert colours(tmp_path / "images.png") > 100


def test_a_place_that_cannot_be_written(model: Path, tmp_path: Path) -> None:
    fails(
        3, f"{tmp_path}/no/x.png cannot be written (No such file or directory): choose another place with --plot",
        "inspect", model, "--plot", tmp_path / "no" / "x.png",
    )  # fmt: skip


def test_of_a_filter_and_its_opposite_one_is_drawn() -> None:
    weights = np.random.default_rng(0).standard_normal((27, 5)).astype(np.float32)
    patcher = Patcher((3, 3), (1, 1), "same")
    both = np.concatenate([weights, -weights], axis=1)
    layer = Layer((patcher,), (both,), (np.zeros(10, np.float32),), "relu", Regions("none"), pooling=(2, 2))
    assert [picture.shape for picture in whitening_pictures(layer)] == [(3, 3, 3)] * 5
    second = Layer((patcher,), (np.ones((90, 4), np.float32),), (np.zeros(4, np.float32),), "relu", Regions("whole"))
    pictures = seen_by(layer, second)
    assert [picture.shape for picture in pictures] == [(8, 8, 3)] * 4
    assert set(np.unique(pictures[0])) <= {127, 128}  # every filter beside its opposite, of one weight: nothing is left


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([336, 1344, 2870], [0, 1000, 2000, 3000]),
        ([0.787, 0.865], [0.78, 0.8, 0.82, 0.84, 0.86, 0.88]),
        ([1, 2, 3], [1, 2, 3]),
        ([0.5], [0.5, 0.52]),
        ([0.0], [0, 1]),
        ([-3.0, 4.5], [-4, -2, 0, 2, 4, 6]),
    ],
)
def test_ticks_are_round_and_hold_all_values(values: list[float], expected: list[float]) -> None:
    assert ticks(values) == expected


def test_a_chart_of_one_point(tmp_path: Path) -> None:
    chart([Line("seed 0", [(1.0, 0.5)])], "x", "y", tmp_path / "chart.png")
    assert colours(tmp_path / "chart.png") > 3
    with pytest.raises(DataError, match="cannot be written"):
        chart([Line("seed 0", [(1.0, 0.5)])], "x", "y", tmp_path / "no" / "chart.png")


def test_only_lines_that_are_not_faint_are_named(tmp_path: Path) -> None:
    first, second = Line("one", [(1.0, 0.5), (2.0, 0.6)]), Line("two", [(1.0, 0.55)])
    behind = [Line("old", [(1.0, 0.52), (3.0, 0.7)], faint=True)] * 5
    heights = []
    for number, lines in enumerate(([first], [*behind, first], [first, *behind, second])):
        chart(lines, "x", "y", tmp_path / f"{number}.png")
        with Image.open(tmp_path / f"{number}.png") as picture:
            heights.append(picture.height)
    assert heights[0] == heights[1] < heights[2]
