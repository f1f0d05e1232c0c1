"""Bags that outgrew the memory: kept in Arrow files until their pass is over, then read back one file at a time."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from seqbag.bags import Bags
from seqbag.errors import DataError, ModelError

PROCESS = 450 * 10**6  # bytes that the process takes without the bags
_BAGS_SHARE = 0.125  # of the rest: the bags are copied as they grow
_LEAST_BAGS = 30 * 10**6


def budget(memory: int) -> int:
    """Bytes that the bags of a pass may take of the process's."""
    return max(_LEAST_BAGS, int(_BAGS_SHARE * (memory - PROCESS)))


@dataclass(frozen=True)
class Part:
    """A file of bags: its name, the BLAKE2 sum of its bytes, the number of bags in it, and the memory they take."""

    name: str
    checksum: str
    size: int
    nbytes: int


class Spill:
    """The files of one pass. parts: what was written so far, in order.

    folder: one that is there, or None for a temporary one; stem: of the files' names.
    """

    def __init__(self, folder: Path | None, stem: str) -> None:
        self.parts: list[Part] = []
        self.folder, self.stem = folder, stem
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def write(self, bags: Bags) -> Part:
        """Add a file with the bags, one row whose columns are lists. Raises DataError if it cannot be written."""
        if self.folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="seqbag-")
            self.folder = Path(self._temporary.name)
        columns = {name: pa.array(values.reshape(-1)) for name, values in bags.arrays().items()}
        lists = [pa.LargeListArray.from_arrays(np.array([0, len(column)]), column) for column in columns.values()]
        batch = pa.record_batch(lists, names=list(columns))
        path = self.folder / f"{self.stem}-{len(self.parts)}.arrow"
        try:
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
                writer.write_batch(batch)
            checksum = _checksum(path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise DataError(
                f"cannot write {path} ({reason}): make room, or choose another place with --work-dir"
            ) from error
        part = Part(path.name, checksum, bags.size, bags.nbytes)
        self.parts.append(part)
        return part

    def read(self, part: Part) -> Bags:
        """The bags of a file. Raises ModelError unless it is as it was written."""
        assert self.folder is not None
        path = self.folder / part.name
        try:
            if _checksum(path) != part.checksum:
                raise ValueError("other bytes")
            # Mapped, as what is read into Arrow's memory stays there after the bags have copied it.
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                batch = reader.get_batch(0)
            arrays: dict[str, npt.NDArray[Any]] = {
                name: column.values.to_numpy() for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
            arrays["dense"] = arrays["dense"].reshape(part.size, int(arrays["shape"][2]))
            return Bags.from_arrays(arrays)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{path} is damaged: remove {self.folder} to start anew") from error

    def state(self) -> list[dict[str, Any]]:
        """What was written, for a checkpoint."""
        return [asdict(part) for part in self.parts]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Take up the files that `state` named."""
        self.parts = [Part(**values) for values in state]

    def clear(self) -> None:
        """Remove the files."""
        for part in self.parts:
            assert self.folder is not None
            (self.folder / part.name).unlink(missing_ok=True)
        self.parts = []
        if self._temporary is not None:
            self._temporary.cleanup()
            self.folder, self._temporary = None, None


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
