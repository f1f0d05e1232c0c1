"""Regions and their segments against the oracles of naive.py."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbag.errors import UsageError
from seqbag.regions import Regions
from tests import naive

LENGTHS = st.lists(st.integers(0, 12), max_size=6)
TAILS = st.sets(st.integers(1, 9), min_size=1, max_size=4).map(lambda sizes: tuple(sorted(sizes, reverse=True)))


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def test_parse():
    assert Regions.parse("whole") == Regions("whole")
    assert Regions.parse("tail:1,8,2") == Regions("tail", (8, 2, 1))
    assert Regions.parse("grid:3") == Regions("grid", (3,))
    for spec in ("whole", "tail:8,2,1", "grid:2"):
        assert str(Regions.parse(spec)) == spec
    assert [Regions.parse(spec).count(2) for spec in ("whole", "tail:8,2,1", "grid:3")] == [1, 4, 9]


@pytest.mark.parametrize(
    "spec",
    ["", "whole:", "whole:1", "tail", "tail:", "tail:0", "tail:-1,2", "tail:2,2", "tail:a", "grid", "grid:0",
     "grid:2,2", "grid:1.5", "hole", "tail:2147483648", "grid:99999999999", "tail:1,", ":"],
)  # fmt: skip
def test_parse_refuses(spec):
    with pytest.raises(UsageError) as error:
        Regions.parse(spec)
    assert str(error.value) == f"regions {spec!r} are not understood: use whole, tail:8,2,1 or grid:2"


@given(LENGTHS, TAILS)
def test_tails_match_the_oracle(lengths, sizes):
    regions = Regions("tail", sizes)
    segments = regions.segments(offsets_of(lengths))
    assert segments.dtype == np.int32
    assert segments.tolist() == [naive.tail_segment(n, site, sizes) for n in lengths for site in range(n)]
    expected = [[n, *(min(n, size) for size in sizes)] for n in lengths]
    assert regions.lengths(np.array(lengths, np.int64)).tolist() == expected


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 2))
def test_grids_match_the_oracle(shape, cells, n):
    regions, grid = Regions("grid", (cells,)), tuple(shape)
    sites = int(np.prod(grid))
    segments = regions.segments(np.arange(n + 1) * sites, grid)
    expected = [naive.grid_segment(grid, site, cells) for site in itertools.product(*map(range, grid))]
    assert segments.tolist() == expected * n
    if all(size % cells == 0 for size in grid):
        lengths = regions.lengths(np.full(n, sites), len(grid))
        np.testing.assert_array_equal(lengths, np.tile(np.bincount(expected), (n, 1)).reshape(lengths.shape))


def test_whole_is_one_segment():
    assert Regions("whole").segments(offsets_of([2, 0, 1])).tolist() == [0, 0, 0]
    assert Regions("whole").lengths(np.array([2, 0, 1])).tolist() == [[2], [0], [1]]


def test_a_grid_needs_a_grid():
    with pytest.raises(UsageError) as error:
        Regions("grid", (2,)).segments(offsets_of([4]))
    assert str(error.value) == "regions grid:2 need a fixed grid: use whole or tail:… for sequences"


@given(LENGTHS.filter(len), TAILS, st.integers(0, 99))
def test_nested_sums_are_sums_over_spans_and_the_gradient_is_the_adjoint(lengths, sizes, seed):
    rng = np.random.default_rng(seed)
    regions, offsets = Regions("tail", sizes), offsets_of(lengths)
    values = rng.integers(-5, 6, (offsets[-1], 2)).astype(np.float32)
    segments = regions.segments(offsets)
    sums = np.zeros((len(lengths), regions.count(), 2), np.float32)
    np.add.at(sums, (np.repeat(np.arange(len(lengths)), lengths), segments), values)
    nested = regions.nest(sums)
    for i, (first, last) in enumerate(itertools.pairwise(offsets)):
        for r, span in enumerate((last - first, *sizes)):
            assert nested[i, r].tolist() == values[max(first, last - span) : last].sum(0).tolist()
    gradient = rng.integers(-5, 6, nested.shape).astype(np.float32)
    assert np.vdot(nested, gradient) == np.vdot(sums, regions.nest_gradient(gradient))


def test_other_regions_do_not_nest():
    sums = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    for regions in (Regions("grid", (2,)), Regions("whole")):
        assert regions.nest(sums) is sums
        assert regions.nest_gradient(sums) is sums


def test_cells_are_no_narrower_than_two_sites():
    assert [str(Regions.parse("grid:3").on((size, size))) for size in (1, 2, 3, 4, 5, 8)] == [
        "grid:1", "grid:1", "grid:2", "grid:2", "grid:3", "grid:3",
    ]  # fmt: skip
    assert str(Regions.parse("grid:3").on((8, 3, 16))) == "grid:2"
    for spec in ("whole", "tail:8,2"):
        assert Regions.parse(spec).on((2, 2)) == Regions.parse(spec)
