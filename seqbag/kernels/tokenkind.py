"""What a run of letters and digits in a log line is: a plain word, a number, or the beginning of something longer."""

from __future__ import annotations

from numba import njit

from seqbag.batch import UInt8s
from seqbag.kernels.tokenclass import (
    CLASS,
    COLON,
    COMMA,
    DASH,
    DIGIT,
    DOT,
    HEX,
    HEX_DIGITS,
    HEX_LETTER,
    IDENTIFIER,
    IDENTIFIER_GROUPS,
    IP,
    LETTER,
    LITERAL,
    LITERAL_DIGITS,
    MIXED,
    NUMBER,
    PATH,
    SMALL_X,
    SOLIDUS,
    SPACE,
    TIME,
    UUID,
    ZERO,
    at,
    byte,
    colon_hex,
    decimal_end,
    ipv4_end,
    uuid_end,
)
from seqbag.kernels.tokentime import may_date, named_time_end, time_end


@njit(cache=True, nogil=True)
def classify_letters(data: UInt8s, first: int, start: int, stop: int, end: int, flags: int) -> tuple[int, int]:
    """(kind, end) of a run without digits that could begin a time, a UUID or an address."""
    after = byte(data, stop, end)
    if after in (SPACE, COMMA):
        past = named_time_end(data, start, end) if stop - start == 3 else -1
        if past >= 0:
            return TIME, past
    elif flags == HEX_LETTER and after == DASH and stop - start == 8:
        past = uuid_end(data, start, end)
        if past >= 0:
            return UUID, past
    elif flags == HEX_LETTER and after == COLON and stop - start <= 4:
        kind, past = colon_hex(data, first, start, end)
        if past >= 0:
            return kind, past
    return LITERAL, stop


@njit(cache=True, nogil=True)
def classify_number(data: UInt8s, first: int, start: int, stop: int, end: int, path: bool) -> tuple[int, int]:
    """(kind, end) of a run of digits that begins no address and no time."""
    after = byte(data, stop, end)
    in_version = start >= first + 2 and data[start - 1] == DOT and CLASS[data[start - 2]] == DIGIT
    if after == DOT and not in_version:
        if stop - start <= 3:
            past = ipv4_end(data, start, end)
            if past >= 0:
                return IP, past
        past = decimal_end(data, stop, end)
        if past >= 0:
            return NUMBER, past
    return (NUMBER if path or stop - start > LITERAL_DIGITS else LITERAL), stop


@njit(cache=True, nogil=True)
def classify_mixed(data: UInt8s, start: int, stop: int, flags: int, path: bool) -> int:
    """The kind of a run of letters and digits that begins no address and no time."""
    size = stop - start
    if flags & LETTER == 0:
        if size >= HEX_DIGITS:
            return HEX
    elif size > 2 and data[start] == ZERO and (data[start + 1] | 32) == SMALL_X:
        letters = 0
        for i in range(start + 2, stop):
            letters += CLASS[data[i]] == LETTER
        if letters == 0:
            return HEX
    groups = 0
    for i in range(start, stop):
        groups += CLASS[data[i]] == DIGIT and (i == start or CLASS[data[i - 1]] != DIGIT)
    if groups >= IDENTIFIER_GROUPS:
        return IDENTIFIER
    return PATH if path else MIXED


@njit(cache=True, nogil=True)
def stands_alone(data: UInt8s, first: int, start: int, stop: int, after: int) -> bool:
    """Whether nothing beside a run of digits could make more of it than a number: most are told so without a call."""
    if after in (COLON, DASH, DOT, SOLIDUS) or (after == SPACE and stop - start <= 2):
        return False
    return start == first or at(data, start - 1) != COLON


@njit(cache=True, nogil=True)
def classify_digits(
    data: UInt8s, first: int, start: int, stop: int, end: int, flags: int, path: bool
) -> tuple[int, int]:
    """(kind, end) of a run with a digit in it; `end` passes `stop` where the kind stands for several runs."""
    after = byte(data, stop, end)
    if flags & LETTER == 0:
        gap = start >= first + 2 and data[start - 1] == COLON and data[start - 2] == COLON
        if stop - start <= 4 and (after == COLON or gap):
            kind, past = colon_hex(data, first, start, end)
            if past >= 0:
                return kind, past
        elif after == DASH and stop - start == 8:
            past = uuid_end(data, start, end)
            if past >= 0:
                return UUID, past
    if flags == DIGIT and may_date(stop - start, after):
        past = time_end(data, start, end)
        if past >= 0:
            return TIME, past
    if flags == DIGIT:
        return classify_number(data, first, start, stop, end, path)
    return classify_mixed(data, start, stop, flags, path), stop
