"""Bags that outgrow the memory: files of them, and runs that need them."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from seqbag.bags import Bags
from seqbag.batch import Source
from seqbag.checkpoint import Checkpoint
from seqbag.classifier import Classifier
from seqbag.errors import DataError, ModelError
from seqbag.fitting import Fitter
from seqbag.layer import Layer
from seqbag.network import Network
from seqbag.passes import LayerCounts
from seqbag.spill import Part, Spill
from seqbag.store import to_bytes
from seqbag.trainer import train
from tests.memory import MemorySource, Notes
from tests.test_bags import content, empty_bags, examples, update
from tests.test_image_resume import resumed
from tests.test_trainer import SMALL

COLUMNS = {"kind": "text", "input": "message", "label": "label"}


@given(examples())
@settings(max_examples=30)
def test_what_is_read_is_what_was_written(case):
    bags = empty_bags(case)
    update(bags, case)
    spill = Spill(None, "bags-0")
    part, _ = spill.write(bags), spill.write(empty_bags(case))
    assert (part.name, part.size, part.nbytes) == ("bags-0-0.arrow", bags.size, bags.nbytes)
    assert content(spill.read(part)) == content(bags)
    again = Spill(spill.folder, "bags-0")
    again.restore(spill.state())
    assert content(again.read(again.parts[0])) == content(bags)
    assert again.read(again.parts[1]).size == 0
    spill.clear()


def some(folder: Path) -> Spill:
    bags = Bags(1, 1)
    codes = np.arange(6, dtype=np.int32)[None]
    bags.update(codes, np.zeros(6, np.int32), np.arange(7), np.zeros(6, np.int32), np.empty((6, 0), np.float16))
    spill = Spill(folder, "bags-0")
    spill.write(bags)
    return spill


def test_a_file_is_read_without_a_copy_that_arrow_keeps(tmp_path: Path) -> None:
    bags, spill = Bags(1, 1), Spill(tmp_path, "bags-0")
    codes = np.arange(10_000, dtype=np.int32)
    bags.update(codes[None], np.zeros(len(codes), np.int32), np.arange(len(codes) + 1), codes % 3)
    part, usual = spill.write(bags), pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    try:
        assert content(spill.read(part)) == content(bags)
    finally:
        pa.set_memory_pool(usual)
    assert pool.max_memory() < part.nbytes / 100


def test_a_file_of_other_bytes_is_refused(tmp_path: Path) -> None:
    spill = some(tmp_path)
    path = tmp_path / "bags-0-0.arrow"
    data = path.read_bytes()
    message = f"{path} is damaged: remove {tmp_path} to start anew"
    for bad in (data[:-1] + b"x", data[:100], b""):
        path.write_bytes(bad)
        with pytest.raises(ModelError) as damaged:
            spill.read(spill.parts[0])
        assert str(damaged.value) == message
    path.unlink()
    with pytest.raises(ModelError) as missing:
        spill.read(spill.parts[0])
    assert str(missing.value) == message


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        some(tmp_path / "gone")
    path, place = tmp_path / "gone" / "bags-0-0.arrow", "make room, or choose another place with --work-dir"
    assert str(caught.value).startswith(f"cannot write {path} (")
    assert str(caught.value).endswith(f"): {place}")


def test_files_go_when_they_are_cleared(tmp_path: Path) -> None:
    spill = some(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["bags-0-0.arrow"]
    spill.clear()
    assert not list(tmp_path.iterdir())
    assert spill.parts == []


@pytest.fixture(scope="module")
def lines() -> Source:
    """Three batches of lines that are nearly all different."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(60)])
    rows = [" ".join(rng.choice(words, 8)) for _ in range(900)]
    return MemorySource("text", (rows, ["odd" if "w7" in row.split() else "even" for row in rows]), most=300)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_run_whose_bags_outgrow_the_memory(
    lines: Source, layers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SMALL, epochs=2, layers=layers)
    whole = train(lines, config)
    monkeypatch.setattr("seqbag.spill._LEAST_BAGS", 20_000)
    monkeypatch.setattr("seqbag.spill._BAGS_SHARE", 0.0)
    notes = Notes()
    trained = train(lines, config, notes)
    assert trained.layers[0].bags == whole.layers[0].bags, "told apart in files as in memory"
    clusters = trained.layers[0].clusters
    assert clusters is not None
    assert clusters < trained.layers[0].bags
    assert whole.layers[0].clusters is None
    told = "layer 1: counting windows: the bags outgrew their memory, "
    written = [note.removeprefix(told).split(" are in ") for note in notes.texts if note.startswith(told)]
    assert [name for _, name in written] == [f"bags-0-{number}.arrow" for number in range(len(written))]
    assert f"layer 1: counting windows: {trained.layers[0].bags:,} bags were clustered to {clusters:,}" in notes.texts
    model, stops = resumed(lines, config, tmp_path / "work", COLUMNS)
    assert stops > layers
    assert model == to_bytes(trained.model(COLUMNS))
    with Checkpoint(tmp_path / "work", config.to_json(), resume=True) as checkpoint:
        checkpoint.clear()
    assert not (tmp_path / "work").exists(), "files go when the run is done"


def test_what_is_done_with_takes_no_memory(lines: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bags that are in a file, and all that was counted for a layer that is trained."""
    monkeypatch.setattr("seqbag.spill._LEAST_BAGS", 20_000)
    monkeypatch.setattr("seqbag.spill._BAGS_SHARE", 0.0)
    done: list[weakref.ref[object]] = []
    left: list[int] = []

    class Watched(Spill):
        def write(self, bags: Bags) -> Part:
            left.append(sum(thing() is not None for thing in done))
            done.append(weakref.ref(bags))
            return super().write(bags)

    class Fitted(Fitter):
        def fit(self, counts: LayerCounts, network: Network, task: str) -> tuple[Layer, Classifier, float]:
            done.extend(weakref.ref(thing) for thing in (counts.bags, counts.held_out, *counts.codebooks))
            return super().fit(counts, network, task)

    monkeypatch.setattr("seqbag.trainer.Spill", Watched)
    monkeypatch.setattr("seqbag.trainer.Fitter", Fitted)
    train(lines, replace(SMALL, epochs=2, layers=2))
    assert len(left) > 4
    assert left == [0] * len(left)


def test_a_sample_of_the_rows_held_out_is_not_told_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bags that fit, where those held out do not: the net is measured on the rows themselves."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(60)])
    rows = [" ".join(rng.choice(words, 8)) for _ in range(900)]
    source = MemorySource("text", (rows, ["odd" if "w7" in row.split() else "even" for row in rows]), most=300)
    config = replace(SMALL, epochs=2, layers=1, valid_fraction=0.5)
    whole = train(source, config)
    monkeypatch.setattr("seqbag.spill._LEAST_BAGS", 300_000)
    monkeypatch.setattr("seqbag.spill._BAGS_SHARE", 0.0)
    sampled = train(source, config)
    assert sampled.layers[0].clusters is None
    assert sampled.confusion.sum() == whole.confusion.sum() > 400
