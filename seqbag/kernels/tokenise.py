"""Text to hashed token ids in one pass over the bytes. The rules are tabled in `seqbag.tokens`.

A run of letters and digits is scanned once, byte by byte: its hash and the OR of its bytes' classes accumulate in
registers. Plain words, the bulk of a log, are then done; only a run that holds a digit, or a word that could begin a
time, an address or a UUID, is looked at again. Every such second look reads a bounded number of bytes, so a line of any
length costs linear time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from seqbag.batch import Int32s, Int64s, UInt8s
from seqbag.kernels.tokenclass import (
    AT,
    CLASS,
    CLOSE,
    DIGIT,
    EMAIL,
    HEX_LETTER,
    LITERAL,
    LITERAL_DIGITS,
    LOWER,
    MASK_HASHES,
    MIXED,
    NUMBER,
    OPEN,
    SLASH,
    SOFT,
    TIME,
    WORD,
    at,
    byte,
    email_end,
)
from seqbag.kernels.tokenkind import classify_digits, classify_letters, stands_alone
from seqbag.kernels.tokentime import shape_byte

FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
SHIFT = np.uint64(33)
MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def finalise(h: np.uint64, buckets: np.uint64) -> np.int32:
    """The id of a token whose FNV-1a hash is `h`: MurmurHash3's finaliser, then 1 + h mod buckets."""
    h ^= h >> SHIFT
    h *= MIX_1
    h ^= h >> SHIFT
    h *= MIX_2
    h ^= h >> SHIFT
    return np.int32(ONE + h % buckets)


@njit(cache=True, nogil=True)
def hash_span(data: UInt8s, start: int, end: int) -> np.uint64:
    """FNV-1a, 64 bits, of the bytes as they stand."""
    h = FNV_OFFSET
    for i in range(start, end):
        h = (h ^ np.uint64(at(data, i))) * FNV_PRIME
    return h


@njit(cache=True, nogil=True)
def hash_shape(data: UInt8s, start: int, end: int) -> np.uint64:
    """FNV-1a of the shape of a time."""
    h, before = (FNV_OFFSET ^ np.uint64(OPEN)) * FNV_PRIME, np.uint8(0)
    for i in range(start, end):
        b = shape_byte(at(data, i), before)
        if b != 0:
            h = (h ^ np.uint64(b)) * FNV_PRIME
        before = at(data, i)
    return (h ^ np.uint64(CLOSE)) * FNV_PRIME


