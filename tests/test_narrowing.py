"""How layers over grids hand their maps on."""

from dataclasses import replace

import numpy as np

from seqbag.layer import Layer, Maps
from seqbag.narrowing import projected
from seqbag.patches import Patcher
from seqbag.regions import Regions

RNG = np.random.default_rng(0)
MAPS = Maps(RNG.standard_normal((40 * 64, 4)).astype(np.float32), np.arange(41) * 64, (8, 8))


def layer(filters: int = 12) -> Layer:
    weights = RNG.standard_normal((36, filters)).astype(np.float32) / 6
    patcher = Patcher((3, 3), (1, 1), "same")
    return Layer((patcher,), (weights,), (np.zeros(filters, np.float32),), "relu", Regions("whole"), pooling=(2, 2))


def test_the_next_input_is_projected_to_axes_that_do_not_go_together() -> None:
    plain = layer()
    made = projected(plain, MAPS, 5)
    assert (made.channels, made.outputs, plain.outputs) == (12, 5, 12)
    values = made.next_input(made.forward(MAPS)).values
    whole = plain.next_input(plain.forward(MAPS)).values
    assert made.projection is not None
    np.testing.assert_allclose(values, whole @ made.projection, atol=1e-4)
    # Of channels scaled to vary alike, no five directions hold more: theirs are the largest principal variances.
    variances = np.linalg.eigvalsh(np.corrcoef(whole.T))[::-1][:5]
    np.testing.assert_allclose(np.cov(values.T), np.diag(variances), atol=0.01)


def test_channels_that_do_not_vary_are_not_blown_up() -> None:
    plain = layer()
    dead = replace(plain, biases=(np.full(12, -1e6, np.float32),))
    some = replace(plain, biases=(np.repeat(np.float32([0, -1e6]), 6),))
    for odd in (dead, some):
        made = projected(odd, MAPS, 5)
        assert made.projection is not None
        assert np.isfinite(made.projection).all()
        assert np.abs(made.next_input(plain.forward(MAPS)).values).max() < 1e3


def test_signs_and_layers_that_are_narrow_already_stay_as_they_are() -> None:
    signs = replace(layer(), activation="sign")
    assert projected(signs, MAPS, 5) is signs
    for channels in (0, 12, 20):
        plain = layer()
        assert projected(plain, MAPS, channels) is plain
