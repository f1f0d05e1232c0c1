"""Quantising filters, embeddings and thresholds."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag.engine import is_whole
from seqbag.errors import UsageError
from seqbag.filters import ternary
from seqbag.layer import Maps
from seqbag.patches import Patcher
from seqbag.quantise import Kind, largest_remainder, least_squares_binary, least_squares_ternary, quantise
from seqbag.whitening import whitening
from tests import naive
from tests.memory import text_column
from tests.nets import image_network, token_network

LINES = ["", "a", "hello world", "zq", "once upon a time"]


@settings(max_examples=50)
@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=6))
def test_ternary_has_the_least_squares(values):
    column = np.array(values, np.float32)
    t, scale = least_squares_ternary(column[:, None])
    left = float(((column - scale * t[:, 0]) ** 2).sum())
    assert left <= naive.least_squares_scale(column.astype(np.float64)) + 1e-4
    assert set(np.unique(t)) <= {-1, 0, 1}


def test_filters_that_are_ternary_already_stay_as_they_are():
    weights = ternary(np.random.default_rng(0).standard_normal((30, 9)).astype(np.float32))
    t, scale = least_squares_ternary(weights)
    np.testing.assert_array_equal(t * scale, weights)


def test_binary_keeps_signs_and_mean_magnitude():
    t, scale = least_squares_binary(np.array([[1, -2], [0, 4], [-5, -3]], np.float32))
    assert t.tolist() == [[1, -1], [1, 1], [-1, -1]]
    assert scale.tolist() == [2, 3]


@settings(max_examples=50)
@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=40))
def test_filters_over_pixels_are_whole_and_keep_their_sum(values):
    column = np.array(values, np.float32)[:, None]
    whole, scale = largest_remainder(column)
    assert np.array_equal(whole, np.rint(whole))
    assert np.abs(whole.astype(np.int64)).sum() <= 32767
    wide = column.astype(np.float64)
    np.testing.assert_allclose(scale * (32767 - len(column)), np.abs(wide).sum() or 1)
    exact = wide / scale
    assert np.abs(whole - exact).max() < 1 + 1e-6
    assert abs(whole.sum() - exact.sum()) <= 0.5 + 1e-6


def test_whole_filters_over_pixels_are_active_where_the_floats_were():
    """In smooth pictures, whose patches are of even brightness: rounding each weight for itself misses 3 in 1,000."""
    rng = np.random.default_rng(0)
    rough = rng.standard_normal((60, 18, 18, 3)) * 20 + 128 + 30 * rng.standard_normal((60, 1, 1, 1))
    smooth = sum(np.roll(rough, (y, x), (1, 2)) for y in range(5) for x in range(5)) / 25
    pixels = np.clip(smooth, 0, 255).astype(np.uint8)
    maps = Maps(pixels.reshape(-1, 3), np.arange(61) * 18 * 18, (18, 18))
    layer = whitening(maps, Patcher((3, 3), (1, 1), "same"), "sign", (2, 2))
    network = image_network(filters=layer.channels)
    network = dataclasses.replace(network, layers=[layer, *network.layers[1:]])
    quantised = quantise(network, Kind("ternary", "sign")).layers[0]
    assert (quantised.forward(maps).values == layer.forward(maps).values).mean() >= 0.999


@pytest.mark.parametrize(("weights", "activations"), [("float", "sign"), ("ternary", "float")])
def test_filters_over_pixels_stay_floats_where_anything_else_does(weights, activations):
    network = image_network()
    config = dataclasses.replace(network.config, activation="relu" if activations == "float" else "sign")
    quantised = quantise(dataclasses.replace(network, config=config), Kind(weights, activations))
    np.testing.assert_array_equal(quantised.layers[0].weights[0], network.layers[0].weights[0])


@pytest.mark.parametrize("weights", ["ternary", "binary"])
def test_scales_and_biases_go_into_thresholds(weights):
    """A net with scaled whole filters gives the same activations when the scales are gone."""
    network = token_network(zeros=0.3 if weights == "ternary" else 0.0)
    scales = [np.linspace(0.1, 3, 7, dtype=np.float32) for _ in range(2)]
    layers = [
        dataclasses.replace(
            layer,
            weights=tuple(w * s for w, s in zip(layer.weights, scales, strict=True)),
            biases=tuple(b * s for b, s in zip(layer.biases, scales, strict=True)),
        )
        for layer in network.layers
    ]
    quantised = quantise(dataclasses.replace(network, layers=layers), Kind(weights, "sign"))
    assert all(is_whole(layer, number) for number, layer in enumerate(quantised.layers))
    maps = network.encode(text_column(LINES))
    np.testing.assert_array_equal(quantised.features(maps), network.features(maps))


def test_thresholds_follow_how_often_a_filter_was_active():
    rng = np.random.default_rng(0)
    network = token_network(layers=1, widths=(2,), filters=5, dims=12, tokens=9, regions="whole")
    embedding = rng.standard_normal((9, 12)).astype(np.float32)
    embedding[:2] = 0
    weights = (rng.standard_normal((24, 5)).astype(np.float32),)
    bias = (rng.standard_normal(5).astype(np.float32) * 3,)
    layer = dataclasses.replace(network.layers[0], weights=weights, biases=bias, embedding=embedding, activation="relu")
    config = dataclasses.replace(network.config, activation="relu")
    network = dataclasses.replace(network, layers=[layer], config=config)
    windows = rng.integers(0, 9, (400, 2)).astype(np.int32)
    counts = rng.integers(1, 50, 400)
    quantised = quantise(network, Kind("ternary", "sign"), [windows], [counts])
    assert quantised.config.activation == "sign"

    def active(layer, shift=0):
        sums = layer.embedding[windows].reshape(400, -1) @ layer.weights[0] + layer.biases[0] + shift
        return counts @ (sums > 0)

    missed = np.abs(active(quantised.layers[0]) - active(layer))
    for shift in range(-20, 21):
        assert (missed <= np.abs(active(quantised.layers[0], shift) - active(layer))).all()


def test_filters_are_fitted_to_the_signs_of_an_embedding():
    """Sums over signs follow the sums over the embedding more closely than signs of the filters would."""
    rng = np.random.default_rng(1)
    network = token_network(layers=1, widths=(2,), filters=6, dims=30, tokens=8, regions="whole")
    embedding = rng.standard_normal((8, 30)).astype(np.float32) * rng.uniform(0.1, 3, 30).astype(np.float32)
    embedding[0] = 0
    weights = rng.standard_normal((60, 6)).astype(np.float32)
    layer = dataclasses.replace(network.layers[0], weights=(weights,), embedding=embedding, activation="relu")
    config = dataclasses.replace(network.config, activation="relu")
    network = dataclasses.replace(network, layers=[layer], config=config)
    windows, counts = np.stack(np.divmod(np.arange(64), 8), axis=1).astype(np.int32), np.ones(64, np.int64)
    wanted = embedding[windows].reshape(64, -1) @ weights

    def likeness(known):
        fitted = quantise(network, Kind("ternary", "sign"), *known).layers[0]
        sums = fitted.embedding[windows].reshape(64, -1) @ fitted.weights[0]
        return np.mean([np.corrcoef(sums[:, f], wanted[:, f])[0, 1] for f in range(6)])

    assert likeness(([windows], [counts])) > likeness(()) + 0.02
    assert likeness(([windows[:0]], [counts[:0]])) == likeness(())


def test_a_deep_net_without_signs_cannot_be_given_them():
    network = token_network()
    network = dataclasses.replace(network, config=dataclasses.replace(network.config, activation="relu"))
    with pytest.raises(UsageError, match="--activation sign"):
        quantise(network, Kind("ternary", "sign"))


def test_a_net_of_signs_has_no_float_activations():
    with pytest.raises(UsageError, match="trained with signs"):
        quantise(token_network(), Kind("ternary", "float"))


def test_float_weights_and_activations_change_nothing():
    network = token_network()
    network = dataclasses.replace(network, config=dataclasses.replace(network.config, activation="relu"))
    same = quantise(network, Kind("float", "float"))
    assert all(a is b for a, b in zip(same.layers, network.layers, strict=True))
