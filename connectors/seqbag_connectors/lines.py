"""Bytes as lines: complete lines cut out of blocks by vectorised code, undecodable bytes replaced and counted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from seqbag.batch import TextColumn

MAX_LINE = 1 << 20  # bytes; a longer line is cut, so that no file can fill the memory
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class LineSplitter:
    """Collects blocks of bytes and hands out the lines completed so far.

    replaced: how many undecodable byte sequences became U+FFFD.
    """

    def __init__(self) -> None:
        self.replaced = 0
        self._rest: list[bytes] = []
        self._held = 0  # bytes in _rest
        self._started = False

    def feed(self, block: bytes) -> Iterator[TextColumn]:
        """The lines that `block` completes, without their `\\n` or `\\r\\n`."""
        if not self._started and block:
            self._started = True
            block = block.removeprefix(b"\xef\xbb\xbf")
        end = block.rfind(b"\n") + 1
        if end:
            whole = b"".join((*self._rest, block[:end])) if self._rest else block[:end]
            self._rest, self._held = [], 0
            yield self._split(whole)
        if end < len(block):
            self._rest.append(block[end:])
            self._held += len(block) - end
        if self._held >= MAX_LINE:
            yield from self.finish()

    def finish(self) -> Iterator[TextColumn]:
        """The last line, where it has no line break."""
        if self._held:
            whole = b"".join((*self._rest, b"\n"))
            self._rest, self._held = [], 0
            yield self._split(whole)

    def _split(self, whole: bytes) -> TextColumn:
        whole = self._decodable(whole)
        data = np.frombuffer(whole, np.uint8)
        ends = np.flatnonzero(data == ord("\n"))
        keep = data != ord("\n")
        before = np.maximum(ends - 1, 0)
        returns = data[before] == ord("\r")
        keep[before[returns]] = False
        offsets = np.zeros(len(ends) + 1, np.int64)
        offsets[1:] = ends - np.arange(len(ends)) - np.cumsum(returns)
        return TextColumn(data[keep], offsets)

    def _decodable(self, whole: bytes) -> bytes:
        try:
            whole.decode()
        except UnicodeDecodeError:
            text = whole.decode(errors="replace")
            self.replaced += text.count(_REPLACEMENT) - whole.count(_REPLACEMENT.encode())
            return text.encode()
        return whole
