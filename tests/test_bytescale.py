import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seqbag.bytescale import ByteScale

VALUES = arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(0, 5)), elements=st.floats(-1e6, 1e6, width=32))


@given(VALUES)
def test_what_comes_back_is_half_a_step_off_at_most(values: np.ndarray) -> None:
    scale = ByteScale.of(values)
    assert len(scale) == values.shape[1]
    codes = scale.encode(values)
    assert codes.dtype == np.int8
    assert (np.abs(scale.decode(codes).astype(np.float64) - values) <= scale.step / 2).all()


@given(VALUES)
def test_a_step_is_the_least_power_of_two_that_fits(values: np.ndarray) -> None:
    step = ByteScale.of(values).step
    np.testing.assert_array_equal(np.frexp(step)[0], 0.5)
    largest = np.abs(values).max(axis=0)
    assert (largest <= 127 * step).all()
    small = step <= 2.0**-60
    assert (small | (largest > 127 * step / 2)).all()


@pytest.mark.parametrize("value", [-1.0, 1.0, 0.0])
def test_signs_are_exact(value: float) -> None:
    scale = ByteScale.of(np.array([[1.0], [-1.0]], np.float32))
    assert scale.decode(scale.encode(np.full((3, 1), value, np.float32))).tolist() == [[value]] * 3


def test_larger_values_than_those_it_was_made_for_are_cut() -> None:
    scale = ByteScale.of(np.array([[1.0, 127.0]], np.float32))
    wide = np.array([[10.0, -1000.0]], np.float32)
    np.testing.assert_array_equal(scale.encode(wide), [[127, -127]])
    np.testing.assert_array_equal(scale.decode(scale.encode(wide)), [[127 * scale.step[0], -127.0]])


def test_halves_are_taken_too() -> None:
    halves = np.array([[0.5, 2.0], [-0.25, 1.0]], np.float16)
    scale = ByteScale.of(halves)
    np.testing.assert_array_equal(scale.decode(scale.encode(halves)), halves)
