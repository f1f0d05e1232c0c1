"""The exact codebook against a dictionary, and its laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag.codebook import ExactCodebook
from seqbag.errors import UsageError
from tests import naive


@st.composite
def streams(draw: st.DrawFn) -> tuple[int, list[np.ndarray]]:
    """A width and batches of windows of few tokens, so that windows repeat and differ by little."""
    width = draw(st.integers(1, 4))
    row = st.tuples(*[st.integers(0, 3)] * width)
    batches = draw(st.lists(st.lists(row, max_size=12), min_size=1, max_size=4))
    return width, [np.array(batch, np.int32).reshape(-1, width) for batch in batches]


def counted(book: ExactCodebook) -> dict[tuple[int, ...], int]:
    return dict(zip(map(tuple, book.windows.tolist()), book.counts.tolist(), strict=True))


@settings(max_examples=150)
@given(streams(), st.integers(1, 20))
def test_codes_and_counts_match_a_dictionary_and_nothing_is_dropped(stream, capacity):
    width, batches = stream
    book = ExactCodebook(width, capacity)
    codes = [code for batch in batches for code in book.update(batch).tolist()]
    windows = [tuple(row) for batch in batches for row in batch.tolist()]
    expected, counts, overflowed = naive.exact_codes(windows, capacity)
    assert codes == expected
    assert list(counted(book).items()) == list(counts.items())
    assert book.overflowed == overflowed
    assert book.counts.sum() == len(windows)
    if windows:
        assert book.assign(np.concatenate(batches)).tolist() == codes
        assert counted(book) == counts, "assigning does not count"


def test_a_full_codebook_masks_the_outermost_token_first():
    kept = np.array([[1, 2, 3], [1, 5, 6], [7, 2, 9], [8, 8, 8]], np.int32)
    book = ExactCodebook(3, 4)
    book.update(kept)
    near = {(4, 2, 3): 0, (1, 5, 9): 1, (1, 4, 3): 0, (7, 7, 7): 2, (0, 8, 1): 3, (0, 0, 9): 2, (4, 4, 4): 0}
    assert book.assign(np.array(list(near), np.int32)).tolist() == list(near.values())


def test_assign_before_full_gives_a_near_window():
    book = ExactCodebook(2, 100)
    book.update(np.array([[1, 2], [3, 4]], np.int32))
    assert book.assign(np.array([[3, 9], [1, 2]], np.int32)).tolist() == [1, 0]
    book.update(np.array([[5, 9]], np.int32))
    assert book.assign(np.array([[6, 9]], np.int32)).tolist() == [2], "windows added since are found"


@settings(max_examples=80)
@given(streams(), st.randoms(use_true_random=False))
def test_merging_adds_counts_in_any_order(stream, random):
    width, batches = stream
    whole = ExactCodebook(width, 256)
    whole.update(np.concatenate(batches))
    parts = []
    for batch in batches:
        parts.append(whole.empty())
        parts[-1].update(batch)
    random.shuffle(parts)
    left = whole.empty()
    for part in parts:
        codes = left.merge(part)
        np.testing.assert_array_equal(left.windows[codes], part.windows)
    right = parts[-1]
    for part in reversed(parts[:-1]):
        right.merge(part)
    assert counted(left) == counted(right) == counted(whole)
    before = counted(left)
    assert left.merge(whole.empty()).tolist() == []
    assert counted(left) == before
    assert left.overflowed == 0


def test_merging_beyond_the_capacity_keeps_every_count():
    left, right = ExactCodebook(2, 2), ExactCodebook(2, 2)
    left.update(np.array([[1, 1], [2, 2], [2, 2]], np.int32))
    right.update(np.array([[2, 3], [2, 3], [4, 4]], np.int32))
    codes = left.merge(right)
    assert codes.tolist() == [1, 0]
    assert counted(left) == {(1, 1): 2, (2, 2): 4}
    assert left.overflowed == 3, "in windows, each as often as it was seen"


def test_grows_beyond_the_room_of_the_start():
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 40, (3000, 3)).astype(np.int32) for _ in range(6)]
    book = ExactCodebook(3, 1 << 18)
    codes = np.concatenate([book.update(batch) for batch in batches])
    expected = {}
    for row in map(tuple, np.concatenate(batches).tolist()):
        expected[row] = expected.get(row, 0) + 1
    assert book.size > 10_000
    assert list(counted(book).items()) == list(expected.items())
    assert book.assign(np.concatenate(batches)).tolist() == codes.tolist()
    np.testing.assert_array_equal(book.windows[codes], np.concatenate(batches))


def test_errors():
    for width, capacity in ((0, 1), (3, 0)):
        with pytest.raises(UsageError) as error:
            ExactCodebook(width, capacity)
        assert str(error.value) == (
            f"a codebook of {capacity} windows of {width} tokens is empty: both must be 1 or more"
        )
    with pytest.raises(UsageError) as error:
        ExactCodebook(2, 8).merge(ExactCodebook(3, 8))
    assert str(error.value) == "codebooks of different widths or capacities do not merge: make both by `empty` of one"
    with pytest.raises(UsageError) as error:
        ExactCodebook(1, 8).assign(np.array([[1]], np.int32))
    assert str(error.value) == "an empty codebook has no window to assign to: update it first"
