"""Windows and gathers against the oracles of naive.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbag.errors import UsageError
from seqbag.patches import Patcher, gather
from tests import naive

PADDINGS = ["same", "causal", "valid"]


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, ...], Patcher]:
    """A grid of one to four axes and a patcher for it; windows may be larger than the grid."""
    axes = draw(st.integers(1, 4))
    most = {1: 12, 2: 7, 3: 5, 4: 3}[axes]
    shape = draw(st.tuples(*[st.integers(1, most)] * axes))
    window = draw(st.tuples(*[st.integers(1, 5 if axes < 3 else 3)] * axes))
    stride = draw(st.tuples(*[st.integers(1, 3)] * axes))
    return shape, Patcher(window, stride, draw(st.sampled_from(PADDINGS)))


@given(grids())
def test_grid_index_matches_oracle(case):
    shape, patcher = case
    index = patcher.grid_index(shape)
    expected = naive.grid_index(shape, patcher.window, patcher.stride, patcher.padding)
    assert index.dtype == np.int32
    assert index.shape == (np.prod(patcher.out_shape(shape)), np.prod(patcher.window))
    assert index.tolist() == expected


@given(
    st.integers(0, 3),
    st.lists(st.integers(0, 9), max_size=6),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from(PADDINGS),
)
def test_ragged_index_matches_oracle(first, lengths, window, stride, padding):
    offsets = np.cumsum([first, *lengths]).astype(np.int64)
    index, out_offsets = Patcher((window,), (stride,), padding).ragged_index(offsets)
    expected, expected_offsets = naive.ragged_index(offsets.tolist(), window, stride, padding)
    assert index.dtype == np.int32
    assert out_offsets.dtype == np.int64
    assert index.shape == (len(expected), window)
    assert index.tolist() == expected
    assert out_offsets.tolist() == expected_offsets


@given(st.sampled_from([np.float32, np.uint8]), st.sampled_from([1, 2, 3, 5]), grids(), st.integers(0, 9))
def test_gather_vectors_on_a_grid_matches_oracle(dtype, channels, case, seed):
    shape, patcher = case
    values = np.random.default_rng(seed).integers(0, 256, (2, np.prod(shape), channels)).astype(dtype)
    index = patcher.grid_index(shape)
    windows = gather(values, index)
    assert windows.dtype == dtype
    expected = [row for example in values for row in naive.gather(example.tolist(), index.tolist())]
    assert windows.tolist() == expected
    assert gather(values[1], index).tolist() == expected[len(index) :]


def test_gather_token_ids_never_crosses_examples():
    tokens = np.array([11, 12, 13, 21, 31, 32], np.int32)
    index, _ = Patcher((3,), (1,), "same").ragged_index(np.array([0, 3, 4, 4, 6]))
    windows = gather(tokens, index)
    assert windows.dtype == np.int32
    assert windows.tolist() == [[0, 11, 12], [11, 12, 13], [12, 13, 0], [0, 21, 0], [0, 31, 32], [31, 32, 0]]


def test_same_padding_is_that_of_a_convolution():
    rng = np.random.default_rng(0)
    image, weights = rng.standard_normal((9, 8)).astype(np.float32), rng.standard_normal((3, 5)).astype(np.float32)
    patcher = Patcher((3, 5), (2, 1), "same")
    got = (gather(image.reshape(-1, 1), patcher.grid_index(image.shape)) @ weights.ravel()).reshape(5, 8)
    padded = np.pad(image, ((1, 1), (2, 2)))
    expected = [[(padded[2 * y : 2 * y + 3, x : x + 5] * weights).sum() for x in range(8)] for y in range(5)]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_batches_without_sites():
    patcher = Patcher((3,), (1,), "causal")
    index, out_offsets = patcher.ragged_index(np.array([0, 0, 0]))
    assert (index.shape, out_offsets.tolist()) == ((0, 3), [0, 0, 0])
    assert gather(np.empty((0, 4), np.float32), index).shape == (0, 12)
    assert gather(np.empty(0, np.int32), index).shape == (0, 3)


def test_gather_reads_nothing_outside_the_sites():
    for channels in (1, 3, 4):
        values = np.ones((2, channels), np.uint8)
        assert gather(values, np.array([[5, -7], [1, 2]], np.int32)).sum() == channels


@pytest.mark.parametrize(
    ("window", "stride", "padding"),
    [((), (), "same"), ((3,), (1, 1), "same"), ((0,), (1,), "same"), ((3,), (1,), "full")],
)
def test_a_patcher_that_makes_no_sense_is_refused(window, stride, padding):
    with pytest.raises(UsageError, match=r"window|padding"):
        Patcher(window, stride, padding)


def test_a_grid_of_other_axes_is_refused():
    with pytest.raises(UsageError, match="does not fit a grid"):
        Patcher((3, 3), (1, 1), "same").grid_index((5,))
    with pytest.raises(UsageError, match="sequences have one"):
        Patcher((3, 3), (1, 1), "same").ragged_index(np.array([0, 3]))
