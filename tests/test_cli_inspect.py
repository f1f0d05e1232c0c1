"""`seqbag inspect`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import stripes, write_hub_images, write_parquet
from tests.command import call, run_json
from tests.conftest import QUICK


def test_json_explains_the_classes(model: Path) -> None:
    report = run_json("inspect", model, "--most", 3)
    assert report["model_bytes"] == model.stat().st_size
    assert report["columns"] == {"kind": "text", "input": "message", "label": "label"}
    assert report["classes"] == ["disk", "network", "normal"]
    assert report["tokenizer"] == "words"
    assert report["training"]["rows"] == 600
    assert report["layers"][0]["windows"] == [[1], [3]]
    for name, telling in (("disk", "readonly"), ("network", "unreachable"), ("normal", "completed")):
        sides = report["explanations"][name]
        assert telling in sides["towards"][0]["text"]
        assert sides["towards"][0]["pull"] > 0 > sides["away"][0]["pull"]
        assert telling not in sides["away"][0]["text"]
        assert len(sides["towards"]) <= 3


def test_people_see_fragments_with_their_counts(model: Path) -> None:
    done = call("inspect", model)
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[1].startswith("input   text from `message`, tokenizer words, ")
    assert lines[2] == "label   `label`, 3 classes"
    at = lines.index("disk")
    assert lines[at + 1].split() == ["pulls", "towards", "pulls", "away"]
    assert "readonly" in lines[at + 2]


@pytest.mark.parametrize(("last", "told"), [(1, "the last one"), (3, "the last 3")])
def test_how_much_of_the_past_is_read_and_whether_newer_rows_weigh_more(tmp_path: Path, last: int, told: str) -> None:
    rows = {"events": [[f"e{i % 3}", f"e{i % 2}"] for i in range(300)], "label": [i % 2 for i in range(300)]}
    source, out = write_parquet(tmp_path / "rows.parquet", rows), tmp_path / "m.seqbag"
    assert call("train", "--source", source, "--last", last, "--recency", "--out", out, *QUICK).returncode == 0
    lines = call("inspect", out).stdout.splitlines()
    assert lines[1].endswith(f" distinct tokens, of each row {told}")
    assert lines[3] == "trained on 300 rows, of which newer ones weigh more, accuracy 1.0000 on held-out rows"


@pytest.mark.parametrize(("activation", "told"), [("relu", "relu; read out by 256"), ("sign", "2 signs each")])
def test_of_layers_that_were_polished_no_counts_are_told(tmp_path: Path, activation: str, told: str) -> None:
    pixels, labels = stripes(120, (8, 8, 3))
    source = write_hub_images(tmp_path / "images.parquet", pixels, labels, ["across", "down"])
    out = tmp_path / "m.seqbag"
    small = "--layers", 1, "--filters", 4, "--polish", 1, "--activation", activation
    assert call("train", "--source", source, *small, "--out", out).returncode == 0
    lines = call("inspect", out).stdout.splitlines()
    assert lines[1] == "input   image from `img`"
    assert lines[-1] == f"layer 1  windows of 3x3; 4 filters, {told}; regions grid:2"
