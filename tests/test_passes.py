"""What a pass keeps: held-out rows, the row sample, class numbers, counts."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag.bags import Bags
from seqbag.batch import LabelColumn
from seqbag.codebook import ExactCodebook
from seqbag.errors import DataError
from seqbag.layer import Maps
from seqbag.passes import ClassIndex, Forwarded, LayerCounts, RowSample, concatenate, hold_out, stream, take
from seqbag.patches import Patcher
from seqbag.progress import Silent
from seqbag.regions import Regions
from tests.memory import MemorySource, label_column
from tests.test_layer import sequences_of


def scattered(number: int, seed: int) -> int:
    """SplitMix64 in Python's integers."""
    mask = 2**64 - 1
    bits = ((number + seed) * 0x9E3779B97F4A7C15 + seed) & mask
    bits = ((bits ^ bits >> 30) * 0xBF58476D1CE4E5B9) & mask
    bits = ((bits ^ bits >> 27) * 0x94D049BB133111EB) & mask
    return bits ^ bits >> 31


@given(st.integers(0, 10**6), st.integers(0, 50), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32))
def test_hold_out_depends_on_the_row_alone(first, rows, fraction, seed):
    held = hold_out(first, rows, fraction, seed)
    assert held.tolist() == [bool(scattered(first + i, seed) < int(fraction * 2**64)) for i in range(rows)]
    cut = rows // 3
    parts = [hold_out(first, cut, fraction, seed), hold_out(first + cut, rows - cut, fraction, seed)]
    np.testing.assert_array_equal(np.concatenate(parts), held)


def test_hold_out_keeps_the_fraction():
    for fraction in (0.0, 0.1, 0.5, 0.999):
        shares = [hold_out(0, 20_000, fraction, seed).mean() for seed in range(3)]
        np.testing.assert_allclose(shares, fraction, atol=0.01)
    assert not hold_out(0, 20_000, 0.0, 0).any()
    assert (hold_out(0, 100, 0.5, 0) != hold_out(0, 100, 0.5, 1)).any()


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 4) | st.integers(20, 40), min_size=1, max_size=60), st.integers(1, 20), st.integers(0, 9),
    st.data(),
)  # fmt: skip
def test_the_row_sample_is_the_smallest_hashes_in_any_batching(lengths, size, seed, data):
    """As many as fit in 50 sites, if rows are long; resumed after each batch or not."""
    maps = sequences_of(lengths)
    n = len(lengths)
    smallest = sorted(range(n), key=lambda row: scattered(row, seed + 1))[:size]
    fit = [sum(lengths[row] for row in smallest[: k + 1]) <= 50 for k in range(len(smallest))]
    smallest = smallest[: max(1, sum(fit))]
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=6))), n]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqbag.passes._SAMPLE_SITES", 50)
        sample = RowSample(size, seed)
        for start, stop in itertools.pairwise(edges):
            sample.update(maps.part(start, stop), start)
            if data.draw(st.booleans()):
                arrays, sample = sample.arrays(), RowSample(size, seed)
                sample.restore(arrays)
        sampled = sample.maps()
    expected = take(maps, np.array(smallest))
    np.testing.assert_array_equal(sampled.offsets, expected.offsets)
    np.testing.assert_array_equal(sampled.values, expected.values)
    np.testing.assert_array_equal(sample.maps().values, sampled.values)


def test_take_and_concatenate():
    maps = sequences_of([2, 0, 3])
    taken = take(maps, np.array([2, 1, 2]))
    assert taken.offsets.tolist() == [0, 3, 3, 6]
    assert taken.values.tolist() == maps.values[2:].tolist() * 2
    whole = concatenate([maps.part(0, 2), maps.part(2, 2), maps.part(2, 3)])
    np.testing.assert_array_equal(whole.offsets, maps.offsets)
    np.testing.assert_array_equal(whole.values, maps.values)
    vectors = Maps(np.arange(8, dtype=np.float32).reshape(4, 2), np.array([0, 2, 4]), (2,))
    assert take(vectors, np.array([1])).values.tolist() == [[4, 5], [6, 7]]
    assert take(vectors, np.array([1])).grid == (2,)


def test_classes_are_numbered_as_met_and_sorted_at_the_end():
    index = ClassIndex()
    assert index.update(label_column(["warn", "error", "warn"]), 0).tolist() == [0, 1, 0]
    assert index.update(label_column(["info", "error"]), 3).tolist() == [2, 1]
    names, places = index.order()
    assert names == ("error", "info", "warn")
    assert places.tolist() == [2, 0, 1]


def test_label_errors():
    def message(labels, first=0):
        with pytest.raises(DataError) as error:
            ClassIndex().update(labels, first)
        return str(error.value)

    assert message(None) == "the source has no labels: name the column with --label"
    assert message(label_column(["a", None, None]), 100) == (
        'row 102 has no label (2 in this batch): leave such rows out with --where "LABEL IS NOT NULL"'
    )
    many = LabelColumn(np.arange(65_537, dtype=np.int32), tuple(map(str, range(65_537))))
    assert message(many) == "the label column has over 65536 distinct values: is it the right column?"
    for names, found in (((), "no rows"), (("on'e",), 'only "on\'e"')):
        index = ClassIndex()
        index.update(LabelColumn(np.zeros(len(names), np.int32), names), 0)
        with pytest.raises(DataError) as error:
            index.order()
        assert str(error.value) == f"the label column holds {found}: training needs rows of two classes or more"


