"""CIFAR-10 as it was published: binary files, and Python batches read without running what is in them.

https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009)
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, ClassVar

import duckdb
import numpy as np
import pyarrow as pa

from seqbag.batch import Int64s, UInt8s
from seqbag.errors import DataError
from seqbag_connectors.relations import Relation

SCHEMA = pa.schema([("img", pa.large_binary()), ("label", pa.string()), ("file", pa.string())])
_SHAPE = (32, 32, 3)
_PIXELS = 3072
_BLOCK = 1000  # images read at a time


class CifarRelation(Relation):
    """Columns `img` (32 x 32 x 3 raw bytes), `label` (the class name where known, else its number) and `file`."""

    shape = _SHAPE

    def __init__(self, name: str, paths: Sequence[str]) -> None:
        super().__init__(name, paths)
        self._failure: DataError | None = None
        self._names = _class_names(os.path.dirname(paths[0]))
        self.countable = all(path.endswith(".bin") for path in paths)
        for path in paths:
            if path.endswith(".bin") and os.path.getsize(path) % (1 + _PIXELS):
                raise DataError(f"{path}: not a whole CIFAR-10 binary file (rows of 3073 bytes); fetch it again")

    def attach(self, con: duckdb.DuckDBPyConnection) -> None:
        con.register("source", self)

    def explain(self, query: str) -> DataError | None:
        return self._failure

    def class_names(self, column: str) -> tuple[str, ...] | None:
        return self._names if column == "label" else None

    def __arrow_c_schema__(self) -> Any:
        return SCHEMA.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> Any:
        """A new stream from the first image on: the engine asks for one at every scan."""
        return pa.RecordBatchReader.from_batches(SCHEMA, self._batches()).__arrow_c_stream__(requested_schema)

    def _batches(self) -> Iterator[Any]:
        for path in self.files.paths:
            try:
                for planes, labels in _binary(path) if path.endswith(".bin") else _pickled(path):
                    yield self._record_batch(path, planes, labels)
            except DataError as error:
                self._failure = error
                raise

    def _record_batch(self, path: str, planes: UInt8s, labels: Int64s) -> Any:
        """planes: (n, 3072) uint8, channel by channel, as published; labels: (n,)."""
        count = len(planes)
        classes = len(self._names) if self._names else 10
        if count and not 0 <= labels.min() <= labels.max() < classes:
            raise DataError(f"{path}: a label that is not one of the {classes} classes; fetch the file again")
        pixels = np.ascontiguousarray(planes.reshape(count, 3, 32, 32).transpose(0, 2, 3, 1))
        offsets = np.arange(count + 1, dtype=np.int64) * _PIXELS
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(pixels)]
        images = pa.Array.from_buffers(pa.large_binary(), count, buffers)
        names = np.array(self._names or [str(i) for i in range(classes)])
        return pa.record_batch([images, pa.array(names[labels]), pa.repeat(path, count)], schema=SCHEMA)


def _class_names(folder: str) -> tuple[str, ...] | None:
    """The names in `batches.meta.txt` or `batches.meta` beside the batches."""
    text, pickled = os.path.join(folder, "batches.meta.txt"), os.path.join(folder, "batches.meta")
    if os.path.exists(text):
        with open(text, encoding="utf-8", errors="replace") as lines:
            return tuple(line.strip() for line in lines if line.strip()) or None
    if os.path.exists(pickled):
        names = _value(load_plain(pickled), "label_names")
        if isinstance(names, list) and all(isinstance(name, bytes | str) for name in names):
            return tuple(name.decode(errors="replace") if isinstance(name, bytes) else name for name in names)
    return None


def _binary(path: str) -> Iterator[tuple[UInt8s, Int64s]]:
    with open(path, "rb") as file:
        while block := file.read(_BLOCK * (1 + _PIXELS)):
            if len(block) % (1 + _PIXELS):
                raise DataError(f"{path}: not a whole CIFAR-10 binary file (rows of 3073 bytes); fetch it again")
            rows = np.frombuffer(block, np.uint8).reshape(-1, 1 + _PIXELS)
            yield rows[:, 1:], rows[:, 0].astype(np.int64)


def _pickled(path: str) -> Iterator[tuple[UInt8s, Int64s]]:
    batch = load_plain(path)
    data, labels = _value(batch, "data"), _value(batch, "labels")
    sound = isinstance(data, np.ndarray) and data.ndim == 2 and data.shape[1] == _PIXELS
    sound = sound and isinstance(labels, list) and len(labels) == len(data)
    if not sound or not all(type(label) is int and 0 <= label < 1000 for label in labels):
        raise DataError(f"{path}: not a CIFAR-10 batch (`data`, n x 3072 bytes, and `labels`); fetch it again")
    for start in range(0, len(data), _BLOCK):
        yield data[start : start + _BLOCK], np.array(labels[start : start + _BLOCK], np.int64)


def _value(batch: object, key: str) -> Any:
    return batch.get(key.encode(), batch.get(key)) if isinstance(batch, dict) else None


class _Array:
    """Stands for an array while it is unpickled; only uint8 data of the size it claims becomes one."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> UInt8s:
        _, shape, dtype, fortran, data = self.state
        if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", b"u1") or not isinstance(data, bytes):
            raise ValueError("an array of other than bytes")
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """Stands for a dtype; what it is told beyond its name does not matter to bytes."""

    def __init__(self, name: object, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        pass


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _frombuffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.state = (1, shape, dtype, order == "F", bytes(data) if isinstance(data, bytes | bytearray) else None)
    return array


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoded as {encoding}")
    return text.encode("latin1")


class _PlainUnpickler(pickle.Unpickler):
    """Builds lists, dicts, texts, numbers and the stand-ins above; nothing else can be named, so nothing can be run."""

    _ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy.core.numeric", "_frombuffer"): _frombuffer,
        ("numpy._core.numeric", "_frombuffer"): _frombuffer,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        allowed = self._ALLOWED.get((module, name))
        if allowed is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no batch needs")
        return allowed


def load_plain(path: str) -> object:
    """What a pickle of arrays, lists, dicts, texts and numbers holds. Raises DataError on anything else."""
    try:
        with open(path, "rb") as file:
            return _plain(file)
    except Exception as error:  # a hostile pickle may raise what it likes
        what = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: refused as a CIFAR-10 batch ({what}); fetch the original again") from None


def _plain(file: BinaryIO) -> object:
    loaded = _PlainUnpickler(file, encoding="bytes").load()
    if not isinstance(loaded, dict):
        raise ValueError("it holds no dict")
    return {key: value.array() if isinstance(value, _Array) else value for key, value in loaded.items()}
