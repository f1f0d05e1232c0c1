"""Frozen layers against convolutions written out: sequences, images, and a small video."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from seqbag.layer import Layer, Maps, layer_of_readout
from seqbag.patches import Patcher
from seqbag.regions import Regions
from tests import naive
from tests.nets import layer_of, unsplit


def sequences_of(lengths, tokens=6, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Maps(rng.integers(1, tokens, offsets[-1]).astype(np.int32), offsets)


def token_layer(activation="relu", tails=(), widths=(1, 3), filters=4, seed=1):
    rng = np.random.default_rng(seed)
    embedding = rng.standard_normal((6, 3), np.float32)
    embedding[0] = 0
    weights = tuple(rng.standard_normal((width * 3, filters), np.float32) for width in widths)
    biases = tuple(rng.standard_normal(filters, np.float32) for _ in widths)
    patchers = tuple(Patcher((width,), (1,), "same") for width in widths)
    regions = Regions("tail", tails) if tails else Regions("whole")
    return Layer(patchers, weights, biases, activation, regions, embedding)


def grid_maps(grid, channels, n=3, seed=0):
    rng = np.random.default_rng(seed)
    sites = int(np.prod(grid))
    values = rng.integers(0, 256, (n * sites, channels)).astype(np.uint8)
    return Maps(values, np.arange(n + 1, dtype=np.int64) * sites, grid)


def grid_layer(window, channels, stride, padding="same", regions="whole", filters=5, seed=1):
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((int(np.prod(window)) * channels, filters), np.float32)
    bias = rng.standard_normal(filters, np.float32)
    return Layer((Patcher(window, stride, padding),), (weights,), (bias,), "relu", Regions.parse(regions))


@pytest.mark.parametrize("activation", ["relu", "tanh", "sign"])
def test_sequences(activation):
    maps, layer = sequences_of([4, 0, 1, 7, 0]), token_layer(activation, tails=(3, 1))
    out = layer.forward(maps)
    np.testing.assert_array_equal(out.offsets, maps.offsets)
    sums, lengths = layer.pool(out)
    for i, (first, last) in enumerate(itertools.pairwise(maps.offsets)):
        values = [
            naive.convolved(maps.values[first:last].tolist(), layer.embedding.astype(np.float64), w, b)
            for w, b in zip(layer.weights, layer.biases, strict=True)
        ]
        expected = naive.activated(np.concatenate(values, axis=1), activation)
        np.testing.assert_allclose(out.values[first:last], expected, rtol=1e-4, atol=1e-4)
        for r, span in enumerate((last - first, 3, 1)):
            part = expected[max(0, len(expected) - span) :]
            np.testing.assert_allclose(sums[i, r], part.sum(0), rtol=1e-4, atol=1e-3)
            assert lengths[i, r] == len(part)


def test_several_signs_of_a_filter():
    rng, maps = np.random.default_rng(2), sequences_of([4, 0, 1, 7, 0])
    single = token_layer("sign")
    biases = tuple(rng.standard_normal((2, len(bias))).astype(np.float32) for bias in single.biases)
    layer = replace(single, biases=biases)
    assert (single.signs, layer.signs, layer.channels, layer.filters) == (1, 2, 8, [4, 4])
    ones = [replace(single, biases=tuple(bias[k] for bias in biases)).forward(maps).values for k in range(2)]
    out = layer.forward(maps)
    np.testing.assert_array_equal(out.values, (ones[0] + ones[1]) / 2)
    np.testing.assert_array_equal(layer.next_input(out).values, ones[0] + ones[1] - 1)
    windows = maps.windows(layer.patchers[1])[0]
    np.testing.assert_array_equal(layer.activations(1, windows), out.values[:, 4:])


def test_signs_go_on_as_minus_and_plus_one():
    layer = token_layer("sign")
    out = layer.forward(sequences_of([5, 2]))
    assert set(np.unique(out.values)) == {0, 1}
    np.testing.assert_array_equal(layer.next_input(out).values, np.where(out.values > 0, 1, -1))
    relu = token_layer("relu")
    out = relu.forward(sequences_of([5, 2]))
    assert relu.next_input(out).values is out.values


@pytest.mark.parametrize(
    ("grid", "window", "stride", "padding", "regions"),
    [
        ((6, 4), (3, 3), (1, 1), "same", "grid:2"),
        ((6, 4), (3, 2), (2, 1), "valid", "grid:2"),
        ((4, 4, 6), (3, 3, 3), (1, 1, 1), "same", "grid:2"),  # a small video: time, height, width
        ((4, 4, 6), (2, 3, 3), (2, 2, 1), "causal", "whole"),
    ],
)
def test_grids(grid, window, stride, padding, regions):
    maps, layer = grid_maps(grid, 3), grid_layer(window, 3, stride, padding, regions)
    out = layer.forward(maps)
    shape = layer.patchers[0].out_shape(grid)
    assert out.grid == shape
    sums, lengths = layer.pool(out)
    cells = layer.regions.sizes[0] if layer.regions.sizes else 1
    assert sums.shape == (3, cells ** len(grid), 5)
    for i in range(3):
        image = maps.values[maps.offsets[i] : maps.offsets[i + 1]].reshape(*grid, 3)
        values = naive.grid_convolved(image, window, stride, padding, layer.weights[0].astype(np.float64))
        expected = np.maximum(values + layer.biases[0], 0)
        np.testing.assert_allclose(out.values[out.offsets[i] : out.offsets[i + 1]], expected, rtol=1e-3, atol=1e-2)
        pooled = np.zeros((cells ** len(grid), 5))
        for site, row in zip(itertools.product(*map(range, shape)), expected, strict=True):
            pooled[naive.grid_segment(shape, site, cells)] += row
        np.testing.assert_allclose(sums[i], pooled, rtol=1e-3, atol=1e-1)
        assert lengths[i].sum() == len(expected)


@pytest.mark.parametrize("groups", [2, 3])
def test_groups_read_a_share_of_the_channels_each(groups):
    maps = grid_maps((4, 5), 5)
    layer = layer_of(np.random.default_rng(0), [(3, 3), (1, 1)], 4, "grid:2", 5, groups=groups)
    assert layer.channels == 2 * groups * 4
    np.testing.assert_array_equal(layer.forward(maps).values, unsplit(layer, 5).forward(maps).values)


@pytest.mark.parametrize("activation", ["relu", "sign"])
def test_a_readout_is_pooled_and_goes_no_further(activation):
    rng, maps = np.random.default_rng(2), grid_maps((4, 6), 3)
    plain = replace(grid_layer((3, 3), 3, (1, 1), regions="grid:2"), activation=activation)
    weights, bias = rng.standard_normal((5, 7), np.float32), rng.standard_normal(7, np.float32)
    layer = replace(plain, readout=layer_of_readout(weights, bias, activation, plain.regions, 2))
    out = layer.forward(maps)
    np.testing.assert_array_equal(out.values, plain.forward(maps).values)
    assert layer.features(2) == 4 * 8
    inputs = out.values if activation == "relu" else 2 * out.values - 1
    expected = naive.activated(inputs.astype(np.float64) @ weights + bias, activation)
    sums, lengths = layer.pool(out)
    by_cell = expected.reshape(3, 2, 2, 2, 3, 7).sum((2, 4)).reshape(3, 4, 7)
    np.testing.assert_allclose(sums, by_cell, rtol=1e-3, atol=1e-1)
    assert (lengths == 6).all()


def test_layers_stack_on_vectors():
    first, maps = token_layer(widths=(3,), filters=4), sequences_of([5, 0, 2])
    rng = np.random.default_rng(3)
    second = Layer(
        (Patcher((3,), (1,), "same"),), (rng.standard_normal((12, 2), np.float32),), (np.ones(2, np.float32),),
        "tanh", Regions("whole"),
    )  # fmt: skip
    middle = first.next_input(first.forward(maps))
    out = second.forward(middle)
    for start, stop in itertools.pairwise(maps.offsets):
        if start < stop:
            part = middle.values[start:stop]
            expected = np.tanh(naive.grid_convolved(part, (3,), (1,), "same", second.weights[0].astype(np.float64)) + 1)
            np.testing.assert_allclose(out.values[start:stop], expected, rtol=1e-4, atol=1e-4)


def test_sizes():
    layer = token_layer(tails=(3, 1), filters=4)
    assert (layer.channels, layer.features()) == (8, 3 * 9)
    assert grid_layer((3, 3), 3, (1, 1), regions="grid:2").features(2) == 4 * 6


def test_parts_hold_every_example_once():
    maps = sequences_of([3, 0, 9, 1, 0, 0, 4, 0])
    for sites in (1, 4, 100):
        parts = maps.parts(sites)
        rows = [i for rows, _ in parts for i in range(rows.start, rows.stop)]
        assert rows == list(range(len(maps)))
        np.testing.assert_array_equal(np.concatenate([part.values for _, part in parts]), maps.values)
        assert all(len(part) == rows.stop - rows.start and part.offsets[0] == 0 for rows, part in parts)
