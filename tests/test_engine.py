"""The engine against the float net that it stands for, and its kernels against Python's integers."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag import engine as engine_module
from seqbag import stages
from seqbag.batch import ImageColumn
from seqbag.engine import Engine, PackedNetwork
from seqbag.kernels.bitops import PANEL
from seqbag.kernels.dense import Dense
from seqbag.layer import Layer, Maps
from seqbag.network import Network
from seqbag.patches import Patcher
from seqbag.quantise import Kind, quantise
from seqbag.regions import Regions
from seqbag.stages import BitStage, TokenStage, arranged
from seqbag.sums import EmbeddedStage, PixelStage
from tests import naive
from tests.memory import text_column
from tests.nets import image_network, layer_of, ternary_filters, token_network, unsplit

LINES = ["", "a", "ab", "abc", "hello world", "aaaaaaaaaaaaaaaaaaaaaaaa", "zq", "caé", "x" * 700]


def maps_of(rng, lengths, tokens):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Maps(rng.integers(1, tokens, offsets[-1]).astype(np.int32), offsets)


def packed(network):
    return PackedNetwork(network.config, network.classes, network.lookup, network.layers, network.classifier)


def words_of(values):
    """(sites, channels) to words (sites, ceil(channels / 64)), a bit for each value above zero."""
    wide = np.pad(values > 0, ((0, 0), (0, -values.shape[1] % 64)))
    return np.packbits(wide, axis=1, bitorder="little").view(np.uint64)


def unpacked(words, filters):
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    return bits[:, :filters].astype(bool)


@settings(max_examples=40)
@given(
    st.integers(0, 1000), st.integers(1, 5), st.sampled_from([1, 7, 64, 65, 130]), st.integers(1, 70),
    st.lists(st.integers(0, 9), max_size=5), st.sampled_from(["same", "causal", "valid"]), st.integers(1, 3),
)  # fmt: skip
def test_token_and_bit_convolution_match_whole_number_sums(seed, width, filters, dims, lengths, padding, stride):
    rng = np.random.default_rng(seed)
    embedding = rng.choice([-1, 1], (6, dims)).astype(np.float32)
    embedding[0] = 0
    layer = layer_of(rng, [(width,)], filters, "whole", dims, padding, stride, embedding)
    maps = maps_of(rng, lengths, 6)
    windows, offsets, _ = maps.windows(layer.patchers[0])
    expected = naive.active(
        embedding[windows].reshape(len(windows), width * dims), layer.weights[0], np.floor(-layer.biases[0])
    )
    for stage in (TokenStage(layer), EmbeddedStage(layer)):
        out = stage(maps)
        np.testing.assert_array_equal(out.offsets, offsets)
        np.testing.assert_array_equal(unpacked(out.values, filters), np.array(expected, bool).reshape(-1, filters))


@pytest.mark.parametrize("bound", ["_WINDOW_BYTES", "remembered"])
def test_windows_are_looked_up_remembered_or_summed_with_one_result(monkeypatch, bound):
    network = token_network(widths=(2, 3), filters=70, tokens=20)
    rng = np.random.default_rng(1)
    maps = maps_of(rng, rng.integers(0, 40, 400), 20)
    expected = TokenStage(network.layers[0])(maps).values
    monkeypatch.setattr(stages, "_WINDOW_BYTES", 0)
    if bound == "remembered":
        monkeypatch.setattr(stages, "_MANY_SUMS", 0)
        monkeypatch.setattr(stages, "_SLOTS", 64)  # so few that windows push each other out
    np.testing.assert_array_equal(TokenStage(network.layers[0])(maps).values, expected)


@settings(max_examples=40)
@given(
    st.integers(0, 1000), st.sampled_from([(1, 1), (2, 3), (3, 3)]), st.sampled_from([3, 64, 100]),
    st.tuples(st.integers(2, 7), st.integers(2, 7)), st.sampled_from(["same", "causal", "valid"]), st.integers(1, 3),
    st.sampled_from([(), (1, 2), (2, 2)]),
)  # fmt: skip
def test_bit_convolution_on_grids_matches_whole_number_sums(seed, window, channels, grid, padding, n, pooling):
    rng = np.random.default_rng(seed)
    layer = layer_of(rng, [window], 9, "whole", channels, padding)
    values = rng.choice([-1, 1], (n * int(np.prod(grid)), channels)).astype(np.float32)
    blocks = [naive.block_means(image, pooling or (1, 1)) for image in values.reshape(n, *grid, channels)]
    pooled, block = blocks[0].shape[:2], int(np.prod(pooling))
    offsets = np.arange(n + 1, dtype=np.int64)
    means = Maps(np.array(blocks).reshape(-1, channels), offsets * int(np.prod(pooled)), pooled)
    windows = means.windows(layer.patchers[0])[0] * block
    thresholds = np.floor(-layer.biases[0] * block)
    expected = np.array(naive.active(windows, layer.weights[0], thresholds), bool).reshape(-1, 9)
    maps = Maps(words_of(values), offsets * int(np.prod(grid)), grid)
    out = BitStage(layer, np.array([[0, 1, channels, 0]]), pooling)(maps)
    np.testing.assert_array_equal(unpacked(out.values, 9), expected)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([3, 65, 130]), st.sampled_from([2, 3]), st.sampled_from([(), (2, 2)]))
def test_groups_that_read_a_share_of_the_bits(seed, channels, groups, pooling):
    rng = np.random.default_rng(seed)
    layer = layer_of(rng, [(3, 3)], 9, "whole", channels, groups=groups)
    maps = Maps(words_of(rng.choice([-1, 1], (48, channels))), np.array([0, 24, 48], np.int64), (4, 6))
    runs = np.array([[0, 1, channels, 0]])
    expected = BitStage(unsplit(layer, channels), runs, pooling)(maps)
    np.testing.assert_array_equal(BitStage(layer, runs, pooling)(maps).values, expected.values)


@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=4), st.sampled_from([1, 2, 4]), st.integers(1, 5)
)  # fmt: skip
def test_each_reader_finds_its_bits_in_words_of_its_own(sizes, signs, readers):
    panels, runs, words = arranged(sizes, signs, readers)
    bits = {}
    for channel, step, size, *firsts in runs.tolist():
        bits |= {(k, channel + step * i): first + i for k, first in enumerate(firsts) for i in range(size)}
    assert sorted(bits) == [(k, channel) for k in range(signs) for channel in range(sum(sizes))]
    assert len(set(bits.values())) == len(bits)
    assert max(bits.values()) < words * 64
    read = [{bit // 64 for (_, channel), bit in bits.items() if channel % readers == r} for r in range(readers)]
    assert sum(map(len, read)) == len(set().union(*read))
    for group, own in enumerate(panels):
        for place, f in enumerate(own.filters.tolist()):
            for k in range(signs):
                if f >= 0:
                    assert bits[k, sum(sizes[:group]) + f] == own.starts[place // PANEL, k] * 8 + place % PANEL


@settings(max_examples=40)
@given(
    st.integers(0, 1000), st.sampled_from([(1, 1), (2, 3), (3, 3), (3, 2, 2), (4,)]), st.integers(1, 4),
    st.sampled_from([1, 7, 64, 65]), st.lists(st.integers(1, 6), min_size=3, max_size=3),
    st.sampled_from(["same", "causal", "valid"]), st.integers(1, 3), st.integers(0, 3),
)  # fmt: skip
def test_pixel_convolution_matches_whole_number_sums(seed, window, channels, filters, grid, padding, stride, n):
    rng = np.random.default_rng(seed)
    axes, inputs = len(window), int(np.prod(window)) * channels
    grid, strides = tuple(grid[:axes]), (stride,) * axes
    most = 32767 // inputs
    weights = rng.integers(-most, most + 1, (inputs, filters)).astype(np.float32)
    pixels = rng.choice(np.array([0, 1, 127, 128, 254, 255], np.uint8), (n * int(np.prod(grid)), channels))
    index = naive.grid_index(grid, window, strides, padding)
    windows = np.array(
        [
            naive.gather(image.tolist(), index)
            for image in pixels.reshape(n, int(np.prod(grid)), channels)
        ],
    ).reshape(n * len(index), inputs)  # fmt: skip
    sums = windows @ weights.astype(np.int64)
    thresholds = np.array([rng.choice(column) if len(column) else 0 for column in sums.T]) - rng.integers(0, 2, filters)
    layer = Layer(
        (Patcher(window, strides, padding),), (weights,), (-(thresholds + 0.5).astype(np.float32),), "sign",
        Regions("none"),
    )  # fmt: skip
    out = PixelStage(layer)(Maps(pixels, np.arange(n + 1) * int(np.prod(grid)), grid))
    expected = np.array(naive.active(windows, weights, thresholds), bool).reshape(-1, filters)
    np.testing.assert_array_equal(unpacked(out.values, filters), expected)
    assert out.offsets.tolist() == [i * len(index) for i in range(n + 1)]


def test_the_largest_sums_of_pixels_do_not_overflow():
    """Also in the float net that the engine stands for: thresholds are one below a sum, and the sum itself."""
    weights = np.array([[32767, -32767, 16383, 1], [0, 0, 16384, -32766]], np.float32)
    sums = 255 * weights.astype(np.int64).sum(0)
    for below, expected in ((1, [True] * 4), (0, [False] * 4)):
        bias = -(sums - below + 0.5).astype(np.float32)
        layer = Layer((Patcher((1, 1), (1, 1), "same"),), (weights,), (bias,), "sign", Regions("none"))
        maps = Maps(np.full((1, 2), 255, np.uint8), np.array([0, 1]), (1, 1))
        assert unpacked(PixelStage(layer)(maps).values, 4).tolist() == [expected]
        assert layer.forward(maps).values.astype(bool).tolist() == [expected]


@pytest.mark.parametrize("regions", ["whole", "tail:8,2,1"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("signs", [1, 2, 4])
def test_features_are_those_of_the_float_net(regions, layers, signs):
    network = token_network(regions=regions, layers=layers, signs=signs)
    maps = network.encode(text_column(LINES))
    np.testing.assert_array_equal(Engine(network).features(maps), network.features(maps))


def test_a_long_line_and_many_lines_are_counted_in_full(monkeypatch):
    network = token_network(layers=1, regions="whole")
    maps = maps_of(np.random.default_rng(0), [6000, 3, 0, 6000, 1] * 3, 12)
    expected = network.features(maps)
    np.testing.assert_array_equal(Engine(network).features(maps), expected)
    monkeypatch.setattr(engine_module, "_SITES", 50)
    monkeypatch.setattr(engine_module, "_ROWS", 2)
    np.testing.assert_array_equal(Engine(network).features(maps), expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("window", "pooling"), [((3, 3), ()), ((2, 2), (2, 1)), ((2, 3, 2), ()), ((2, 2, 2), (1, 2, 2))]
)
@pytest.mark.parametrize(("first", "signs"), [("none", 1), ("whole", 1), ("whole", 2)])
def test_features_of_images_are_those_of_the_float_net(window, pooling, first, padding, signs):
    network = image_network(window=window, padding=padding, pooling=pooling, first=first, signs=signs)
    network = quantise(network, Kind("ternary", "sign"))
    shape = (4, 9, 8, 3) if len(window) == 2 else (4, 6, 8, 7, 3)
    column = ImageColumn(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
    maps = network.encode(column)
    np.testing.assert_array_equal(packed(network).features(maps), network.features(maps))
    assert packed(network).engine is not None


@pytest.mark.parametrize(("groups", "readout", "filters"), [(1, 0, 70), (2, 0, 5), (1, 7, 5), (2, 3, 66)])
def test_channel_groups_and_readouts_of_several_signs(groups, readout, filters):
    network = image_network(filters=filters, pooling=(2, 2), groups=groups, readout=readout, signs=2)
    network = quantise(network, Kind("ternary", "sign"))
    column = ImageColumn(np.random.default_rng(0).integers(0, 256, (4, 9, 8, 3)).astype(np.uint8))
    maps = network.encode(column)
    assert packed(network).engine is not None
    np.testing.assert_array_equal(packed(network).features(maps), network.features(maps))


def test_logits_follow_the_float_classifier_and_no_other_row():
    network = token_network(filters=40)
    lines = [*LINES, *(f"line {i} abc" for i in range(50))]
    together = packed(network).logits(text_column(lines))
    np.testing.assert_allclose(together, network.logits(text_column(lines)), atol=0.05)
    alone = np.concatenate([packed(network).logits(text_column([line])) for line in lines])
    np.testing.assert_array_equal(alone, together)


def test_no_rows_give_no_logits():
    assert packed(token_network(signs=2)).logits(text_column([])).shape == (0, 3)
    network = packed(quantise(image_network(pooling=(2, 2), signs=2), Kind("ternary", "sign")))
    assert network.logits(ImageColumn(np.empty((0, 8, 8, 3), np.uint8))).shape == (0, 2)


def test_threads_share_an_engine():
    network = packed(token_network())
    columns = [text_column([f"row {i} {j}" for j in range(30)]) for i in range(8)]
    expected = [network.logits(column) for column in columns]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(network.logits, columns), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_a_net_with_float_filters_or_activations_runs_as_it_is():
    network = token_network(layers=1)
    layer = network.layers[0]
    for other in (
        dataclasses.replace(layer, weights=tuple(w * np.float32(1.5) for w in layer.weights)),
        dataclasses.replace(layer, activation="relu"),
    ):
        changed = dataclasses.replace(network, layers=[other])
        assert packed(changed).engine is None
        np.testing.assert_array_equal(packed(changed).logits(text_column(LINES)), changed.logits(text_column(LINES)))


@pytest.mark.parametrize("larger", [1.5, 32768])
def test_filters_over_pixels_that_are_no_small_integers_run_as_they_are(larger):
    network = quantise(image_network(), Kind("ternary", "sign"))
    assert packed(network).engine is not None
    weights = network.layers[0].weights[0].copy()
    weights[0, 0] = larger
    layer = dataclasses.replace(network.layers[0], weights=(weights,))
    assert packed(dataclasses.replace(network, layers=[layer, *network.layers[1:]])).engine is None


@pytest.mark.parametrize("signs", [1, 2])
def test_a_vocabulary_too_large_for_tables_is_convolved_as_it_is(monkeypatch, signs):
    network = token_network(signs=signs)
    expected = Engine(network).features(network.encode(text_column(LINES)))
    monkeypatch.setattr(stages, "_TABLE_BYTES", 0)
    monkeypatch.setattr(TokenStage, "__init__", None)
    np.testing.assert_array_equal(Engine(network).features(network.encode(text_column(LINES))), expected)


def test_filters_of_nothing_but_zeros_follow_their_threshold():
    embedding = np.array([[0, 0], [1, 1], [1, -1]], np.float32)
    zeros, bias = np.zeros((2, 2), np.float32), np.array([0.5, -0.5], np.float32)
    layer = Layer((Patcher((1,), (1,), "same"),), (zeros,), (bias,), "sign", Regions("whole"), embedding)
    for stage in (TokenStage(layer), EmbeddedStage(layer)):
        assert unpacked(stage(maps_of(np.random.default_rng(0), [3], 3)).values, 2).tolist() == [[True, False]] * 3


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 70), st.integers(1, 70), st.integers(0, 20), st.booleans())
def test_dense_is_the_product_of_rounded_numbers(seed, dims, columns, n, rectify):
    rng = np.random.default_rng(seed)
    mean, scale = rng.random(dims).astype(np.float32), rng.uniform(0.5, 2, dims).astype(np.float32)
    bias = rng.standard_normal(columns).astype(np.float32)
    whole = rng.integers(-127, 128, (dims, columns))
    whole[0] = 127
    unit = rng.uniform(0.001, 0.1, columns).astype(np.float32)
    x = rng.uniform(-3, 3, (n, dims)).astype(np.float32)
    expected = ((x - mean).astype(np.float64) * scale) @ (whole * unit.astype(np.float64)) + bias
    got = Dense(mean, scale, (whole * unit).astype(np.float32), bias, rectify)(x)
    np.testing.assert_allclose(
        got,
        np.maximum(expected, 0) if rectify else expected,
        atol=0.004 * np.sqrt(dims) * (127 * unit).max(),
        rtol=1e-4,
    )


def test_dense_holds_far_features_at_its_limit():
    weights = np.full((3, 1), 2, np.float32)
    dense = Dense(np.zeros(3, np.float32), np.ones(3, np.float32), weights, np.zeros(1, np.float32), rectify=False)
    far = dense(np.full((1, 3), 1e30, np.float32))
    assert 16 * 6 <= far[0, 0] < 32 * 6


def test_ternary_filters_of_the_tests_are_ternary():
    weights, bias = ternary_filters(np.random.default_rng(0), 50, 9)
    assert set(np.unique(weights)) == {-1.0, 0.0, 1.0}
    assert isinstance(token_network(), Network)
    np.testing.assert_array_equal(bias - np.floor(bias), 0.5)
