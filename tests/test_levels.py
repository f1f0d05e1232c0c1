import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbag.levels import Levels


@given(st.integers(1, 40), st.integers(1, 255), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_means_of_signs_come_back_as_they_were(channels: int, signs: int, rows: int, seed: int) -> None:
    above = np.random.default_rng(seed).integers(0, signs + 1, (rows, channels))
    values = (above * np.float32(2 / signs) - 1).astype(np.float32)
    levels = Levels(channels, signs)
    codes = levels.encode(values)
    assert codes.shape == (rows, levels.site_bytes)
    np.testing.assert_array_equal(levels.decode(codes), values)
    np.testing.assert_array_equal(levels.decode(codes.reshape(1, rows, -1)), values[None])


@pytest.mark.parametrize(("signs", "bits"), [(1, 1), (2, 2), (3, 2), (4, 4), (8, 4), (16, 8), (255, 8)])
def test_a_mean_takes_the_bits_that_its_levels_need(signs: int, bits: int) -> None:
    assert Levels(384, signs).site_bytes == 48 * bits
    assert Levels(3, signs).site_bytes == max(1, -(-3 * bits // 8))


def test_codes_stand_plane_by_plane() -> None:
    codes = Levels(10, 1).encode(np.array([[1, -1, 1, 1, -1, -1, -1, -1, -1, 1]], np.float32))
    assert codes.view(np.uint8).tolist() == [[0b00011, 0b10010]]  # channels 0, 2, 4, 6, 8 and 1, 3, 5, 7, 9
