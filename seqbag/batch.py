"""What flows through the trainer: the rows a source yields and the batches the encoder makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

UInt8s: TypeAlias = npt.NDArray[np.uint8]
Int32s: TypeAlias = npt.NDArray[np.int32]
Int64s: TypeAlias = npt.NDArray[np.int64]
Float32s: TypeAlias = npt.NDArray[np.float32]

InputKind = Literal["text", "tokens", "image"]


def ragged_take(offsets: Int64s, rows: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], Int64s]:
    """Where the elements of ragged rows lie, row i at offsets[i] .. offsets[i + 1]; and the offsets of those taken."""
    lengths = np.diff(offsets)[rows]
    taken = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(taken[-1]) + np.repeat(offsets[:-1][rows] - taken[:-1], lengths), taken


def cuts(sizes: npt.NDArray[np.integer], most: int) -> Iterator[slice]:
    """Rows of these sizes (n,) in stretches of at most `most` in all, but of one row at least."""
    ends, start = np.cumsum(sizes, dtype=np.int64), 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(start, stop)
        start = stop


@dataclass(frozen=True, slots=True)
class TextColumn:
    """n strings in Arrow's layout: string i is `data[offsets[i]:offsets[i + 1]]`, UTF-8.

    data: (bytes,) uint8; offsets: (n + 1,) int64, not falling, offsets[0] may be > 0.
    """

    data: UInt8s
    offsets: Int64s

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: npt.NDArray[np.intp]) -> TextColumn:
        """The strings named by rows, in that order."""
        index, offsets = ragged_take(self.offsets, rows)
        return TextColumn(self.data[index], offsets)

    def part(self, rows: slice) -> TextColumn:
        """Some strings that follow each other, where they are."""
        return TextColumn(self.data, self.offsets[rows.start : rows.stop + 1])

    @property
    def sizes(self) -> Int64s:
        """(n,) bytes of each."""
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True)
class TokensColumn:
    """n lists of strings: list i is `tokens[offsets[i]:offsets[i + 1]]`. Lists of integers arrive as decimal text."""

    tokens: TextColumn
    offsets: Int64s

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: npt.NDArray[np.intp]) -> TokensColumn:
        """The lists named by rows, in that order."""
        index, offsets = ragged_take(self.offsets, rows)
        return TokensColumn(self.tokens.take(index), offsets)

    def part(self, rows: slice) -> TokensColumn:
        """Some lists that follow each other, where they are."""
        return TokensColumn(self.tokens, self.offsets[rows.start : rows.stop + 1])

    @property
    def sizes(self) -> Int64s:
        """(n,) tokens of each."""
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True)
class ImageColumn:
    """n images of one shape. pixels: (n, height, width, channels) uint8; more spatial axes for volumes and video."""

    pixels: UInt8s

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, rows: npt.NDArray[np.intp]) -> ImageColumn:
        """The images named by rows, in that order."""
        return ImageColumn(self.pixels[rows])

    def part(self, rows: slice) -> ImageColumn:
        """Some images that follow each other, where they are."""
        return ImageColumn(self.pixels[rows])

    @property
    def sizes(self) -> Int64s:
        """(n,) values of each."""
        return np.full(len(self), np.prod(self.pixels.shape[1:]), np.int64)


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """n labels, dictionary-encoded batch by batch: row i has `names[codes[i]]`; code -1 is a null.

    codes: (n,) int32; names: the distinct labels of this batch, or of one it is part of, as text, in the order they
    first appear.
    """

    codes: Int32s
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """A bounded batch as a source yields it."""

    input: TextColumn | TokensColumn | ImageColumn
    labels: LabelColumn | None

    def __len__(self) -> int:
        return len(self.input)

    def parts(self, most: int) -> Iterator[Rows]:
        """The rows in stretches of at most `most` bytes of text, tokens or pixel values, but of one row at least."""
        for rows in cuts(self.input.sizes, most):
            labels = None if self.labels is None else LabelColumn(self.labels.codes[rows], self.labels.names)
            yield Rows(self.input.part(rows), labels)


class Source(Protocol):
    """A table that can be streamed any number of times, each time the same rows in the same order.

    A third party adds one by an entry point of the group `seqbag.sources`, named after a URI scheme.
    """

    @property
    def kind(self) -> InputKind:
        """What the input column holds."""

    @property
    def rows(self) -> int | None:
        """The number of rows where it is known without reading them (for the progress bar), else None."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the data behind the source changes; compared between passes and on resume."""

    def describe(self) -> str:
        """One line for people: what is read and which columns were chosen."""

    def batches(self, size: int) -> Iterator[Rows]:
        """Stream the rows in batches of at most `size` rows. Raises DataError with one clear line."""
