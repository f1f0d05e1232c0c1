from math import gcd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag.levels import Levels
from seqbag.patches import Patcher


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


@settings(deadline=None)
@given(
    st.integers(1, 90), st.sampled_from([1, 2, 3, 4, 8, 16, 200]), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1)
)  # fmt: skip
def test_sampled_windows_are_those_of_the_decoded_maps(channels: int, signs: int, groups: int, seed: int) -> None:
    rng, levels = np.random.default_rng(seed), Levels(channels, signs)
    groups = gcd(groups, levels.readers)
    values = (rng.integers(0, signs + 1, (3 * 12, channels)) * np.float32(2 / signs) - 1).astype(np.float32)
    codes, maps = levels.encode(values).reshape(3, 12, -1), values.reshape(3, 12, channels)
    index = Patcher((3, 3), (1, 1), "same").grid_index((3, 4))
    examples, sites = rng.integers(0, 3, 5), rng.integers(0, 12, (5, 4)).astype(np.int32)
    for group in range(groups):
        read = slice(group, None, groups)
        padded = np.where(index[sites][..., None] < 0, 0, maps[examples[:, None, None], index[sites]][..., read])
        size = padded.shape[2] * padded.shape[3]
        scale, offset = rng.uniform(0.5, 2, size).astype(np.float32), rng.normal(0, 1, size).astype(np.float32)
        out = np.empty((5 * 4, size), np.float32)
        levels.sample(codes, examples, sites, index, read, scale, offset, out)
        np.testing.assert_allclose(out, padded.reshape(out.shape) * scale + offset, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "signs", "readers"), [(384, 2, 4), (384, 8, 4), (108, 4, 2), (6, 2, 2), (5, 1, 1)]
)
def test_channels_are_read_in_as_many_parts_as_a_word_has_bytes(channels: int, signs: int, readers: int) -> None:
    assert Levels(channels, signs).readers == readers
