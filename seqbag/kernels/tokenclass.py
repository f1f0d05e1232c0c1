"""What a run of letters and digits in a log line is: byte classes, masks, and the bounded second looks.

Each `*_end` function answers where the thing that begins at i ends, or -1 if nothing of its kind begins there.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from seqbag.batch import UInt8s

# Classes of bytes. Bytes from 0x80 on are letters, so words of any script stay whole. Zero: any other separator.
DIGIT, HEX_LETTER, LETTER, SOFT, SLASH, AT = 1, 2, 4, 8, 16, 32
WORD = DIGIT | HEX_LETTER | LETTER

# Kinds of what a run begins; from IP on a token is a mask. TIME to EMAIL stand for more than one run.
LITERAL, MIXED, TIME, IP, MAC, UUID, EMAIL, NUMBER, HEX, PATH, IDENTIFIER = range(11)
MASKS = ("", "", "", "<ip>", "<mac>", "<uuid>", "<email>", "<num>", "<hex>", "<path>", "<id>")

# Bytes by name: numba compiles ord() in full, once for each place it stands.
SPACE, COLON, DOT, COMMA, DASH, PLUS, SOLIDUS, UNDERSCORE, BIG_Z, BIG_T, SMALL_X, ZERO = b" :.,-+/_ZTx0"
FIGURES, LETTERS, OPEN, CLOSE = b"#a<>"  # of a time's shape

LITERAL_DIGITS = 3  # numbers up to this long (status codes, levels, small counts) stay as they are
HEX_DIGITS = 7  # the shortest hexadecimal number without 0x: an abbreviated git hash
NOT_LETTERS = -(1 << 62)
IDENTIFIER_GROUPS = 3  # a run with this many groups of digits is a generated identifier


def _classes() -> UInt8s:
    table = np.zeros(256, np.uint8)
    for b in range(256):
        if chr(b) in "0123456789":
            table[b] = DIGIT
        elif chr(b) in "abcdefABCDEF":
            table[b] = HEX_LETTER
        elif b >= 0x80 or chr(b).isalpha():
            table[b] = LETTER
    table[list(b"._-+%~$")] = SOFT
    table[list(b"/\\")] = SLASH
    table[ord("@")] = AT
    return table


def _fnv1a(text: str) -> int:
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


CLASS = _classes()
LOWER = np.array([b + 32 if 65 <= b <= 90 else b for b in range(256)], np.uint8)
MASK_HASHES = np.array([_fnv1a(mask) for mask in MASKS], np.uint64)
MASK_SIZES = np.array([len(mask) for mask in MASKS], np.uint8)
MASK_BYTES = np.array([list(mask.encode().ljust(8, b"\0")) for mask in MASKS], np.uint8)


@njit(cache=True, nogil=True)
def at(data: UInt8s, i: int) -> np.uint8:
    """The byte at i, which is no less than 0: of a signed index numba asks each time whether it counts from the end."""
    found: np.uint8 = data[np.uint64(i)]
    return found


@njit(cache=True, nogil=True)
def byte(data: UInt8s, i: int, end: int) -> int:
    """The byte at i, or NUL past the end."""
    return int(at(data, i)) if i < end else 0


@njit(cache=True, nogil=True)
def digits(data: UInt8s, i: int, end: int) -> int:
    """How many digits stand at i, counted up to ten."""
    n = 0
    while n < 10 and i + n < end and CLASS[at(data, i + n)] == DIGIT:
        n += 1
    return n


@njit(cache=True, nogil=True)
def word_at(data: UInt8s, i: int, end: int) -> bool:
    return i < end and CLASS[at(data, i)] & WORD != 0


@njit(cache=True, nogil=True)
def hex_digits(data: UInt8s, i: int, end: int) -> int:
    """How many hexadecimal digits stand at i, counted up to 13, one more than any group here has."""
    n = 0
    while n < 13 and i + n < end and CLASS[at(data, i + n)] & (DIGIT | HEX_LETTER) != 0:
        n += 1
    return n


@njit(cache=True, nogil=True)
def uuid_end(data: UInt8s, i: int, end: int) -> int:
    for part in range(5):
        size = 8 if part == 0 else 12 if part == 4 else 4
        if hex_digits(data, i, end) != size:
            return -1
        i += size
        if part < 4:
            if byte(data, i, end) != DASH:
                return -1
            i += 1
    return -1 if word_at(data, i, end) else i


@njit(cache=True, nogil=True)
def colon_hex(data: UInt8s, first: int, i: int, end: int) -> tuple[int, int]:
    """(IP, end) of an IPv6 address, (MAC, end) of six pairs with colons between, else (LITERAL, -1)."""
    gap = i >= first + 2 and data[i - 1] == COLON and data[i - 2] == COLON
    if i >= first + 3 and gap and (word_at(data, i - 3, end) or data[i - 3] == COLON):
        return LITERAL, -1
    groups, pairs, figure = 0, 0, False
    while groups < 8:
        n = hex_digits(data, i, end)
        if n < 1 or n > 4:
            return LITERAL, -1
        for k in range(n):
            figure |= CLASS[data[i + k]] == DIGIT
        pairs += n == 2
        groups += 1
        i += n
        if byte(data, i, end) != COLON:
            break
        if hex_digits(data, i + 1, end) > 0:
            if groups < 8:
                i += 1
        elif not gap and byte(data, i + 1, end) == COLON:
            gap = True
            i += 2
            if hex_digits(data, i, end) == 0:
                break
        else:
            break
    if word_at(data, i, end):
        return LITERAL, -1
    if figure and ((groups == 8 and not gap) or (groups < 8 and gap)):
        return IP, i
    if figure and groups == 6 and pairs == 6:
        return MAC, i
    return LITERAL, -1


@njit(cache=True, nogil=True)
def ipv4_end(data: UInt8s, i: int, end: int) -> int:
    for part in range(4):
        n = digits(data, i, end)
        if n < 1 or n > 3:
            return -1
        i += n
        if part < 3:
            if byte(data, i, end) != DOT:
                return -1
            i += 1
    if word_at(data, i, end) or (byte(data, i, end) == DOT and digits(data, i + 1, end) > 0):
        return -1
    return i


@njit(cache=True, nogil=True)
def decimal_end(data: UInt8s, i: int, end: int) -> int:
    """The end of a number's decimals, where its point stands at i and no third figure follows."""
    i += 1
    if i >= end or CLASS[data[i]] != DIGIT:
        return -1
    while i < end and CLASS[data[i]] == DIGIT:
        i += 1
    if word_at(data, i, end) or (byte(data, i, end) == DOT and digits(data, i + 1, end) > 0):
        return -1
    return i


@njit(cache=True, nogil=True)
def email_end(data: UInt8s, i: int, end: int) -> int:
    """The end of a domain with a dot whose last label is two letters or more; i is just past the @."""
    if not word_at(data, i, end):
        return -1
    past, letters, dotted = i, 0, False
    for k in range(i, end):
        c = CLASS[data[k]]
        if data[k] == DOT:
            if k + 1 >= end or CLASS[data[k + 1]] & WORD == 0:
                break
            dotted, letters = True, 0
        elif c & (HEX_LETTER | LETTER) != 0:
            letters += 1
            past = k + 1
        elif c == DIGIT or data[k] == DASH:
            letters = NOT_LETTERS
            past = k + 1
        else:
            break
    return past if dotted and letters >= 2 else -1
