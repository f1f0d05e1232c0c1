"""A source whose rows are in memory, and columns made of Python values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from seqbag.batch import InputKind, LabelColumn, Rows, TextColumn, TokensColumn
from seqbag.progress import Silent


def text_column(texts: Sequence[str]) -> TextColumn:
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
    return TextColumn(np.frombuffer(b"".join(encoded), np.uint8), np.concatenate([[0], ends]).astype(np.int64))


def tokens_column(lists: Sequence[Sequence[str]]) -> TokensColumn:
    ends = np.cumsum([len(tokens) for tokens in lists], dtype=np.int64)
    return TokensColumn(
        text_column([token for tokens in lists for token in tokens]), np.concatenate([[0], ends]).astype(np.int64)
    )


def label_column(labels: Sequence[str | None]) -> LabelColumn:
    names = tuple(dict.fromkeys(label for label in labels if label is not None))
    codes = [-1 if label is None else names.index(label) for label in labels]
    return LabelColumn(np.array(codes, np.int32), names)


class MemorySource:
    """Text or lists of tokens with labels. passes: what each pass over it reads; the last serves all that follow."""

    def __init__(self, kind: InputKind, *passes: tuple[Sequence, Sequence[str | None]], most: int = 10**9) -> None:
        self.kind, self._passes, self._most, self._read = kind, passes, most, 0

    @property
    def rows(self) -> int:
        return len(self._passes[0][0])

    fingerprint = "memory"

    def describe(self) -> str:
        return "rows in memory"

    def batches(self, size: int) -> Iterator[Rows]:
        inputs, labels = self._passes[min(self._read, len(self._passes) - 1)]
        self._read += 1
        make = text_column if self.kind == "text" else tokens_column
        step = min(size, self._most)
        for start in range(0, len(inputs), step):
            yield Rows(make(inputs[start : start + step]), label_column(labels[start : start + step]))


class Notes(Silent):
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def about(self, subject: str) -> list[str]:
        """The notes on something."""
        return [text for text in self.texts if text.startswith(f"{subject}: ")]
