from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag.bytescale import ByteScale
from seqbag.config import TrainConfig
from seqbag.kernels.signmaps import levels_to_words, words_to_levels
from seqbag.layer import Maps
from seqbag.levels import Levels
from seqbag.mapcache import MapCache
from seqbag.network import Network
from seqbag.passes import Forwarded
from seqbag.signpass import forwarding, passing
from seqbag.stages import arranged
from tests.nets import layer_of

GRID = (4, 6)


def scaled(rng, layer):
    """The layer with a scale of its own for each filter, so that sums stay exact in floats, and uneven biases."""
    weights, biases = [], []
    for own, bias in zip(layer.weights, layer.biases, strict=True):
        scale = rng.choice(np.array([0.25, 0.5, 2], np.float32), own.shape[1])
        weights.append(own * scale)
        biases.append((bias + rng.choice(np.array([-0.375, 0, 0.1875], np.float32), bias.shape)) * scale)
    return replace(layer, weights=tuple(weights), biases=tuple(biases))


def kept_of(rng, levels, rows, views, features):
    """A full cache of random means of signs on GRID, with features of a layer below."""
    kept = MapCache(rows, views, GRID, levels, [ByteScale.of(np.ones((1, features), np.float16))])
    offsets = np.arange(rows + 1, dtype=np.int64) * int(np.prod(GRID))
    seen = []
    for _ in range(views):
        above = rng.integers(0, levels.signs + 1, (offsets[-1], levels.channels))
        maps = Maps((above * np.float32(2 / levels.signs) - 1).astype(np.float32), offsets, GRID)
        seen.append((rng.random((rows, features)).astype(np.float16), maps))
    kept.update(Forwarded(np.zeros(rows, np.int32), np.zeros(rows, np.bool_), None, seen))
    return kept


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2]), st.sampled_from([1, 2, 3]),
    st.sampled_from([(), (1, 1), (2, 2)]), st.integers(1, 40),
)  # fmt: skip
def test_bits_give_what_floats_give(seed, below, signs, groups, pooling, rows):
    rng = np.random.default_rng(seed)
    levels = Levels(70, below)
    layer = scaled(rng, layer_of(rng, [(3, 3)], 9, "grid:2", 70, groups=groups, signs=signs))
    layer = replace(layer, pooling=pooling)
    network = Network(TrainConfig(), ("a", "b"), None, [layer], None, (*GRID, 3))
    kept = kept_of(rng, levels, rows, 2, 5)
    chosen = rng.permutation(rows)[: max(1, rows // 2)]
    floats, bits, alone = (passing(network, kept, *how) for how in ((False, True), (False, False), (True, False)))
    for view in range(2):
        wanted, maps = floats(chosen, view)
        features, codes = bits(chosen, view)
        assert (maps.values.dtype, codes.values.dtype) == (np.float32, np.int8)
        np.testing.assert_array_equal(features, wanted)
        np.testing.assert_array_equal(Levels.of(layer).decode(codes.values), maps.values)
        assert codes.grid == maps.grid
        np.testing.assert_array_equal(codes.offsets, maps.offsets)
        features, nothing = alone(chosen, view)
        np.testing.assert_array_equal(features, wanted)
        assert len(nothing) == 0


def pixels_of(rng, rows):
    """Random images of 8 x 12 pixels."""
    offsets = np.arange(rows + 1, dtype=np.int64) * 96
    return Maps(rng.integers(0, 256, (rows * 96, 3)).astype(np.uint8), offsets, (8, 12))


@pytest.mark.parametrize("signs", [1, 2])
@pytest.mark.parametrize("rows", [0, 1, 40])
def test_images_go_through_layers_of_bits_as_through_floats(signs, rows):
    rng = np.random.default_rng(signs)
    first = replace(layer_of(rng, [(3, 3)], 10, "none", 3), pooling=(2, 2))
    first = replace(first, biases=(rng.integers(-300, 300, 10).astype(np.float32),))
    second = replace(scaled(rng, layer_of(rng, [(3, 3)], 8, "grid:2", 10, signs=signs)), pooling=(1, 1))
    third = replace(scaled(rng, layer_of(rng, [(3, 3)], 3, "grid:2", 8, groups=2, signs=signs)), pooling=(2, 2))
    network = Network(TrainConfig(), ("a", "b"), None, [first, second, third], None, (8, 12, 3))
    maps = pixels_of(rng, rows)
    wanted, made = network.forward(maps)
    features, codes = forwarding(network, False, False)(maps)
    assert codes.values.dtype == np.int8
    np.testing.assert_array_equal(features, wanted)
    np.testing.assert_array_equal(Levels.of(third).decode(codes.values), made.values)
    assert codes.grid == made.grid
    for how in ((True, False), (True, True)):
        features, nothing = forwarding(network, *how)(maps)
        np.testing.assert_array_equal(features, wanted)
        assert len(nothing) == 0
    floats = forwarding(network, False, True)(maps)[1]
    np.testing.assert_array_equal(floats.values, made.values)


def test_filters_of_nothing_but_zeros_follow_their_bias():
    rng = np.random.default_rng(0)
    layer = layer_of(rng, [(3, 3)], 3, "grid:2", 4)
    layer = replace(layer, weights=(layer.weights[0] * 0,), biases=(np.array([-0.5, 0, 0.5], np.float32),))
    network = Network(TrainConfig(), ("a", "b"), None, [layer], None, (*GRID, 3))
    _, maps = passing(network, kept_of(rng, Levels(4, 1), 2, 1, 1), False, False)(np.arange(2), 0)
    assert (Levels(3, 1).decode(maps.values) == [-1, -1, 1]).all()


@given(st.integers(1, 200), st.sampled_from([1, 2, 4, 8]), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_codes_come_back_from_their_words(channels, signs, readers, seed):
    rng, levels = np.random.default_rng(seed), Levels(channels, signs)
    codes = levels.encode(rng.integers(0, signs + 1, (12, channels)) * np.float32(2 / signs) - 1).view(np.uint8)
    _, runs, width = arranged([channels], signs, readers)
    words = np.zeros((12, width), np.uint64)
    levels_to_words(codes, channels, levels.bits, runs, words)
    out = np.empty((3, 4, levels.site_bytes), np.uint8)
    words_to_levels(words.reshape(3, 4, width), np.arange(4, dtype=np.int32)[:, None], runs, levels.bits, out)
    np.testing.assert_array_equal(out.reshape(codes.shape), codes)
    assert np.bitwise_count(words).sum() == codes_sum(levels, codes)


def codes_sum(levels, codes):
    """The signs that are on."""
    return int(np.rint((levels.decode(codes.view(np.int8)) + 1) * levels.signs / 2).sum())


@pytest.mark.parametrize("last", [False, True])
def test_floats_go_through_a_layer_of_floats(last):
    rng = np.random.default_rng(1)
    layer = replace(layer_of(rng, [(3, 3)], 5, "grid:2", 6), activation="relu")
    network = Network(TrainConfig(), ("a", "b"), None, [layer], None, (*GRID, 3))
    kept = kept_of(rng, Levels(6, 4), 3, 1, 2)
    floats = MapCache(
        3, 1, GRID, ByteScale.of(np.ones((1, 6), np.float32)), [ByteScale.of(np.ones((1, 2), np.float16))]
    )
    floats.update(Forwarded(kept.labels, kept.held, None, [(kept.features(np.arange(3)), kept.maps(np.arange(3)))]))
    features, maps = passing(network, floats, last, False)(np.arange(3), 0)
    wanted, made = network.forward(floats.maps(np.arange(3)))
    np.testing.assert_array_equal(features[:, 2:], wanted)
    assert len(maps) == (0 if last else 3)
    if not last:
        np.testing.assert_array_equal(maps.values, made.values)
