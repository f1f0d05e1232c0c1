"""Checkpoints: killed trains that end with the same model, and checkpoints that cannot be gone on from."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.kill_resume import SETTINGS, generate, kill_and_resume, train
from seqbag.checkpoint import Checkpoint
from seqbag.errors import ModelError
from tests.command import call, fails, wait_for_layer

RUNS = int(os.environ.get("SEQBAG_KILL_RUNS", "1"))  # each is killed up to three times


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of more than two batches."""
    return generate(tmp_path_factory.mktemp("source") / "logs.parquet", 17_000)


@pytest.fixture(scope="module")
def alone(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, float]:
    """The model of a train that was left alone, with --resume although there is nothing to resume; and its seconds."""
    started = time.perf_counter()
    outcome = kill_and_resume(source, tmp_path_factory.mktemp("alone") / "run", [])
    assert (outcome.resumed, outcome.left_over) == (0, [])
    return outcome.model, time.perf_counter() - started


@pytest.fixture(scope="module")
def interrupted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a train that was killed in its second layer."""
    folder = tmp_path_factory.mktemp("interrupted")
    with train(source, folder / "m.seqbag") as process:
        wait_for_layer(folder / "m.seqbag.work")
        process.kill()
    return folder / "m.seqbag.work"


@pytest.fixture
def work(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(interrupted, tmp_path / "work"))


def resume(source: Path, work: Path, *more: str) -> tuple[object, ...]:
    out = work.with_name("resumed.seqbag")
    return ("train", "--source", source, "--out", out, *SETTINGS, "--work-dir", work, "--resume", *more)


@pytest.mark.parametrize("seed", range(RUNS))
def test_killed_at_random_moments(source: Path, alone: tuple[bytes, float], tmp_path: Path, seed: int) -> None:
    rng, (model, seconds) = random.Random(seed), alone
    outcome = kill_and_resume(source, tmp_path / "run", [rng.uniform(0.2, 0.9) * seconds for _ in range(3)])
    assert outcome.model == model
    assert outcome.left_over == []


def test_resumed_from_another_folder(source: Path, alone: tuple[bytes, float], work: Path) -> None:
    """And the source from a backup: the same bytes and time in another file."""
    Path(shutil.copy2(source, work.with_name("backup"))).replace(source)
    done = call(*resume(source, work))
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("resumed at pass ") for line in done.stderr.splitlines())
    assert work.with_name("resumed.seqbag").read_bytes() == alone[0]
    assert os.listdir(work.parent) == ["resumed.seqbag"]


def test_a_new_start_says_what_it_leaves_aside(source: Path, alone: tuple[bytes, float], work: Path) -> None:
    done = call(*[part for part in resume(source, work) if part != "--resume"])
    assert f"{work} holds an interrupted run: --resume would go on with it; starting anew" in done.stderr
    assert work.with_name("resumed.seqbag").read_bytes() == alone[0]


def test_other_settings(source: Path, work: Path) -> None:
    message = f"the checkpoint {work}/checkpoint is of a run with other seed, windows: remove {work} to start anew"
    fails(3, message, *resume(source, work, "--seed", "7", "--window", "2"))
    assert (work / "checkpoint").exists()


def test_another_source(source: Path, work: Path) -> None:
    other = Path(shutil.copy(source, work.with_name("other.parquet")))
    message = f"the checkpoint {work}/checkpoint is of a run with other source: remove {work} to start anew"
    fails(3, message, *resume(other, work))


def test_another_source_of_the_same_name_size_and_time(source: Path, work: Path) -> None:
    original = Path(shutil.copy2(source, work.with_name("original")))
    source.write_bytes(original.read_bytes().replace(b"parquet-cpp", b"parquet-CPP"))
    assert source.stat().st_size == original.stat().st_size
    shutil.copystat(original, source)
    message = f"the checkpoint {work}/checkpoint is of a run with other source: remove {work} to start anew"
    try:
        fails(3, message, *resume(source, work))
    finally:
        original.replace(source)


@pytest.mark.parametrize("damage", ["cut", "flipped", "layers flipped", "layers missing"])
def test_a_damaged_checkpoint(source: Path, work: Path, damage: str) -> None:
    for file in work.glob("network-*" if damage.startswith("layers") else "checkpoint"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= damage.endswith("flipped")
        file.write_bytes(data[:-1] if damage == "cut" else data)
        if damage.endswith("missing"):
            file.unlink()
    message = f"the checkpoint {work}/checkpoint is damaged: remove {work} to start anew"
    fails(4, message, *resume(source, work))
    assert not work.with_name("resumed.seqbag").exists()


IDENTITY = {"seed": 1, "source": "abc"}
STATE = ({"pass": 1, "done": 40, "names": ["a", "b"]}, {"x": np.arange(6).reshape(2, 3), "y": np.zeros(0, np.float32)})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("saved") / "work"
    with Checkpoint(folder, IDENTITY) as checkpoint:
        checkpoint.save(STATE)
    return folder, (folder / "checkpoint").read_bytes()


def restored(folder: Path, data: bytes) -> None:
    """Reading gives the state, or a ModelError that names the checkpoint and the remedy."""
    (folder / "checkpoint").write_bytes(data)
    told = f"the checkpoint {folder}/checkpoint is damaged: remove {folder} to start anew"
    try:
        with Checkpoint(folder, IDENTITY, resume=True) as checkpoint:
            state = checkpoint.state
    except ModelError as error:
        told = str(error)
        state = STATE
    assert told == f"the checkpoint {folder}/checkpoint is damaged: remove {folder} to start anew"
    assert state is not None
    values, arrays = state
    assert values == STATE[0]
    assert sorted(arrays) == sorted(STATE[1])
    for name, array in STATE[1].items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


@settings(max_examples=300)
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3))
def test_flipped_bytes_are_noticed(saved: tuple[Path, bytes], flips: list[tuple[float, int]]) -> None:
    data = bytearray(saved[1])
    for where, value in flips:
        data[int(where * len(data))] ^= value
    restored(saved[0], bytes(data))


@settings(max_examples=60)
@given(where=st.floats(0, 1, exclude_max=True))
def test_every_cut_is_noticed(saved: tuple[Path, bytes], where: float) -> None:
    folder, data = saved
    (folder / "checkpoint").write_bytes(data[: int(where * len(data))])
    with pytest.raises(ModelError, match="is damaged"), Checkpoint(folder, IDENTITY, resume=True):
        pass


def test_a_folder_without_a_checkpoint_goes_and_others_stay(tmp_path: Path) -> None:
    with Checkpoint(tmp_path / "a", IDENTITY):
        assert (tmp_path / "a" / "lock").exists()
    with Checkpoint(tmp_path / "b", IDENTITY) as checkpoint:
        (tmp_path / "b" / "notes.txt").write_text("mine")
        checkpoint.save(STATE)
        checkpoint.clear()
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "notes.txt"]
