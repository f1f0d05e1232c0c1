"""The texts of located tokens, as a reader sees them, and the smallest text of each id."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

from seqbag.batch import Int32s, Int64s, UInt8s
from seqbag.kernels.tokenclass import CLASS, CLOSE, DIGIT, LOWER, MASK_BYTES, MASK_SIZES, OPEN, WORD
from seqbag.kernels.tokentime import shape_byte

Int16s: TypeAlias = npt.NDArray[np.int16]


@njit(cache=True, nogil=True)
def _render_shape(data: UInt8s, start: int, size: int, text: UInt8s) -> int:
    """Write the shape of a time, never longer than the time and two, which is less than 64; returns its length."""
    text[0] = OPEN
    n, before = 1, np.uint8(0)
    for i in range(start, start + size):
        b = shape_byte(data[i], before)
        if b != 0:
            text[n] = b
            n += 1
        before = data[i]
    text[n] = CLOSE
    return n + 1


@njit(cache=True, nogil=True)
def _render(data: UInt8s, start: int, size: int, folded: bool, text: UInt8s) -> int:
    """Write the text of a located token, cut to len(text) bytes; returns its length."""
    if size < 0:
        n = int(MASK_SIZES[-size])
        for k in range(n):  # to assign a slice takes two seconds to compile
            text[k] = MASK_BYTES[-size, k]
        return n
    word = True
    for i in range(start, start + size):
        word &= CLASS[data[i]] & WORD != 0
    if folded and not word:  # only a time spans separators
        return _render_shape(data, start, size, text)
    n = min(size, len(text))
    for k in range(n):
        text[k] = LOWER[data[start + k]] if folded else data[start + k]
    return n


@njit(cache=True, nogil=True)
def _reads(data: UInt8s, start: int, size: int, folded: bool, texts: UInt8s, at: int, known: int) -> bool:
    """Whether a located token is sure to be rendered as `texts[at, :known]`, found without doing so.

    Rows are indexed, not cut out: a view for each token would take twice as long as all else.
    """
    same, k = (MASK_SIZES[-size] if size < 0 else size) == known, 0
    while same and k < known:
        if size < 0:
            same = MASK_BYTES[-size, k] == texts[at, k]
        else:
            b = data[start + k]
            same = (LOWER[b] if folded else b) == texts[at, k]
        k += 1
    return same  # a time, which is rendered as its shape, begins with a digit, and a shape does not


@njit(cache=True, nogil=True)
def keep_smallest(at: int, text: UInt8s, size: int, texts: UInt8s, lengths: Int16s) -> None:
    """Let `text[:size]` be entry `at`'s text if the entry has none or a greater one by (number, length, bytes)."""
    known = lengths[at]
    if known >= 0:
        number, known_number = begins_with_digit(text, size), begins_with_digit(texts[at], known)
        if number and not known_number:
            return
        if number == known_number:
            if size > known:
                return
            if size == known and not _precedes(text, texts[at], size):
                return
    for k in range(texts.shape[1]):
        texts[at, k] = text[k] if k < size else 0
    lengths[at] = size


@njit(cache=True, nogil=True)
def begins_with_digit(text: UInt8s, size: int) -> bool:
    """Whether a text is a number, or at least begins like one."""
    return size > 0 and bool(CLASS[text[0]] & DIGIT)


@njit(cache=True, nogil=True)
def _precedes(text: UInt8s, other: UInt8s, size: int) -> bool:
    for k in range(size):
        if text[k] != other[k]:
            return bool(text[k] < other[k])
    return False


@njit(cache=True, nogil=True)
def learn_texts(
    ids: Int32s, data: UInt8s, starts: Int64s, sizes: Int32s, folded: bool, texts: UInt8s, lengths: Int16s
) -> None:
    """Fold the texts of located tokens into texts (vocabulary, bytes) uint8 and lengths (vocabulary,) int16."""
    text = np.empty(texts.shape[1], np.uint8)
    for t in range(len(ids)):
        at = ids[t]
        known = lengths[at]
        if known >= 0:  # most tokens repeat what is known, or are longer literals, which never replace a known word
            if _reads(data, starts[t], sizes[t], folded, texts, at, known):
                continue
            if not folded and min(sizes[t], len(text)) > known and not begins_with_digit(texts[at], known):
                continue
        size = _render(data, starts[t], sizes[t], folded, text)
        keep_smallest(at, text, size, texts, lengths)
