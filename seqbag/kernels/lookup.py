"""A look-up of the newest rows among equal ones before them, bag by bag."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def look_up(pointers: Any, labels: Any, counts: Any, strata: int, tested: Any, weights: Any, shares: Any) -> Any:
    """How many tested rows have equals before them, and of how many the commonest class of those is right.

    pointers, labels, counts: the labels of bags as rows of a sparse matrix, class * strata + stratum, rising; tested:
    (strata,) bool, whose rows are tested, those of the others being before them; weights: (2, strata) int64, two ways
    in which those may count; of classes that count alike the last is the commonest. shares: (2, classes) int64 out, the
    rows of each class before and tested, to which they are added. Returns the rows, those right in each way, and those
    that only one of the two ways gets right.
    """
    rows = right = newer_right = differ = np.int64(0)
    for bag in range(len(pointers) - 1):
        start, end = pointers[bag], pointers[bag + 1]
        known = False
        plain_best = newer_best = np.int64(-1)
        plain_most = newer_most = np.int64(0)
        node = start
        while node < end:
            own = labels[node] // strata
            plain, newer = np.int64(0), np.int64(0)
            while node < end and labels[node] // strata == own:
                age = labels[node] - own * strata
                shares[np.int64(tested[age]), own] += counts[node]
                if not tested[age]:
                    known = True
                    plain += counts[node] * weights[0, age]
                    newer += counts[node] * weights[1, age]
                node += 1
            if plain >= plain_most:
                plain_most, plain_best = plain, own
            if newer >= newer_most:
                newer_most, newer_best = newer, own
        if not known:
            continue
        for node in range(start, end):
            own = labels[node] // strata
            if tested[labels[node] - own * strata]:
                rows += counts[node]
                right += counts[node] * (plain_best == own)
                newer_right += counts[node] * (newer_best == own)
                differ += counts[node] * ((plain_best == own) != (newer_best == own))
    return rows, right, newer_right, differ
