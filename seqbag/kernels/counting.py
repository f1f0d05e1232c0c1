"""Windows of tokens to codes, and codes to bags: hash tables with exact comparison, in one streaming pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

EMPTY = np.int32(-1)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: multiplicative hashing (Knuth, TAOCP 3, 6.4)
_FINALISER = np.uint64(0xFF51AFD7ED558CCD)  # MurmurHash3's 64-bit finaliser
_SHIFT = np.uint64(32)
_INSERTED = 48  # keys that are as quickly sorted by insertion alone


@njit(cache=True, nogil=True, inline="always")
def _mix(state: Any, value: Any) -> Any:
    state = (state ^ np.uint64(value)) * _MULTIPLIER
    return state ^ (state >> _SHIFT)


@njit(cache=True, nogil=True, inline="always")
def _finish(state: Any) -> Any:
    state = (state ^ (state >> np.uint64(33))) * _FINALISER
    return state ^ (state >> _SHIFT)


@njit(cache=True, nogil=True)
def find_codes(windows: Any, keys: Any, slots: Any, size: int, grow: bool, codes: Any) -> int:
    """Code of every window, adding new windows while `grow` and there is room; -1 where there is none.

    windows: (m, w) int32; keys: (capacity, w) int32; slots: (power of two,) int32, -1 empty. Returns the new size.
    """
    mask = np.uint64(len(slots) - 1)
    width = windows.shape[1]
    for i in range(len(windows)):
        state = np.uint64(width)
        for p in range(width):
            state = _mix(state, windows[i, p])
        slot = _finish(state) & mask
        while True:
            code = slots[slot]
            if code < 0:
                if grow and size < len(keys):
                    code = np.int32(size)
                    slots[slot] = code
                    for p in range(width):
                        keys[size, p] = windows[i, p]
                    size += 1
                break
            same = True
            for p in range(width):
                same &= keys[code, p] == windows[i, p]
            if same:
                break
            slot = (slot + np.uint64(1)) & mask
        codes[i] = code
    return size


@njit(cache=True, nogil=True)
def find_near(windows: Any, codes: Any, keys: Any, masked_slots: Any, masked: Any) -> None:
    """Give windows whose code is -1 the code of a kept window that shares most of their tokens.

    First one token is masked, the outermost first; then all but one. masked_slots: open addressing over the
    masked windows; masked: (entries, 2) int32 rows (code, mask bits of the positions that count).
    """
    width = keys.shape[1]
    mask = np.uint64(len(masked_slots) - 1)
    full = (1 << width) - 1
    for i in range(len(windows)):
        if codes[i] >= 0:
            continue
        codes[i] = 0
        found = False
        for level in range(2):
            for step in range(width):
                p = step // 2 if step % 2 == 0 else width - 1 - step // 2  # outermost positions first
                kept = full & ~(1 << p) if level == 0 else 1 << (width - 1 - p)
                slot = _masked_hash(windows, i, kept, width) & mask
                while masked_slots[slot] >= 0:
                    entry = masked_slots[slot]
                    if masked[entry, 1] == kept and _same_under(windows, i, keys, masked[entry, 0], kept, width):
                        codes[i] = masked[entry, 0]
                        found = True
                        break
                    slot = (slot + np.uint64(1)) & mask
                if found:
                    break
            if found:
                break


@njit(cache=True, nogil=True)
def index_masked(keys: Any, size: int, masked_slots: Any, masked: Any) -> int:
    """Fill the table that `find_near` looks windows up in. The first (oldest) window wins a place."""
    width = keys.shape[1]
    mask = np.uint64(len(masked_slots) - 1)
    full = (1 << width) - 1
    entries = 0
    for code in range(size):
        for level in range(2):
            for p in range(width):
                kept = full & ~(1 << p) if level == 0 else 1 << p
                slot = _masked_hash(keys, code, kept, width) & mask
                known = False
                while masked_slots[slot] >= 0:
                    entry = masked_slots[slot]
                    if masked[entry, 1] == kept and _same_under(keys, code, keys, masked[entry, 0], kept, width):
                        known = True
                        break
                    slot = (slot + np.uint64(1)) & mask
                if not known:
                    masked[entries, 0] = code
                    masked[entries, 1] = kept
                    masked_slots[slot] = entries
                    entries += 1
    return entries


@njit(cache=True, nogil=True)
def _masked_hash(windows: Any, i: int, kept: int, width: int) -> Any:
    state = np.uint64(kept)
    for p in range(width):
        if kept >> p & 1:
            state = _mix(state, windows[i, p])
    return _finish(state)


@njit(cache=True, nogil=True)
def _same_under(a: Any, i: int, b: Any, j: int, kept: int, width: int) -> bool:
    for p in range(width):
        if kept >> p & 1 and a[i, p] != b[j, p]:
            return False
    return True


@njit(cache=True, nogil=True)
def _sort(keys: Any, n: int) -> None:
    """Sort keys[:n] by Shell's method, which of the usual short examples is insertion sort.

    numpy's is as fast up to a few hundred keys and a quarter faster at thousands, but takes three seconds to compile.
    """
    gap = 1
    while n > _INSERTED and gap < n // 9:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n):
            key = keys[i]
            j = i - gap
            while j >= 0 and keys[j] > key:
                keys[j + gap] = keys[j]
                j -= gap
            keys[j + gap] = key
        gap //= 3


@njit(cache=True, nogil=True)
def add_examples(
    codes: Any, segments: Any, starts: Any, stops: Any, regions: int, dense: Any,
    pointers: Any, entry_codes: Any, entry_counts: Any, kept_dense: Any, hashes: Any, slots: Any, size: int, bags: Any,
) -> int:  # fmt: skip
    """Count the codes of every example per group and segment and merge examples that agree in everything.

    codes: (groups, sites) int32; segments: (sites,) int32; starts, stops: (n,) int64, the sites of each example; dense:
    (n, d) uint16, the bits of float16. pointers: (bags * groups * regions + 1,) int64 into entry_codes and entry_counts
    (int32); kept_dense: (bags, d); hashes: (bags,) uint64; slots: (power of two,) int32. bags: (n,) int32 out: the bag
    of each example.
    Returns the new number of bags. The arrays must have room for n more bags and groups * sites more entries.
    """
    groups = len(codes)
    spans = groups * regions
    mask = np.uint64(len(slots) - 1)
    longest = np.int64(1)
    for i in range(len(starts)):
        longest = max(longest, stops[i] - starts[i])
    scratch = np.empty(longest, np.int64)
    for i in range(len(starts)):
        first = pointers[size * spans]
        end = first
        span = size * spans
        state = np.uint64(spans)
        length = stops[i] - starts[i]
        for g in range(groups):
            for s in range(length):
                site = starts[i] + s
                scratch[s] = (np.int64(segments[site]) << 32) | np.int64(codes[g, site])
            _sort(scratch, length)
            at = 0
            for region in range(regions):
                while at < length and scratch[at] >> 32 == region:
                    key = scratch[at]
                    count = 0
                    while at < length and scratch[at] == key:
                        count += 1
                        at += 1
                    entry_codes[end] = np.int32(key & 0xFFFFFFFF)
                    entry_counts[end] = count
                    state = _mix(_mix(state, key), count)
                    end += 1
                span += 1
                pointers[span] = end
                state = _mix(state, span - size * spans)
        for d in range(dense.shape[1]):
            kept_dense[size, d] = dense[i, d]
            state = _mix(state, dense[i, d])
        state = _finish(state)
        slot = state & mask
        while True:
            bag = slots[slot]
            if bag < 0:
                slots[slot] = size
                hashes[size] = state
                bag = np.int32(size)
                size += 1
                break
            if hashes[bag] == state and _same_bag(pointers, entry_codes, entry_counts, kept_dense, bag, size, spans):
                break
            slot = (slot + np.uint64(1)) & mask
        bags[i] = bag
    return size


@njit(cache=True, nogil=True)
def _same_bag(pointers: Any, codes: Any, counts: Any, dense: Any, a: int, b: int, spans: int) -> bool:
    start_a, start_b = pointers[a * spans], pointers[b * spans]
    for span in range(1, spans + 1):
        if pointers[a * spans + span] - start_a != pointers[b * spans + span] - start_b:
            return False
    for e in range(pointers[(a + 1) * spans] - start_a):
        if codes[start_a + e] != codes[start_b + e] or counts[start_a + e] != counts[start_b + e]:
            return False
    for d in range(dense.shape[1]):
        if dense[a, d] != dense[b, d]:
            return False
    return True


@njit(cache=True, nogil=True)
def rehash(hashes: Any, size: int, slots: Any) -> None:
    """Enter bags 0..size into an empty, larger table."""
    mask = np.uint64(len(slots) - 1)
    for bag in range(size):
        slot = hashes[bag] & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = bag


@njit(cache=True, nogil=True)
def add_labels(
    bags: Any, labels: Any, amounts: Any, heads: Any, classes: Any, counts: Any, following: Any, size: int
) -> int:
    """Count labels, amounts[i] times each, per bag in linked lists (nearly all bags have one class).

    Returns the new number of nodes.
    """
    for i in range(len(bags)):
        node = heads[bags[i]]
        while node >= 0 and classes[node] != labels[i]:
            node = following[node]
        if node < 0:
            node = size
            classes[node] = labels[i]
            counts[node] = 0
            following[node] = heads[bags[i]]
            heads[bags[i]] = node
            size += 1
        counts[node] += amounts[i]
    return size


@njit(cache=True, nogil=True)
def list_labels(
    heads: Any, classes: Any, counts: Any, following: Any, pointers: Any, out_classes: Any, out_counts: Any
) -> None:
    """The linked lists of `add_labels` as rows of a sparse matrix, by class.

    pointers: (bags + 1,) int64, the first 0; out_classes, out_counts: (nodes,); all are filled.
    """
    keys = np.empty(len(out_classes), np.int64)
    for bag in range(len(heads)):
        first = end = pointers[bag]
        node = heads[bag]
        while node >= 0:
            keys[end] = (np.int64(classes[node]) << 32) | np.int64(node)
            node = following[node]
            end += 1
        if end > first + 1:  # few bags have more than one class
            _sort(keys[first:], end - first)
        pointers[bag + 1] = end
    for at in range(len(keys)):
        node = keys[at] & 0xFFFFFFFF
        out_classes[at] = classes[node]
        out_counts[at] = counts[node]