def test_stream_numbers_rows_cuts_long_ones_and_refuses_none(monkeypatch):
    rows = [f"line {i}" for i in range(10)]
    source = MemorySource("text", (rows, ["a"] * 10), most=4)
    assert [(first, len(batch)) for first, batch in stream(source, Silent(), "")] == [(0, 4), (4, 4), (8, 2)]
    lists = MemorySource("tokens", ([row.split() for row in rows], ["a", "b"] * 5), most=4)
    monkeypatch.setattr("seqbag.passes._BATCH_SIZE", 6)
    alone = [(row, 1) for row in range(10)]
    for cut, expected, labels in (
        (source, alone, ["a"] * 10), (lists, [(0, 3), (3, 1), (4, 3), (7, 1), (8, 2)], ["a", "b"] * 5)
    ):  # fmt: skip
        parts = list(stream(cut, Silent(), ""))
        assert [(first, len(part)) for first, part in parts] == expected
        assert [part.labels.names[code] for _, part in parts for code in part.labels.codes] == labels
    with pytest.raises(DataError) as error:
        list(stream(MemorySource("text", ([], [])), Silent(), ""))
    assert str(error.value) == "rows in memory has no rows: there is nothing to read"


def test_counts_do_not_depend_on_batches():
    lengths = np.random.default_rng(0).integers(0, 6, 40).tolist()
    maps, labels = sequences_of(lengths), np.arange(40, dtype=np.int32) % 3
    held = hold_out(0, 40, 0.3, 0)

    def counted(edges):
        patchers = tuple(Patcher((width,), (1,), "same") for width in (1, 3))
        books = [ExactCodebook(width, 1000) for width in (1, 3)]
        counts = LayerCounts(patchers, books, Regions("tail", (2,)), Bags(2, 2), Bags(2, 2))
        for start, stop in itertools.pairwise(edges):
            rows = slice(start, stop)
            counts.update(maps.part(start, stop), labels[rows], held[rows], np.empty((stop - start, 0), np.float16))
        return counts

    whole, parts = counted([0, 40]), counted([0, 7, 7, 30, 40])
    assert whole.patches == parts.patches == 2 * sum(lengths)
    assert whole.bags.rows == int((~held).sum())
    assert whole.held_out.rows == int(held.sum())
    for a, b in zip(whole.codebooks, parts.codebooks, strict=True):
        np.testing.assert_array_equal(a.windows, b.windows)
        np.testing.assert_array_equal(a.counts, b.counts)
        assert a.counts.sum() == sum(lengths)
    for a, b in ((whole.bags, parts.bags), (whole.held_out, parts.held_out)):
        np.testing.assert_array_equal(a.pointers, b.pointers)
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_array_equal(a.counts, b.counts)


@pytest.mark.parametrize("budget", [1 << 30, 20_000])
def test_room_for_expected_rows_changes_no_count_and_is_within_the_budget(budget):
    rng = np.random.default_rng(0)
    maps = sequences_of(rng.integers(3, 30, 2000).tolist())
    labels, none = np.zeros(2000, np.int32), np.zeros(2000, np.bool_)

    def counts():
        bags = Bags(1, 1)
        return LayerCounts(
            (Patcher((1,), (1,), "same"),), [ExactCodebook(1, 99)], Regions("whole"), bags, bags.empty(), budget
        )

    def add(to, rows):
        part = maps.part(rows.start, rows.stop)
        to.update(part, labels[rows], none[rows], np.empty((len(part), 0), np.float16))

    plain, expecting = counts(), counts()
    for to in (plain, expecting):
        add(to, slice(0, 100))
    expecting.expect(100, 10_000)
    room = expecting.bags.codes
    for to in (plain, expecting):
        for start in range(100, 2000, 100):
            add(to, slice(start, start + 100))
    for name, values in plain.arrays().items():
        np.testing.assert_array_equal(expecting.arrays()[name], values)
    assert np.shares_memory(room, expecting.bags.codes) == (budget == 1 << 30), "no copy was made, if there was room"


@pytest.mark.parametrize("pieces", [1, 4])
def test_features_of_some_rows_are_counted_however_the_rows_are_cut(pieces):
    features = np.arange(60, dtype=np.float16).reshape(20, 3)
    labels, held = (np.arange(20) % 3).astype(np.int32), np.arange(20) % 5 == 1
    counts = LayerCounts((), [], Regions("whole"), Bags(0, 1, 3), Bags(0, 1, 3))
    for part in np.array_split(np.arange(20), pieces):
        maps = Maps(np.zeros((len(part), 2), np.float32), np.arange(len(part) + 1), (1,))
        others = -features[part], maps
        counts.update_features(Forwarded(labels[part], held[part], None, [(features[part], maps), others]), every=4)
    np.testing.assert_array_equal(counts.held_out.dense, features[held])
    np.testing.assert_array_equal(counts.bags.dense, features[[0, 4, 8, 12]])  # 16 is held out
    assert counts.bags.label_counts()[1].tolist() == [0, 1, 2, 0]
