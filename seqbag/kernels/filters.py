"""What the head does per step: bags to local codes, codes to activations, activations to pooled sums, and back.

All arrays are contiguous; activations and gradients are float32, one row a code or segment and one column a filter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

RELU, TANH, SIGN = 0, 1, 2


@njit(cache=True, nogil=True)
def gather_bags(
    pointers: Any, codes: Any, counts: Any, bags: Any, spans: int, first: int, regions: int, slots: Any, unique: Any
) -> Any:
    """Entries of one group of a batch of bags, with codes renumbered from 0 in the order met, by segment and by code.

    bags: (b,) int; first: the group's first span inside a bag; slots: (codebook,) int32 of -1, left so; unique:
    (codebook,) int32 out. Returns (segment pointers (b * regions + 1,), local codes, counts float32, number of local
    codes, code pointers, segments by code, counts by code, sites of each segment (b * regions,) float32).
    """
    entries = 0
    for bag in bags:
        entries += pointers[bag * spans + first + regions] - pointers[bag * spans + first]
    touched = 0
    for bag in bags:  # a read in each line of 16: those of many bags overlap, and what follows finds them in the cache
        for e in range(pointers[bag * spans + first], pointers[bag * spans + first + regions], 16):
            touched += codes[e] + counts[e]
    if entries:
        unique[0] = touched  # or the reads would be left out
    by_segment = np.zeros(len(bags) * regions + 1, np.int32)
    sites = np.empty(len(bags) * regions, np.float32)
    local = np.empty(entries, np.int32)
    weight = np.empty(entries, np.float32)
    at = 0
    known = 0
    for j in range(len(bags)):
        for r in range(regions):
            span = bags[j] * spans + first + r
            total = np.float32(0)
            for e in range(pointers[span], pointers[span + 1]):
                code = codes[e]
                number = slots[code]
                if number < 0:
                    number = np.int32(known)
                    slots[code] = number
                    unique[known] = code
                    known += 1
                local[at] = number
                weight[at] = counts[e]
                total += weight[at]
                at += 1
            sites[j * regions + r] = total
            by_segment[j * regions + r + 1] = at
    by_code = np.zeros(known + 1, np.int32)
    for e in range(entries):
        by_code[local[e] + 1] += 1
    for v in range(known):
        slots[unique[v]] = -1
        by_code[v + 1] += by_code[v]
    place = by_code.copy()
    segment_of = np.empty(entries, np.int32)
    weight_of = np.empty(entries, np.float32)
    for s in range(len(bags) * regions):
        for e in range(by_segment[s], by_segment[s + 1]):
            v = local[e]
            to = place[v]
            segment_of[to] = s
            weight_of[to] = weight[e]
            place[v] = to + 1
    return by_segment, local, weight, known, by_code, segment_of, weight_of, sites


@njit(cache=True, nogil=True)
def number_tokens(windows: Any, tokens: int) -> Any:
    """The distinct tokens of windows (n,) int32, rising, of `tokens` there are, and the windows in numbers of those."""
    number = np.zeros(tokens, np.int32)
    for token in windows:
        number[token] = 1
    distinct = np.empty(number.sum(), np.int64)
    known = 0
    for token in range(tokens):
        if number[token]:
            distinct[known] = token
            number[token] = known
            known += 1
    numbered = np.empty(len(windows), np.int32)
    for i in range(len(windows)):
        numbered[i] = number[windows[i]]
    return distinct, numbered


@njit(cache=True, nogil=True)
def add_named_rows(names: Any, rows: Any, more_names: Any, more: Any) -> Any:
    """The sum of some rows of a matrix and others: the names (m,) of its rows, rising, and it (m, d).

    names, more_names: (n,) and (k,) int64, rising; rows: (n, d) float32; more: (k, d) float32.
    """
    union = np.empty(len(names) + len(more_names), np.int64)
    total = np.empty((len(union), more.shape[1]), np.float32)
    i = j = known = 0
    while i < len(names) or j < len(more_names):
        first = j == len(more_names) or (i < len(names) and names[i] <= more_names[j])
        both = first and j < len(more_names) and names[i] == more_names[j]
        union[known] = names[i] if first else more_names[j]
        own = total[known]
        for d in range(len(own)):
            if both:
                own[d] = rows[i, d] + more[j, d]
            elif first:
                own[d] = rows[i, d]
            else:
                own[d] = more[j, d]
        i += first
        j += both or not first
        known += 1
    return union[:known], total[:known]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def add_rows(tables: Any, tokens: Any, bias: Any, relu: bool, place: int, first: int, out: Any) -> None:
    """out[v] = bias + sum over p of tables[tokens[v, p], place + p]: a convolution by look-up; with relu, at least 0.

    tables: (tokens, places, filters) float32; tokens: (m, width) int32; out: (m, at least first + filters), of which
    the columns from `first` on are filled.
    """
    for v in range(len(tokens)):
        own = out[v, first : first + len(bias)]  # an array of its own, else the loops over filters are no vectors
        for f in range(len(own)):
            own[f] = bias[f]
        for p in range(tokens.shape[1]):
            more = tables[tokens[v, p], place + p]
            for f in range(len(own)):
                own[f] += more[f]
        if relu:  # while the row is in the cache
            for f in range(len(own)):
                own[f] = max(own[f], np.float32(0))


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def add_bias(values: Any, bias: Any, relu: bool) -> None:
    """Add bias (filters,) to each row of values (m, filters); with relu, cut it at 0."""
    for v in range(len(values)):
        own = values[v]
        if relu:
            for f in range(len(own)):
                own[f] = max(own[f] + bias[f], np.float32(0))
        else:
            for f in range(len(own)):
                own[f] += bias[f]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def column_sums(rows: Any, first: int, columns: int) -> Any:
    """The sums (columns,) of the columns from `first` on of rows (n, d) float32."""
    total = np.zeros(columns, np.float32)
    for i in range(len(rows)):
        own = rows[i, first : first + columns]
        for j in range(columns):
            total[j] += own[j]
    return total


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def scatter_rows(gradient: Any, tokens: Any, place: int, tables: Any) -> None:
    """Adjoint of `add_rows`: add gradient[v] to tables[tokens[v, p], place + p]."""
    for v in range(len(tokens)):
        more = gradient[v]
        for p in range(tokens.shape[1]):
            own = tables[tokens[v, p], place + p]
            for f in range(len(own)):
                own[f] += more[f]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def count_signs(values: Any, biases: Any) -> None:
    """Replace values (m, filters) by the share of their signs that are on, of those of value + bias above 0.

    biases: (signs, filters) float32.
    """
    unit, on = np.float32(1 / len(biases)), np.empty(values.shape[1], np.float32)
    for v in range(len(values)):
        own = values[v]
        on[:] = 0
        for k in range(len(biases)):
            bias = biases[k]
            for f in range(len(own)):
                on[f] += unit if own[f] + bias[f] > 0 else np.float32(0)
        for f in range(len(own)):
            own[f] = on[f]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def activation_gradient(before: Any, after: Any, kind: int, gradient: Any) -> None:
    """Multiply gradient by the activation's slope, in place.

    before: values before the activation (used by signs: straight through where |before| <= 1, Hubara et al. 2016,
    arXiv 1602.02830, halved as the steps are from 0 to 1); after: values after it.
    """
    for v in range(len(gradient)):
        if kind == RELU:
            for f in range(gradient.shape[1]):
                gradient[v, f] = gradient[v, f] if after[v, f] > 0 else np.float32(0)
        elif kind == TANH:
            for f in range(gradient.shape[1]):
                gradient[v, f] *= np.float32(1) - after[v, f] * after[v, f]
        else:
            for f in range(gradient.shape[1]):
                gradient[v, f] = gradient[v, f] * np.float32(0.5) if abs(before[v, f]) <= 1 else np.float32(0)


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def sum_rows(pointers: Any, indexes: Any, weights: Any, rows: Any, rows_first: int, out: Any, first: int) -> None:
    """out[s] = sum of weights[e] * rows[indexes[e]] over the entries e of s: a sparse matrix times a dense one.

    Forward: segments from codes; backward: codes from segments. rows and out may have more columns than are summed: of
    rows those from `rows_first` on are read, and of out those from `first` on filled, as many as the narrower has left.
    """
    columns = min(rows.shape[1] - rows_first, out.shape[1] - first)
    start, width = np.uint64(rows_first), np.uint64(columns)  # of a signed index numba asks whether it is below 0
    for s in range(len(out)):
        own = out[s, first : first + columns]
        own[:] = 0
        for e in range(pointers[s], pointers[s + 1]):
            weight, row = weights[e], np.uint64(indexes[e])
            for f in range(width):
                own[f] += weight * rows[row, start + f]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")  # else division branches
def adam_step(
    values: Any, rows: Any, gradient: Any, mean: Any, square: Any, rate: float, beta1: float, beta2: float, decay: float
) -> None:
    """One Adam step (Kingma and Ba 2015, arXiv 1412.6980) on some rows of a matrix, weight decay decoupled.

    values, mean, square: (n, d) float32; gradient: (m, d), of rows (m,); rate: already divided by the bias corrections.
    """
    b1, b2 = np.float32(beta1), np.float32(beta2)
    one, rate32, shrink = np.float32(1), np.float32(rate), np.float32(1 - decay)
    for i in range(len(rows)):
        value, first, second, slope = values[rows[i]], mean[rows[i]], square[rows[i]], gradient[i]
        for j in range(len(slope)):
            first[j] = b1 * first[j] + (one - b1) * slope[j]
            second[j] = b2 * second[j] + (one - b2) * slope[j] * slope[j]
            value[j] = value[j] * shrink - rate32 * first[j] / (np.sqrt(second[j]) + np.float32(1e-8))
