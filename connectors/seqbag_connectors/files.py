"""The files behind a source: finding them, and noticing when they change."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seqbag.errors import DataError

# Tried in this order: a folder of CIFAR-10 batches also holds a .txt, a folder of Parquet files may hold a README.txt.
FILE_KINDS = {
    "cifar": re.compile(r"^(data_batch_\d+|test_batch)(\.bin)?$"),
    "parquet": re.compile(r"\.(parquet|pq)$"),
    "csv": re.compile(r"\.(csv|tsv)(\.gz|\.zst)?$"),
    "json": re.compile(r"\.(json|jsonl|ndjson)(\.gz|\.zst)?$"),
    "database": re.compile(r"\.(duckdb|ddb|db)$"),
    "log": re.compile(r"\.(log|txt)([.-]\d+)*(\.gz|\.zst)?$|\.(gz|zst)$"),
}
_END = 1 << 16  # bytes at either end of a file that are part of its stamp


def kind_of(path: str) -> str | None:
    """The kind (a key of FILE_KINDS) that the name of a file belongs to, if any."""
    base = os.path.basename(path).lower()
    return next((kind for kind, name in FILE_KINDS.items() if name.search(base)), None)


def find_files(uri: str) -> tuple[str, list[str]] | None:
    """The kind of files (a key of FILE_KINDS) a path, folder or glob stands for, and their paths in sorted order.

    A folder may hold files of other kinds, which are left aside; a glob says what is to be read, and may not match any.
    None where the name belongs to no kind. Raises DataError for what does not exist or holds no readable file.
    """
    folder = os.path.isdir(uri)
    if folder:
        found = sorted(_walk(uri))
    elif os.path.lexists(uri) or not glob.has_magic(uri):
        if not os.path.exists(uri):
            raise DataError(f"{uri}: no such file or folder")
        kind = kind_of(uri)
        return None if kind is None else (kind, [uri])
    else:
        found = sorted(path for path in glob.glob(uri, recursive=True) if os.path.isfile(path) and not _marks(path))
        if not found:
            raise DataError(f"{uri}: no file matches")
    kinds = {path: kind_of(path) for path in found}
    first = next((kind for kind in FILE_KINDS if kind in kinds.values()), None)
    if first is None:
        raise DataError(f"{uri}: holds no file of a kind that is understood (Parquet, CSV, JSON, DuckDB, .log, .txt)")
    paths = [path for path, kind in kinds.items() if kind == first]
    if not folder and len(paths) < len(found):
        other = next(path for path, kind in kinds.items() if kind != first)
        raise DataError(f"{uri}: {other} is not read as the {first} files beside it are; name files of one kind")
    if first == "cifar" and folder:
        paths = [path for path in paths if not os.path.basename(path).startswith("test_batch")] or paths
    return first, paths


def _marks(path: str) -> bool:
    """Whether a file speaks of those beside it, as `_SUCCESS` and `_metadata` do."""
    return os.path.basename(path).startswith("_") and kind_of(path) is None


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in names if not name.startswith("."))


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What tells a file from another in its place: its size (bytes), modification time (ns) and a hash of its ends."""

    # `cp -p`, `rsync -t` and `tar` set times, so that another file may have the same size and time. The ends hold the
    # footer of Parquet, the sum over a whole .gz file, the header of a database that counts its writes, and the oldest
    # and newest lines of a log. Inode and change time would tell more, but they also differ after a chmod, a hard link,
    # a remount or a restored backup: refusing the same bytes then costs a run, and is worse than what the ends miss.
    size: int
    modified: int
    ends: bytes

    @classmethod
    def of(cls, path: str) -> _Stamp:
        """Raises DataError for what cannot be read, or not twice."""
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):  # a pipe cannot be read a second time, and may never end
                raise DataError(f"{path}: not a regular file; save it to one, or pipe it into `seqbag predict MODEL -`")
            with open(path, "rb") as file:
                digest = hashlib.sha256(file.read(_END))
                file.seek(max(0, status.st_size - _END))
                digest.update(file.read(_END))
        except OSError as error:
            raise DataError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
        return cls(status.st_size, status.st_mtime_ns, digest.digest())

    def difference(self, now: _Stamp) -> str:
        """How a file that had this stamp and has another now was changed, for people."""
        if now.size != self.size:
            return f"{self.size} bytes before, {now.size} now"
        if now.modified != self.modified:
            return "it was written again"
        return "it has other bytes of the same size and time"


class Files:
    """A fixed set of files with the stamps they had when the source was opened."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        self._stamps = [_Stamp.of(path) for path in self.paths]

    def check(self) -> None:
        """Raise DataError, naming the file, if one was changed, replaced or deleted since the source was opened."""
        for path, before in zip(self.paths, self._stamps, strict=True):
            if not os.path.exists(path):
                raise DataError(f"{path} changed while in use: it was deleted; put it back and start again")
            now = _Stamp.of(path)
            if now != before:
                what = before.difference(now)
                raise DataError(f"{path} changed while in use: {what}; start again on files that hold still")

    def fingerprint(self, *texts: str | None) -> str:
        """A hash of the paths and stamps of the files, and of `texts`."""
        digest = hashlib.sha256()
        for path, stamp in zip(self.paths, self._stamps, strict=True):
            digest.update(repr((os.path.abspath(path), stamp)).encode())
        digest.update(repr(texts).encode())
        return digest.hexdigest()
