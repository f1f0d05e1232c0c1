"""Kernels on whole bags: regions joined, bags selected, and short sketches of bags for clustering."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def join_regions(pointers: Any, codes: Any, counts: Any, regions: int, out_pointers: Any) -> int:
    """Join the `regions` spans of each (bag, group) into one, in place; returns the number of entries left.

    pointers: (spans + 1,) int64; codes, counts: (entries,) int32, rewritten; out_pointers: (spans / regions + 1,).
    """
    end = 0
    out_pointers[0] = 0
    for owner in range(len(out_pointers) - 1):
        start, stop = pointers[owner * regions], pointers[(owner + 1) * regions]
        keys = np.empty(stop - start, np.int64)
        for e in range(start, stop):
            keys[e - start] = (np.int64(codes[e]) << 32) | np.int64(counts[e])
        keys.sort()
        at = 0
        while at < len(keys):
            code = np.int32(keys[at] >> 32)
            total = np.int32(0)
            while at < len(keys) and np.int32(keys[at] >> 32) == code:
                total += np.int32(keys[at] & 0xFFFFFFFF)
                at += 1
            codes[end] = code
            counts[end] = total
            end += 1
        out_pointers[owner + 1] = end
    return end


@njit(cache=True, nogil=True)
def mark_codes(pointers: Any, codes: Any, spans: int, first: int, regions: int, marks: Any) -> None:
    """Set marks[code] for every code that the bags hold in the `regions` spans from `first` on of each bag."""
    for bag in range((len(pointers) - 1) // max(spans, 1)):
        for e in range(pointers[bag * spans + first], pointers[bag * spans + first + regions]):
            marks[codes[e]] = True


@njit(cache=True, nogil=True)
def select_bags(pointers: Any, codes: Any, counts: Any, spans: int, chosen: Any) -> Any:
    """Pointers, codes and counts of the bags in chosen, as arrays of their own."""
    entries = 0
    for bag in chosen:
        entries += pointers[(bag + 1) * spans] - pointers[bag * spans]
    out_pointers = np.zeros(len(chosen) * spans + 1, np.int64)
    out_codes, out_counts = np.empty(entries, np.int32), np.empty(entries, np.int32)
    end = 0
    for index in range(len(chosen)):
        for span in range(chosen[index] * spans, (chosen[index] + 1) * spans):
            for e in range(pointers[span], pointers[span + 1]):
                out_codes[end] = codes[e]
                out_counts[end] = counts[e]
                end += 1
            out_pointers[index * spans + span - chosen[index] * spans + 1] = end
    return out_pointers, out_codes, out_counts


@njit(cache=True, nogil=True)
def visited_bags(
    rising: Any, pointers: Any, classes: Any, counts: Any, rows: Any, times: Any, class_weights: Any, smoothing: float,
    unit: float,
) -> Any:  # fmt: skip
    """The distinct bags among visits, with their targets and weights.

    rising: (v,) int32, the bag of each visit, not falling; pointers, classes, counts: labels as rows of a sparse
    matrix; rows: (bags,) their sums; times: (bags,) visits to each bag in an epoch; class_weights: (classes,) float32;
    unit: visits that a row stands for, in the mean. Returns the bags (b,) int64, their label distributions (b, classes)
    float32, smoothed, each class's share times its weight, and weights (b,) float32, in rows a mean visit stands for.
    """
    known = 0
    for at in range(len(rising)):
        known += at == 0 or rising[at] != rising[at - 1]
    chosen, weight = np.empty(known, np.int64), np.empty(known, np.float32)
    target = np.empty((known, len(class_weights)), np.float32)
    at = 0
    for i in range(known):
        bag, first = np.int64(rising[at]), at
        while at < len(rising) and rising[at] == bag:
            at += 1
        chosen[i] = bag
        weight[i] = (at - first) * (rows[bag] / times[bag]) * unit * (known / len(rising))
        target[i] = 0
        total = np.float32(0)
        for node in range(pointers[bag], pointers[bag + 1]):
            share = np.float32(counts[node] / rows[bag]) * class_weights[classes[node]]
            target[i, classes[node]] = share * np.float32(1 - smoothing)
            total += share
        even = total * np.float32(smoothing / len(class_weights))
        for c in range(len(class_weights)):
            target[i, c] += even
    return chosen, target, weight


@njit(cache=True, nogil=True)
def sketch_bags(pointers: Any, codes: Any, counts: Any, spans: int, out: Any) -> None:
    """out[b] = sum over the entries of bag b of log(1 + count) * random signs of (span, code), to length 1.

    A random projection of the bag's log counts (Achlioptas 2003, doi 10.1016/S0022-0000(03)00025-4): distances between
    sketches are those between bags up to a small error. out: (bags, 64) float32.
    """
    for bag in range(len(out)):
        for d in range(64):
            out[bag, d] = 0
        for span in range(spans):
            for e in range(pointers[bag * spans + span], pointers[bag * spans + span + 1]):
                bits = (np.uint64(codes[e]) + (np.uint64(span) << np.uint64(40))) * np.uint64(0x9E3779B97F4A7C15)
                bits = (bits ^ (bits >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
                bits = (bits ^ (bits >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
                value = np.float32(np.log1p(counts[e]))
                for d in range(64):
                    sign = np.float32(1) if (bits >> np.uint64(d)) & np.uint64(1) else np.float32(-1)
                    out[bag, d] += sign * value
        norm = np.float32(0)
        for d in range(64):
            norm += out[bag, d] * out[bag, d]
        norm = np.sqrt(norm) + np.float32(1e-9)
        for d in range(64):
            out[bag, d] /= norm
