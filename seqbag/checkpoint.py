"""Checkpoints: what a run has done so far, in a folder beside its output, so that a killed run goes on where it was.

A checkpoint is one safetensors file with a JSON description and a checksum, written whole or not at all. Like a model
file it is data: reading one executes nothing. The folder is locked while a run uses it, and goes when the run is done.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from seqbag.errors import DataError, ModelError
from seqbag.store import FORMAT, read_tensors, write_atomically

Arrays = dict[str, npt.NDArray[Any]]
State = tuple[dict[str, Any], Arrays]
_KEY = "seqbag.checkpoint"


class Checkpoint:
    """The folder of one run. A context manager that holds its lock.

    folder: made if need be; identity: what must be the same for a run to go on, as JSON values; every: seconds between
    checkpoints inside a pass; resume: whether to start from what is there.
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
            self.folder.mkdir(exist_ok=True)
            self._lock = (self.folder / "lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{self.folder} is in use by another train: wait for it or choose another --out") from error
        except OSError as error:
            raise DataError(
                f"{self.folder} cannot be written ({error.strerror}): choose another place with --work-dir"
            ) from error
        if self._resume and self.file.exists():
            self.state = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()
        if not self.file.exists():  # nothing was kept: leave nothing behind
            self.clear()

    def network(self, number: int) -> Path:
        """Where the layers before pass `number` are kept, as a model file."""
        return self.folder / f"network-{number}"

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
        contiguous = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
        description = {"format": FORMAT, "identity": self.identity, "values": values, "sum": _checksum(contiguous)}
        write_atomically(self.file, safetensors.numpy.save(contiguous, {_KEY: json.dumps(description)}))
        self._last = time.monotonic()

    def clear(self) -> None:
        """The run is done: remove the folder's files, and the folder if nothing else is in it."""
        for pattern in ("checkpoint", "lock", "network-*", ".checkpoint.*.tmp", ".network-*.tmp"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _read(self) -> State:
        remedy = f"remove {self.folder} to start anew"
        try:
            description, arrays = read_tensors(self.file, _KEY)
            identity, values, checksum = description["identity"], description["values"], description["sum"]
        except (ModelError, KeyError) as error:
            raise ModelError(f"the checkpoint {self.file} is damaged: {remedy}") from error
        if checksum != _checksum(arrays):
            raise ModelError(f"the checkpoint {self.file} is damaged (its checksum differs): {remedy}")
        if identity != self.identity:
            names = sorted(name for name in self.identity if identity.get(name) != self.identity[name])
            raise DataError(f"the checkpoint {self.file} is of a run with other {', '.join(names)}: {remedy}")
        return values, arrays


def prefixed(name: str, arrays: Arrays) -> Arrays:
    """The arrays under names that start with `name.`."""
    return {f"{name}.{key}": value for key, value in arrays.items()}


def under(name: str, arrays: Arrays) -> Arrays:
    """The arrays whose names start with `name.`, without that."""
    return {key[len(name) + 1 :]: value for key, value in arrays.items() if key.startswith(f"{name}.")}


def _checksum(arrays: Arrays) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape};".encode())
        digest.update(np.ascontiguousarray(arrays[name]).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()
