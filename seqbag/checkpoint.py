"""Checkpoints: what a run has done so far, in a folder beside its output, so that a killed run goes on where it was.

A checkpoint is one safetensors file with a JSON description and a checksum, written whole or not at all. Like a model
file it is data: reading one executes nothing. The folder is locked while a run uses it, and goes when the run is done.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from seqbag.errors import DataError, ModelError
from seqbag.store import FORMAT, Buffer, read_tensors, tensor_parts, write_atomically

Arrays = dict[str, npt.NDArray[Any]]
State = tuple[dict[str, Any], Arrays]
_KEY = "seqbag.checkpoint"
# The files of a work folder, and those that are being written.
_OURS = re.compile(r"checkpoint|lock|network-\d+|bags-\d+-\d+\.arrow|\.(checkpoint|network-\d+)\.\d+\.tmp")


class Checkpoint:
    """The folder of one run. A context manager that holds its lock.

    folder: made if need be, else of an earlier run or empty; identity: what must be the same for a run to go on, as
    JSON values; every: seconds between checkpoints inside a pass; resume: whether to start from what is there.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], every: float = 120.0, resume: bool = False) -> None:
        self.folder, self.every = folder, every
        self.identity = json.loads(json.dumps(identity))  # as it will be read back
        self.file = folder / "checkpoint"
        self.state: State | None = None
        self._resume = resume
        self._lock: IO[bytes] | None = None
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        try:
            self._lock = self._locked()
        except BlockingIOError as error:
            raise DataError(
                f"{self.folder} is in use by another train: wait for it, or choose another --out"
            ) from error
        except OSError as error:
            raise DataError(
                f"{self.folder} cannot be written ({error.strerror}): choose another place with --work-dir"
            ) from error
        try:
            if self._resume and self.file.exists():
                self.state = self._read()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.file.exists():  # nothing was kept: leave nothing behind
            self.clear()
        if self._lock is not None:
            self._lock.close()

    def write_network(self, number: int, data: bytes) -> str:
        """Keep the layers before pass `number` as a model file. Returns its checksum, to be kept in the state."""
        self._write(self.folder / f"network-{number}", data)
        return _digest(data)

    def read_network(self, number: int, checksum: str) -> Path:
        """The model file of the layers before pass `number`. Raises ModelError unless it is the one of the state."""
        path = self.folder / f"network-{number}"
        if not path.is_file() or _digest(path.read_bytes()) != checksum:
            raise self._damaged()
        return path

    @contextlib.contextmanager
    def restoring(self) -> Iterator[None]:
        """What cannot be restored from the state becomes a ModelError that names the checkpoint."""
        try:
            yield
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, ModelError) as error:
            raise self._damaged() from error

    @property
    def unfinished(self) -> bool:
        """Whether an earlier run left a checkpoint."""
        return self.file.exists()

    def tick(self, state: Callable[[], State]) -> None:
        """Save the state if the last checkpoint is `every` seconds old."""
        if time.monotonic() - self._last >= self.every:
            self.save(state())

    def save(self, state: State) -> None:
        """Write a checkpoint in the place of the last. Raises DataError if it cannot; the last one then stays."""
        values, arrays = state
        description = {"format": FORMAT, "identity": self.identity, "values": values}
        description["sum"] = _checksum(description, arrays)
        self._write(self.file, *tensor_parts(_KEY, description, arrays))
        self._last = time.monotonic()

    def clear(self) -> None:
        """The run is done: remove the folder's files, and the folder if nothing else is in it."""
        for path in list(self.folder.glob("*")):
            if _OURS.fullmatch(path.name):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _locked(self) -> IO[bytes]:
        while True:
            self.folder.mkdir(exist_ok=True)
            foreign = sorted(path.name for path in self.folder.iterdir() if not _OURS.fullmatch(path.name))
            if foreign:  # what we find here we take up, write over and remove
                what = f"is no work folder, as {foreign[0]} is in it"
                raise DataError(f"{self.folder} {what}: name a new or an empty one with --work-dir")
            lock = (self.folder / "lock").open("wb")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock.fileno()), os.stat(self.folder / "lock")):
                    return lock
            except FileNotFoundError:
                pass  # a run that ended has removed the folder since: make it again
            except OSError:
                lock.close()
                raise
            lock.close()

    def _write(self, path: Path, *parts: Buffer) -> None:
        write_atomically(path, *parts, remedy="make room, or choose another place with --work-dir")

    def _read(self) -> State:
        with self.restoring():
            description, arrays = read_tensors(self.file, _KEY)
            if description.pop("sum") != _checksum(description, arrays):
                raise self._damaged()
            identity, values = description["identity"], description["values"]
        if identity != self.identity:
            names = sorted(name for name in self.identity if identity.get(name) != self.identity[name])
            told = f"the checkpoint {self.file} is of a run with other {', '.join(names)}"
            raise DataError(f"{told}: remove {self.folder} to start anew")
        return values, arrays

    def _damaged(self) -> ModelError:
        return ModelError(f"the checkpoint {self.file} is damaged: remove {self.folder} to start anew")


def prefixed(name: str, arrays: Arrays) -> Arrays:
    """The arrays under names that start with `name.`."""
    return {f"{name}.{key}": value for key, value in arrays.items()}


def under(name: str, arrays: Arrays) -> Arrays:
    """The arrays whose names start with `name.`, without that."""
    return {key[len(name) + 1 :]: value for key, value in arrays.items() if key.startswith(f"{name}.")}


def _checksum(description: dict[str, Any], arrays: Arrays) -> str:
    digest = hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape};".encode())
        digest.update(np.ascontiguousarray(arrays[name]).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
