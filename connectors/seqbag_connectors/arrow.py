"""Arrow arrays as the numpy columns the core works on, without copying their bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from seqbag.batch import Int32s, Int64s, LabelColumn, TextColumn, TokensColumn, UInt8s


def rebatch(batches: Iterable[Any], size: int) -> Iterator[Any]:
    """Record batches of exactly `size` rows (the last may be shorter), copying only rows on either side of a seam.

    The engine cuts its batches differently for each number of threads; what is trained must not depend on it.
    """
    parts: list[Any] = []
    missing = size
    for batch in batches:
        start = 0
        while batch.num_rows - start >= missing:
            parts.append(batch.slice(start, missing))
            yield _joined(parts)
            start += missing
            parts, missing = [], size
        if start < batch.num_rows:
            parts.append(batch.slice(start))
            missing -= batch.num_rows - start
    if parts:
        yield _joined(parts)


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


def text_column(array: Any) -> TextColumn:
    """A string or binary array as bytes and offsets; null strings are empty."""
    offsets, data = array.buffers()[1:3]
    return TextColumn(_bytes(data), _offsets(array, offsets))


def tokens_column(array: Any) -> TokensColumn:
    """A list-of-strings array; null lists and null strings are empty."""
    return TokensColumn(text_column(array.values), _offsets(array, array.buffers()[1]))


def label_column(array: Any) -> LabelColumn:
    """A string array, dictionary-encoded: names in the order they first appear, -1 for null."""
    encoded = array.dictionary_encode()
    codes: Int32s = np.frombuffer(encoded.indices.buffers()[1], np.int32)[encoded.offset :][: len(array)]
    if encoded.null_count:
        codes = np.where(encoded.is_null().to_numpy(zero_copy_only=False), np.int32(-1), codes)
    names = encoded.dictionary.cast(pa.large_binary()).to_pylist()  # a damaged file may hold what is not UTF-8
    return LabelColumn(codes, tuple(name.decode(errors="replace") for name in names))


def _bytes(buffer: Any) -> UInt8s:
    return np.zeros(0, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)


def _offsets(array: Any, buffer: Any) -> Int64s:
    """The n + 1 offsets of a string or list array, int64 whichever width Arrow chose."""
    if len(array) == 0:
        return np.zeros(1, np.int64)
    large = pa.types.is_large_string(array.type) or pa.types.is_large_list(array.type)
    large = large or pa.types.is_large_binary(array.type)
    offsets = np.frombuffer(buffer, np.int64 if large else np.int32)
    return offsets[array.offset : array.offset + len(array) + 1].astype(np.int64, copy=False)
