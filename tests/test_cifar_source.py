"""CIFAR-10 in its three layouts, and pickles that are none of them."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqbag.errors import DataError
from seqbag_connectors import open_source
from seqbag_connectors.cifar import load_plain
from tests.builders import CLASSES, pictures, write_cifar_binary, write_cifar_python, write_hub_images
from tests.contracts import all_rows

PIXELS = pictures(25)
LABELS = [i * 7 % 10 for i in range(25)]
EXPECTED = [(image.tobytes(), CLASSES[label]) for image, label in zip(PIXELS, LABELS, strict=True)]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_python_batches_give_the_published_pixels(protocol: int, tmp_path: Path) -> None:
    source: Any = open_source(str(write_cifar_python(tmp_path / "c", PIXELS, LABELS, protocol)))
    assert source.class_names == CLASSES
    assert all_rows(source) == EXPECTED


def test_binary_and_hub_layouts_agree(tmp_path: Path) -> None:
    binary: Any = open_source(str(write_cifar_binary(tmp_path / "c", PIXELS, LABELS)))
    hub: Any = open_source(str(write_hub_images(tmp_path / "train.parquet", PIXELS, LABELS, CLASSES)))
    assert binary.rows == hub.rows == 25
    assert binary.class_names == hub.class_names == CLASSES
    assert all_rows(binary) == all_rows(hub) == EXPECTED


def test_one_file_filters_and_absent_names(tmp_path: Path) -> None:
    folder = write_cifar_binary(tmp_path / "c", PIXELS, LABELS)
    assert all_rows(open_source(f"{folder}/data_batch_1.bin", where="label = 'frog'")) == [
        row for row in EXPECTED[:13] if row[1] == "frog"
    ]
    (folder / "batches.meta.txt").unlink()
    source: Any = open_source(str(folder))
    assert source.class_names is None
    assert [label for _, label in all_rows(source)] == [str(label) for label in LABELS]


def test_the_test_batch_is_not_part_of_a_folder(tmp_path: Path) -> None:
    folder = write_cifar_binary(tmp_path / "c", PIXELS, LABELS)
    (folder / "test_batch.bin").write_bytes((folder / "data_batch_1.bin").read_bytes())
    assert len(all_rows(open_source(str(folder)))) == 25
    assert len(all_rows(open_source(f"{folder}/test_batch.bin"))) == 13


def test_damaged_binary_files_are_named(tmp_path: Path) -> None:
    folder = write_cifar_binary(tmp_path / "c", PIXELS, LABELS)
    second = folder / "data_batch_2.bin"
    data = bytearray(second.read_bytes())
    second.write_bytes(data[:-1])
    with pytest.raises(DataError, match=f"{second}: not a whole CIFAR-10 binary file"):
        open_source(str(folder))
    data[0] = 11
    second.write_bytes(data)
    with pytest.raises(DataError, match=f"{second}: a label that is not one of the 10 classes"):
        all_rows(open_source(str(folder)))


class _Runs:
    """Runs a command when it is unpickled by the ordinary unpickler."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_is_refused_and_not_run(protocol: int, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    hostile = [
        (_Runs(os.system, f"touch {trap}"), "system"),
        (_Runs(subprocess.check_call, ["touch", str(trap)]), "check_call"),
        (_Runs(eval, f"open({str(trap)!r}, 'w')"), "eval"),
        (_Runs(getattr, "", "join"), "getattr"),
    ]
    for value, named in hostile:
        path = tmp_path / "data_batch_1"
        path.write_bytes(pickle.dumps({b"data": value, b"labels": []}, protocol=protocol))
        with pytest.raises(DataError) as caught:
            all_rows(open_source(str(path)))
        assert str(caught.value).startswith(f"{path}: refused as a CIFAR-10 batch (it names ")
        assert named in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not trap.exists()


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2],
        {b"data": [1], b"labels": [1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
        {b"data": np.zeros((1, 3072), np.float32), b"labels": [1]},
        {b"data": np.zeros((1, 3072), object), b"labels": [1]},
        {b"data": np.zeros((1, 3071), np.uint8), b"labels": [1]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": ["1"]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [1 << 70]},
    ],
)
def test_other_pickles_are_refused(batch: object, tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(DataError, match=str(path)):
        all_rows(open_source(str(path)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_a_broken_pickle_never_escapes(tmp_path: Path, data: st.DataObject) -> None:
    batch = {b"data": np.arange(6, dtype=np.uint8).reshape(2, 3), b"labels": [1, 2]}
    broken = bytearray(pickle.dumps(batch, protocol=data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "data_batch_1"
    path.write_bytes(broken[: data.draw(st.integers(0, len(broken)))])
    with contextlib.suppress(DataError):
        assert isinstance(load_plain(str(path)), dict)
