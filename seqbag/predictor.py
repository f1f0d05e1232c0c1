"""A model file as an object that predicts, whatever kind of file it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from seqbag import packed, store
from seqbag.batch import Float32s, ImageColumn, TextColumn, TokensColumn
from seqbag.errors import DataError
from seqbag.store import Model

Column: TypeAlias = TextColumn | TokensColumn | ImageColumn
Rows: TypeAlias = Column | Sequence[str] | Sequence[Sequence[str]] | npt.NDArray[np.uint8]


def open_model(path: Path) -> Model:
    """Read a model file or a packed model. Raises ModelError with one line if it is neither, damaged or too new."""
    return packed.load(path) if store.holds(path, packed.KEY) else store.load(path)


def load(path: str | Path) -> Predictor:
    """Read a model file, or a packed model, to predict with. Raises ModelError with one line."""
    return Predictor(open_model(Path(path)))


class Predictor:
    """Predicts classes. Rows come as

    - a list of n strings, for a model of text (tokenised as in training; a lone string is one row to `predict_one`);
    - a list of n lists of strings, for a model of token lists;
    - an (n, height, width, channels) uint8 array, for a model of images;
    - or a column as sources yield them (`TextColumn`, `TokensColumn`, `ImageColumn`), which copies nothing.

    Threads may share one.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, sorted: the order of the columns of `probabilities`."""
        return self.model.network.classes

    @property
    def columns(self) -> dict[str, Any]:
        """`kind`, `input` and `label`, as read in training."""
        return self.model.columns

    @property
    def report(self) -> dict[str, Any]:
        """What `seqbag train --json` printed."""
        return self.model.report

    def predict(self, rows: Rows) -> list[str]:
        """The class of each row. Raises DataError for rows of another kind than the model's."""
        classes = self.classes
        return [classes[place] for place in self.model.network.logits(self._column(rows)).argmax(1).tolist()]

    def predict_one(self, row: str | Sequence[str] | npt.NDArray[np.uint8]) -> str:
        """The class of one row: a string, a list of strings, or a (height, width, channels) uint8 array."""
        rows: Any = row[None] if isinstance(row, np.ndarray) else (row,)
        return self.classes[int(self.model.network.logits(self._column(rows)).argmax())]

    def probabilities(self, rows: Rows) -> Float32s:
        """(n, classes) float32, rows sum to 1. Raises DataError for rows of another kind than the model's."""
        return self.model.network.probabilities(self._column(rows))

    def _column(self, rows: Rows) -> Column:
        kind, wanted = _KINDS[self.columns["kind"]]
        if isinstance(rows, kind):
            return rows
        column = _text(rows) if kind is TextColumn else _tokens(rows) if kind is TokensColumn else _image(rows)
        if column is None:
            raise DataError(f"the model reads {wanted}: give it those")
        return column


_KINDS: dict[str, tuple[type[Column], str]] = {
    "text": (TextColumn, "a list of strings"),
    "tokens": (TokensColumn, "a list of lists of strings"),
    "image": (ImageColumn, "an array (n, height, width, channels) of uint8"),
}


def _text(rows: Any) -> TextColumn | None:
    """Strings in Arrow's layout; lone surrogates, which UTF-8 cannot hold, become question marks. None for others."""
    if not isinstance(rows, list | tuple | Sequence) or isinstance(rows, str):
        return None
    try:
        encoded = [row.encode("utf-8", "replace") for row in rows]
    except AttributeError:
        return None
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(part) for part in encoded], out=offsets[1:])
    return TextColumn(np.frombuffer(b"".join(encoded), np.uint8), offsets)


def _tokens(rows: Any) -> TokensColumn | None:
    """Lists of strings in Arrow's layout; whole numbers become their decimal text. None for others."""
    if not isinstance(rows, Sequence) or any(isinstance(row, str) or not isinstance(row, Sequence) for row in rows):
        return None
    tokens = _text([str(token) if isinstance(token, int) else token for row in rows for token in row])
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return None if tokens is None else TokensColumn(tokens, offsets)


def _image(rows: Any) -> ImageColumn | None:
    fits = isinstance(rows, np.ndarray) and rows.dtype == np.uint8 and rows.ndim >= 3
    return ImageColumn(rows) if fits else None
