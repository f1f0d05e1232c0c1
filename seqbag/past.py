"""The counts of sequences as they would be if only the last tokens of each had been read.

How much of the past tells what comes next is chosen like any setting, and rows are counted once, before. Regions that
are the ends of sequences tell the last sites apart, and windows of tokens are cut as their sequences are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seqbag.bags import Bags
from seqbag.codebook import ExactCodebook
from seqbag.passes import LayerCounts
from seqbag.regions import Regions


def pasts(regions: Regions) -> list[int]:
    """Of how many of the last tokens, the most first, counts can be had: those whose segments are of one site each."""
    sizes = regions.sizes[::-1] if regions.kind == "tail" else ()
    return [size for number, size in enumerate(sizes, start=1) if size == number][::-1]


def of_last(counts: LayerCounts, tokens: int) -> LayerCounts:
    """What was counted, of the last tokens of each row. tokens: one of `pasts`. Leaves what is given as it is."""
    sizes = tuple(range(tokens - 1, 0, -1))
    regions = Regions("tail", sizes) if sizes else Regions("whole")
    books = []
    for book in counts.codebooks:
        assert isinstance(book, ExactCodebook)
        books.append(book.empty())
    made = [_cut(counts, bags, books, tokens) for bags in (counts.bags, counts.held_out)]
    return replace(counts, codebooks=books, regions=regions, bags=made[0], held_out=made[1])


def _cut(counts: LayerCounts, bags: Bags, books: list[ExactCodebook], tokens: int) -> Bags:
    """The bags of some last tokens, whose windows are counted in the codebooks."""
    shape = bags.size, bags.groups, bags.regions
    starts = bags.pointers[:-1].reshape(shape)[:, :, -tokens:]
    there = np.diff(bags.pointers).reshape(shape)[:, 0, -tokens:] > 0  # (size, tokens): short rows have fewer
    owners, places = np.nonzero(there)
    rows = bags.weights()[owners]
    codes = np.empty((bags.groups, len(owners)), np.int32)
    for group, (patcher, old, new) in enumerate(zip(counts.patchers, counts.codebooks, books, strict=True)):
        assert isinstance(old, ExactCodebook)
        windows = old.windows[bags.codes[starts[:, group][there]]]
        before = patcher.before(0) - places  # tokens of a window that are older than the last, and are padding now
        windows[np.arange(old.width) < before[:, None]] = 0
        codes[group] = new.update(windows, rows)
    offsets = np.concatenate([[0], np.cumsum(there.sum(1))])
    return bags.recounted(codes, places.astype(np.int32), offsets, tokens)
