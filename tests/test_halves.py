import numpy as np
import pytest

from seqbag.bags import Bags
from seqbag.kernels.halves import mixed_rows


def test_every_half_is_widened_as_numpy_does() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).reshape(64, 1024)
    out = np.empty(every.shape, np.float32)
    mixed_rows(every, np.arange(64), np.float32(1), np.float32(0), out)
    expected = every.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.signbit(out), np.signbit(expected))


@pytest.mark.parametrize("width", [1, 37, 0])
@pytest.mark.parametrize("share", [1.0, 0.3, 0.0])
def test_features_of_bags_are_mixed_with_those_before(share: float, width: int) -> None:
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((50, width)).astype(np.float16)
    bags = Bags(0, 1, width)
    bags.update(
        np.empty((0, 0), np.int32), np.empty(0, np.int32), np.zeros(51, np.int64), np.zeros(50, np.int32), dense
    )
    chosen = np.array([7, 3, 3, 20]) if width else np.array([0, 0])  # without features all bags are one
    rows = bags.dense[chosen].astype(np.float32)
    expected = [share * own + (1 - share) * rows[index - 1] for index, own in enumerate(rows)]
    np.testing.assert_allclose(bags.dense_rows(chosen, share), np.stack(expected), rtol=1e-6)
    assert bags.dense_rows(chosen[:0], share).shape == (0, width)
