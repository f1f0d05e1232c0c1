"""Rows by age: processes change, and where newer rows tell more of what comes next, they may weigh more.

While rows are counted, nobody knows how many there will be, nor whether their order is one of time. So labels are
counted by stratum, a range of row numbers, four to each doubling: strata need no renumbering as the rows grow, they
merge like any labels, and of any number of rows the newest stratum holds a sixth at most. Whether and how strata weigh
is decided once all is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqbag.bags import Bags
from seqbag.batch import Int32s, Int64s
from seqbag.kernels.lookup import look_up

STRATA = 160  # up to 10^12 rows
_BOUNDS = np.array([int(2 ** (number / 4)) for number in range(STRATA)], np.int64)
_KNEE = 0.03  # share of the rows that are newer: about where weights begin to fall
_NEWEST = 0.1  # of the rows, at least, are predicted to choose by
LEAST = 500  # of them, to tell anything
_SURE = 3  # standard deviations by which newer rows must predict better, to weigh more
_WORTH = 0.005  # and of the predictions, at least
_SORTED = 0.25  # of the newest rows of other classes than those before: the order is of classes, not of time


def strata(first_row: int, rows: int) -> Int32s:
    """(rows,) int32 the stratum of each of the rows from `first_row` on."""
    numbers = np.arange(first_row + 1, first_row + rows + 1)
    return (np.searchsorted(_BOUNDS, numbers, side="right") - 1).astype(np.int32)


def by_stratum(labels: Int32s, first_row: int) -> Int32s:
    """Labels (n,) of the rows from `first_row` on, told apart by stratum: class * STRATA + stratum."""
    return labels * np.int32(STRATA) + strata(first_row, len(labels))


def rows_of_strata(bags: Bags) -> Int64s:
    """(STRATA,) the rows of each stratum, of bags that are labelled `by_stratum`."""
    rows = bags.label_rows(STRATA)
    of_strata: Int64s = np.pad(rows, (0, -len(rows) % STRATA)).reshape(-1, STRATA).sum(0)
    return of_strata


def alike() -> Int64s:
    """Weights (STRATA,) of rows that all weigh one."""
    return np.ones(STRATA, np.int64)


def newer_more(rows: Int64s) -> Int64s:
    """Weights (STRATA,) of strata that hold `rows`: 1 of the oldest, and of others the more, the fewer are newer.

    They fall with the square of the share that is newer, so that what was met last outweighs what was often met long
    ago, whether the process changed lately or some time before.
    """
    newer = (rows[::-1].cumsum()[::-1] - rows / 2) / max(int(rows.sum()), 1)
    return np.round(np.square((1 + _KNEE) / (newer + _KNEE))).astype(np.int64)


def newest(rows: Int64s) -> Int64s:
    """Weights (STRATA,) that leave only the newest strata, those with a tenth of the rows, and up to a third."""
    since = np.flatnonzero(rows[::-1].cumsum() >= _NEWEST * rows.sum())[0]
    left: Int64s = (np.arange(STRATA) >= STRATA - 1 - since).astype(np.int64)
    return left


@dataclass(frozen=True)
class Foresight:
    """How well the newest rows are predicted by equal ones before them, if those weigh alike, and if newer ones more.

    rows: how many of the newest have equals before them; the others are the share of those that is predicted right, and
    whether newer ones are clearly better at it.
    """

    rows: int
    alike: float
    newer_more: float
    clear: bool


def foresight(bags: Bags) -> Foresight:
    """Whether newer rows tell more of those that follow, by a look-up in bags labelled `by_stratum`.

    Clear are three standard deviations of the predictions that differ (McNemar's test), and half a point, unless the
    classes of the newest rows are others than those before: that is a table sorted by class.
    """
    nodes = bags.label_counts()
    rows = rows_of_strata(bags)
    tested = newest(rows)
    before = rows * (1 - tested)
    shares = np.zeros((2, int(nodes[1].max(initial=0)) // STRATA + 1), np.int64)
    ways = np.stack([alike(), newer_more(before)])
    total, plain, newer, differ = look_up(*nodes, STRATA, tested > 0, ways, shares)
    others = np.abs(np.subtract(*(shares / np.maximum(shares.sum(1, keepdims=True), 1)))).sum() / 2
    clear = total >= LEAST and newer - plain > max(_SURE * differ**0.5, _WORTH * total) and others < _SORTED
    return Foresight(total, plain / max(total, 1), newer / max(total, 1), bool(clear))
