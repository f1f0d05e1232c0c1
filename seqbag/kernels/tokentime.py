"""Dates and times of day as logs write them: where one that begins at a given byte ends.

Each `*_end` function answers the end, or -1 if nothing of its kind begins at i. None reads more than about 50 bytes.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from seqbag.batch import Int64s, UInt8s
from seqbag.kernels.tokenclass import (
    BIG_T,
    BIG_Z,
    CLASS,
    COLON,
    COMMA,
    DASH,
    DIGIT,
    DOT,
    FIGURES,
    LETTERS,
    PLUS,
    SOLIDUS,
    SPACE,
    UNDERSCORE,
    WORD,
    byte,
    digits,
    word_at,
)

MONTHS = np.array(
    [
        int.from_bytes(m)
        for m in (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
    ]
)
DAYS = np.array([int.from_bytes(d) for d in (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")])


@njit(cache=True, nogil=True)
def name_at(data: UInt8s, i: int, end: int, names: Int64s) -> bool:
    """Whether three bytes at i are one of the names, and no word goes on after them."""
    if i + 3 > end or word_at(data, i + 3, end):
        return False
    key = (np.int64(data[i]) << 16) | (np.int64(data[i + 1]) << 8) | np.int64(data[i + 2])
    found = False
    for name in names:
        found |= key == name
    return found


@njit(cache=True, nogil=True)
def zone_end(data: UInt8s, i: int, end: int) -> int:
    """The end of a time zone (Z, +hhmm, +hh:mm, after a space or not) at i, or i itself where there is none."""
    if byte(data, i, end) == BIG_Z:
        return i + 1
    j = i + (byte(data, i, end) == SPACE)
    if byte(data, j, end) != PLUS and byte(data, j, end) != DASH:
        return i
    j += 1
    n = digits(data, j, end)
    if n == 2 and byte(data, j + 2, end) == COLON and digits(data, j + 3, end) == 2:
        n = 5
    elif n != 4:
        return i
    return i if word_at(data, j + n, end) else j + n


@njit(cache=True, nogil=True)
def clock_end(data: UInt8s, i: int, end: int, dated: bool) -> int:
    """h:mm:ss with a fraction and a zone or not; after a date also h:mm and hh.mm.ss."""
    hour = digits(data, i, end)
    mark = byte(data, i + hour, end)
    if hour < 1 or hour > 2 or not (mark == COLON or (dated and mark == DOT)):
        return -1
    i += hour + 1
    if digits(data, i, end) != 2:
        return -1
    i += 2
    if byte(data, i, end) == mark and digits(data, i + 1, end) == 2:
        i += 3
        after = byte(data, i, end)
        if after in (DOT, COMMA, COLON):
            fraction = digits(data, i + 1, end)
            if fraction > 9:
                return -1
            if fraction > 0:
                i += 1 + fraction
    elif not (dated and mark == COLON):
        return -1
    i = zone_end(data, i, end)
    return -1 if word_at(data, i, end) else i


@njit(cache=True, nogil=True)
def date_end(data: UInt8s, i: int, end: int) -> int:
    """A date in figures, or day, month's name and year; what may follow it is for the caller to check."""
    a = digits(data, i, end)
    mark = byte(data, i + a, end)
    j = i + a + 1
    if (a == 1 or a == 2) and (mark in (SOLIDUS, DASH, SPACE)) and name_at(data, j, end, MONTHS):
        if byte(data, j + 3, end) == mark and digits(data, j + 4, end) == 4:
            return j + 8
        return -1
    if mark != DASH and mark != SOLIDUS and mark != DOT:
        return -1
    b = digits(data, j, end)
    if b < 1 or b > 2 or byte(data, j + b, end) != mark:
        return -1
    k = j + b + 1
    c = digits(data, k, end)
    if a == 4 and (c == 1 or c == 2):
        return k + c
    if (a == 1 or a == 2) and (c == 4 or (c == 2 and mark != DOT)):
        return k + c
    return -1


@njit(cache=True, nogil=True)
def may_date(figures: int, after: int) -> bool:
    """Whether so many figures could begin a time or a date, by the byte after them."""
    if figures <= 2:
        return after in (SPACE, COLON, DASH, SOLIDUS, DOT)
    return figures in (4, 8) and after in (DASH, SOLIDUS, DOT)


@njit(cache=True, nogil=True)
def time_end(data: UInt8s, i: int, end: int) -> int:
    """A time, a date, or a date with a time, beginning with a digit."""
    n = digits(data, i, end)
    joint = byte(data, i + n, end)
    if joint == COLON:
        return clock_end(data, i, end, False)
    j = date_end(data, i, end)
    if j >= 0:
        after = byte(data, j, end)
        if after in (SPACE, BIG_T, DASH, UNDERSCORE, COLON):
            k = clock_end(data, j + 1, end, True)
            if k >= 0:
                return k
        separated = after in (DASH, SOLIDUS, DOT)
        if word_at(data, j, end) or (separated and digits(data, j + 1, end) > 0):
            return -1
        return j
    # Without a year, only before a clock: 03-17 16:13:47, 07.26 13:53:18; and 20171223-22:15:29.
    if n == 8 and joint == DASH:
        return clock_end(data, i + 9, end, False)
    if n == 2 and joint in (DASH, DOT, SOLIDUS) and digits(data, i + 3, end) == 2 and byte(data, i + 5, end) == SPACE:
        return clock_end(data, i + 6, end, False)
    return -1


@njit(cache=True, nogil=True)
def named_time_end(data: UInt8s, i: int, end: int) -> int:
    """[Sun[,]] Jul[ ]7 [2005] 14:03:05 [2005], or Sun[,] and a date that begins with a digit."""
    if name_at(data, i, end, DAYS):
        i += 3 + (byte(data, i + 3, end) == COMMA)
        if byte(data, i, end) != SPACE:
            return -1
        i += 1
        if digits(data, i, end) > 0:
            return time_end(data, i, end)
    if not name_at(data, i, end, MONTHS) or byte(data, i + 3, end) != SPACE:
        return -1
    i += 4 + (byte(data, i + 4, end) == SPACE)
    n = digits(data, i, end)
    if n < 1 or n > 2 or byte(data, i + n, end) != SPACE:
        return -1
    i += n + 1
    if digits(data, i, end) == 4 and byte(data, i + 4, end) == SPACE:
        return clock_end(data, i + 5, end, False)
    i = clock_end(data, i, end, False)
    if i >= 0 and byte(data, i, end) == SPACE and digits(data, i + 1, end) == 4 and not word_at(data, i + 5, end):
        return i + 5
    return i


@njit(cache=True, nogil=True)
def shape_byte(b: np.uint8, before: np.uint8) -> int:
    """What a byte of a time adds to its shape: 0 if it goes on a group of figures or letters.

    before: the byte of the time before it, NUL if it is the first.
    """
    c, last = CLASS[b], CLASS[before]
    if c == DIGIT:
        return 0 if last == DIGIT else FIGURES
    if c & WORD != 0:
        return 0 if last & WORD != 0 and last != DIGIT else LETTERS
    return 0 if b == SPACE and before == SPACE else int(b)