@njit(cache=True, nogil=True, error_model="numpy")
def split_run(
    data: UInt8s, start: int, end: int, buckets: np.uint64, n: int, ids: Int32s, starts: Int64s, sizes: Int32s
) -> int:
    """Write a token for each group of digits and of letters in a run, after n others; returns how many there are."""
    i = start
    while i < end:
        group, h = i, FNV_OFFSET
        number = CLASS[at(data, i)] == DIGIT
        while i < end and (CLASS[at(data, i)] == DIGIT) == number:
            h = (h ^ np.uint64(LOWER[at(data, i)])) * FNV_PRIME
            i += 1
        masked = number and i - group > LITERAL_DIGITS
        ids[n] = finalise(MASK_HASHES[NUMBER] if masked else h, buckets)
        if len(starts):
            starts[n] = group
            sizes[n] = -NUMBER if masked else i - group
        n += 1
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def words(
    data: UInt8s, offsets: Int64s, vocabulary: int, ids: Int32s, ends: Int64s, starts: Int64s, sizes: Int32s
) -> int:
    """Tokenise each string; returns the number of tokens written.

    data (bytes,) uint8, offsets (n + 1,) int64 -> ids (bound,) int32, ends (n + 1,) int64. With `starts` int64 and
    `sizes` int32 as long as ids (else empty), also where each token stands; a masked token has size -kind.
    """
    buckets = np.uint64(vocabulary - 1)
    locate = len(starts) > 0
    mask_ids = np.empty(len(MASK_HASHES), np.int32)
    for kind in range(len(MASK_HASHES)):
        mask_ids[kind] = finalise(MASK_HASHES[kind], buckets)
    n = 0
    ends[0] = 0
    for row in range(len(offsets) - 1):
        first, end = offsets[row], offsets[row + 1]
        i = first
        chunk = n  # tokens before the stretch that could be the local part of an e-mail address
        path = False
        while i < end:
            c = CLASS[at(data, i)]
            start = i
            if c & WORD == 0:
                i += 1
                if c == SOFT:
                    continue
                kind = LITERAL
                if c == AT and n > chunk:
                    past = email_end(data, i, end)
                    if past >= 0:
                        kind, i, n = EMAIL, past, chunk
                if kind == LITERAL:
                    path = c == SLASH
                    chunk = n
                    continue
                h = FNV_OFFSET
            else:
                flags = np.uint8(0)
                h = FNV_OFFSET
                while c & WORD != 0:
                    flags |= c
                    h = (h ^ np.uint64(LOWER[at(data, i)])) * FNV_PRIME
                    i += 1
                    if i == end:
                        break
                    c = CLASS[at(data, i)]
                if flags == DIGIT and stands_alone(data, first, start, i, byte(data, i, end)):
                    kind = NUMBER if path or i - start > LITERAL_DIGITS else LITERAL
                elif flags & DIGIT != 0:
                    kind, i = classify_digits(data, first, start, i, end, int(flags), path)
                elif i - start == 3 or (flags == HEX_LETTER and i - start <= 8):
                    kind, i = classify_letters(data, first, start, i, end, int(flags))
                else:
                    kind = LITERAL
            if kind == MIXED:
                n = split_run(data, start, i, buckets, n, ids, starts, sizes)
                continue
            if kind == LITERAL:
                ids[n] = finalise(h, buckets)
            elif kind == TIME:
                ids[n] = finalise(hash_shape(data, start, i), buckets)
            else:
                ids[n] = mask_ids[kind]
            if locate:
                starts[n] = start
                sizes[n] = i - start if kind <= TIME else -kind
            n += 1
            if TIME <= kind <= EMAIL:  # a masked stretch ends what came before it
                path = False
                chunk = n
        ends[row + 1] = n
    return n


@njit(cache=True, nogil=True)
def utf8_size(data: UInt8s, i: int, end: int) -> int:
    """The bytes of the well-formed UTF-8 sequence at i (Unicode 15, table 3-7), or 1 for a byte of none."""
    b = data[i]
    if b < 0xC2 or b > 0xF4:
        return 1
    size = 2 + int(b >= 0xE0) + int(b >= 0xF0)
    if i + size > end:
        return 1
    low = 0xA0 if b == 0xE0 else 0x90 if b == 0xF0 else 0x80
    high = 0x9F if b == 0xED else 0x8F if b == 0xF4 else 0xBF
    if data[i + 1] < low or data[i + 1] > high:
        return 1
    for k in range(i + 2, i + size):
        if data[k] & 0xC0 != 0x80:
            return 1
    return size


@njit(cache=True, nogil=True, error_model="numpy")
def chars(
    data: UInt8s,
    offsets: Int64s,
    vocabulary: int,
    byte_ids: Int32s,
    code_points: bool,
    ids: Int32s,
    ends: Int64s,
    starts: Int64s,
    sizes: Int32s,
) -> int:
    """A token a code point (or a byte each, if not `code_points`). byte_ids: (256,) int32. Otherwise as `words`."""
    buckets = np.uint64(vocabulary - 1)
    locate = len(starts) > 0
    n = 0
    ends[0] = 0
    for row in range(len(offsets) - 1):
        i, end = offsets[row], offsets[row + 1]
        while i < end:
            size = 1
            if code_points and at(data, i) >= 0x80:
                size = utf8_size(data, i, end)
            ids[n] = byte_ids[at(data, i)] if size == 1 else finalise(hash_span(data, i, i + size), buckets)
            if locate:
                starts[n] = i
                sizes[n] = size
            i += size
            n += 1
        ends[row + 1] = n
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def whole(data: UInt8s, offsets: Int64s, vocabulary: int, ids: Int32s) -> None:
    """One token a string, hashed as it is. ids: (n,) int32."""
    buckets = np.uint64(vocabulary - 1)
    for row in range(len(ids)):
        ids[row] = finalise(hash_span(data, offsets[row], offsets[row + 1]), buckets)
