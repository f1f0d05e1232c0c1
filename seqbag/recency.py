"""Rows by age: processes change, and where newer rows tell more of what comes next, they may weigh more.

While rows are counted, nobody knows how many there will be, nor whether their order is one of time. So labels are
counted by stratum, a range of row numbers, four to each doubling: strata need no renumbering as the rows grow, they
merge like any labels, and of any number of rows the newest stratum holds a sixth at most. Whether and how strata weigh
is decided once all is counted.
"""

from __future__ import annotations

import numpy as np

from seqbag.bags import Bags
from seqbag.batch import Int32s, Int64s

STRATA = 160  # up to 10^12 rows
_BOUNDS = np.array([int(2 ** (number / 4)) for number in range(STRATA)], np.int64)
_DOUBLED = 3  # times, the weight of the newest eighth; once less for each eighth of the rows before
_NEWEST = 0.1  # of the rows, at least, are predicted to choose by


def strata(first_row: int, rows: int) -> Int32s:
    """(rows,) int32 the stratum of each of the rows from `first_row` on."""
    numbers = np.arange(first_row + 1, first_row + rows + 1)
    return (np.searchsorted(_BOUNDS, numbers, side="right") - 1).astype(np.int32)


def by_stratum(labels: Int32s, first_row: int) -> Int32s:
    """Labels (n,) of the rows from `first_row` on, told apart by stratum: class * STRATA + stratum."""
    return labels * np.int32(STRATA) + strata(first_row, len(labels))


def rows_of_strata(bags: Bags) -> Int64s:
    """(STRATA,) the rows of each stratum, of bags that are labelled `by_stratum`."""
    _, labels, counts = bags.label_counts()
    return np.bincount(labels % STRATA, counts, STRATA).astype(np.int64)


def alike() -> Int64s:
    """Weights (STRATA,) of rows that all weigh one."""
    return np.ones(STRATA, np.int64)


def newer_more(rows: Int64s) -> Int64s:
    """Weights (STRATA,) of strata that hold `rows`: 8, 4 and 2 in the newest eighths, 1 in the older half and more."""
    newer = (rows[::-1].cumsum()[::-1] - rows / 2) / max(int(rows.sum()), 1)
    weights: Int64s = 2 ** np.maximum(_DOUBLED - (8 * newer).astype(np.int64), 0)
    return weights


def newest(rows: Int64s) -> Int64s:
    """Weights (STRATA,) that leave only the newest strata, those with a tenth of the rows or little more."""
    since = np.flatnonzero(rows[::-1].cumsum() >= _NEWEST * rows.sum())[0]
    left: Int64s = (np.arange(STRATA) >= STRATA - 1 - since).astype(np.int64)
    return left
