import mmap

import numpy as np
import pytest

from seqbag.bytescale import ByteScale
from seqbag.classifier import Classifier, cross_entropy
from seqbag.filters import Gradients, Standardiser, VectorFilters
from seqbag.head import Schedule
from seqbag.kernels.maps import spread_samples, sum_samples
from seqbag.layer import Layer, Maps, layer_of_readout
from seqbag.mapcache import MapCache
from seqbag.parallel import Workers
from seqbag.passes import Forwarded
from seqbag.patches import Patcher
from seqbag.polish import Polish, Sampler
from seqbag.polishing import _pieces
from seqbag.regions import Regions

GRID = (4, 6)
CHANNELS = 3
PATCHERS = (Patcher((3, 3), (1, 1), "same"), Patcher((1, 1), (1, 1), "same"))
EVERYTHING = 10**6


def _each(groups: int) -> tuple[Patcher, ...]:
    return tuple(patcher for patcher in PATCHERS for _ in range(groups))


def filled(rows: int, views: int = 2, seed: int = 0) -> MapCache:
    """Maps with a bright right half in every odd row of the table, labelled by it; each fourth held out."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, *GRID, CHANNELS)).astype(np.float32)
    labels = (np.arange(rows) % 2).astype(np.int32)
    values[labels == 1, :, 3:, 0] += 1
    cache = MapCache(rows, views, GRID, ByteScale.of(values.reshape(-1, CHANNELS)))
    offsets = np.arange(rows + 1, dtype=np.int64) * 24
    maps = Maps(values.reshape(-1, CHANNELS), offsets, GRID)
    none = np.empty((rows, 0), np.float16)
    cache.update(Forwarded(labels, np.arange(rows) % 4 == 3, None, [(none, maps)] * views))
    return cache


def polish(
    activation: str, regions: str = "grid:2", samples: int = EVERYTHING, shift: int = 0, threads: int = 1,
    groups: int = 1, width: int = 6,
) -> Polish:  # fmt: skip
    rng = np.random.default_rng(1)
    chosen, read = Regions.parse(regions), [len(range(CHANNELS)[group::groups]) for group in range(groups)]
    sampler = Sampler(_each(groups), chosen, GRID, samples, shift)
    sizes = [sites * own for sites in (9, 1) for own in read]
    inputs = [Standardiser(np.full(n, 0.1, np.float32), np.full(n, 0.5, np.float32)) for n in sizes]
    filters = VectorFilters(inputs, 5, rng)
    readout = VectorFilters([Standardiser.none(10 * groups)], width, rng, prefix="readout.") if width else None
    classifier = Classifier(chosen.count(2) * ((width or 10 * groups) + 1), 7, 2, rng)
    return Polish(sampler, filters, readout, classifier, activation, Workers(threads), rng, groups)


def test_samples_are_in_their_regions_in_equal_shares() -> None:
    sampler = Sampler(PATCHERS, Regions.parse("grid:2"), GRID, 8, 0)
    sites = sampler.draw(50, np.random.default_rng(0))
    assert sites.shape == (50, 8)
    rows, columns = sites // 6, sites % 6
    np.testing.assert_array_equal(rows // 2 * 2 + columns // 3, np.broadcast_to(sampler.segments, sites.shape))
    np.testing.assert_array_equal(sampler.weights, np.full(8, 3))
    assert len(np.unique(sites)) == 24


def test_moved_examples_are_read_as_if_they_lay_in_a_wider_picture_of_noughts() -> None:
    shift, cache = 2, filled(1)
    sampler = Sampler(PATCHERS, Regions.parse("whole"), GRID, EVERYTHING, shift)
    image = cache.maps(np.array([0])).values.reshape(*GRID, CHANNELS)
    wide = np.pad(image, [(3 * shift, 3 * shift)] * 2 + [(0, 0)])
    seen = set()
    for seed in range(60):
        sites = sampler.draw(1, np.random.default_rng(seed))
        out = np.empty((24, 27), np.float32)
        one, none = np.ones(27, np.float32), np.zeros(27, np.float32)
        every = slice(0, None, 1)
        cache.scale.sample(cache.codes, np.zeros(1, np.intp), sites, sampler.index[0], every, one, none, out)
        for dy in range(-shift, shift + 1):
            for dx in range(-shift, shift + 1):
                moved = wide[3 * shift + dy - 1 :, 3 * shift + dx - 1 :][:6, :8]
                windows = [moved[y : y + 3, x : x + 3].reshape(-1) for y in range(4) for x in range(6)]
                if np.array_equal(out, np.stack(windows)):
                    seen.add((dy, dx))
    assert len(seen) > 15


@pytest.mark.parametrize(("groups", "width"), [(1, 6), (2, 6), (1, 0), (2, 0)])
def test_windows_and_sums_of_samples_are_those_of_the_convolution(groups: int, width: int) -> None:
    cache, rng = filled(3), np.random.default_rng(0)
    trained = polish("relu", groups=groups, width=width)
    sums, _ = trained._forward(cache, np.arange(3) * 2, trained.sampler.draw(3, rng))
    frozen = [trained.filters.frozen(group) for group in range(2 * groups)]
    weights, biases = tuple(w for w, _ in frozen), tuple(b for _, b in frozen)
    regions = Regions.parse("grid:2")
    readout = layer_of_readout(*trained.readout.frozen(0), "relu", regions, 2) if trained.readout else None
    layer = Layer(_each(groups), weights, biases, "relu", regions, channel_groups=groups, readout=readout)
    # A window over the border reads nought, as in the layer
    expected, _ = layer.pool(layer.forward(cache.maps(np.arange(3))))
    np.testing.assert_allclose(sums, expected, rtol=1e-4, atol=1e-4)


def test_spreading_is_the_adjoint_of_summing() -> None:
    rng = np.random.default_rng(0)
    segments, weights = np.array([0, 0, 1], np.int32), np.array([2, 2, 5], np.float32)
    values, pull = rng.standard_normal((6, 4)).astype(np.float32), rng.standard_normal((2, 2, 4)).astype(np.float32)
    sums, spread = np.empty((2, 2, 4), np.float32), np.empty((6, 4), np.float32)
    sum_samples(values, segments, weights, sums)
    spread_samples(pull, segments, weights, spread)
    np.testing.assert_allclose((sums * pull).sum(), (values * spread).sum(), rtol=1e-5)


@pytest.mark.parametrize(("regions", "width"), [("grid:2", 6), ("whole", 6), ("grid:2", 0)])
def test_gradients_are_those_of_finite_differences(regions: str, width: int) -> None:
    cache, trained = filled(40), polish("tanh", regions, width=width)
    behind = trained.readout.parameters if trained.readout else {}
    views, sites = np.arange(40) * 2, trained.sampler.draw(40, np.random.default_rng(0))
    target = np.eye(2, dtype=np.float32)[cache.labels]
    ones = np.ones(40, np.float32)

    def loss() -> tuple[float, Gradients]:
        sums, tapes = trained._forward(cache, views, sites)
        logits, tape = trained.classifier.training_pass(trained._features(sums), ones)
        value, gradient = cross_entropy(logits, target, ones)
        gradients = Gradients()
        pull = trained.classifier.features_gradient(trained.classifier.backward(gradient, tape, gradients), tape)
        parts = trained._backward(trained._slopes(pull, sums), tapes)
        for name in (*trained.filters.parameters, *behind):
            gradients.values |= Gradients.sum(parts, name).values
        return value, gradients

    _, gradients = loss()
    parameters = trained.filters.parameters | behind | trained.classifier.parameters
    for name in ("filters.0", "filters.1", "bias.0", "hidden", *behind):
        values = parameters[name]
        at = np.unravel_index(np.abs(gradients.values[name]).argmax(), values.shape)
        steps = []
        for step in (3e-3, -3e-3):
            values[at] += step
            steps.append(loss()[0])
            values[at] -= step
        assert (steps[0] - steps[1]) / 6e-3 == pytest.approx(float(gradients.values[name][at]), rel=0.05)


@pytest.mark.parametrize(("activation", "width"), [("relu", 6), ("sign", 6), ("sign", 0)])
def test_it_learns_and_the_number_of_threads_changes_nothing(activation: str, width: int) -> None:
    found = []
    for threads in (1, 2):
        trained = polish(activation, samples=12, shift=1, threads=threads, width=width)
        cache = filled(400)
        reports = []
        accuracy = trained.fit(
            lambda epoch, cache=cache: [cache], 300, Schedule(12, 50, 2e-2), np.ones(2, np.float32), 0.0, 0.0,
            reports.append,
        )  # fmt: skip
        found.append((accuracy, trained.filters.parameters["filters.0"]))
        assert accuracy > 0.85
        assert reports[-1].loss < reports[0].loss
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_a_cache_keeps_views_apart_and_bytes_of_floats() -> None:
    maps = Maps(np.arange(12, dtype=np.float32).reshape(6, 2), np.array([0, 3, 6]), (3,))
    mirrored = Maps(-maps.values, maps.offsets, (3,))
    cache = MapCache(2, 2, (3,), ByteScale(np.array([1, 0.5], np.float32)))
    none = np.empty((2, 0), np.float16)
    labels, held = np.array([1, 0], np.int32), np.array([False, True])
    cache.update(Forwarded(labels, held, None, [(none, maps), (none, mirrored)]))
    np.testing.assert_array_equal(cache.maps(np.array([1, 0])).values, maps.values[[3, 4, 5, 0, 1, 2]])
    np.testing.assert_array_equal(cache.codes[3], -maps.values[3:] * np.array([1, 2]))
    assert cache.codes.nbytes == MapCache.bytes_needed(2, 2, (3,), cache.scale) == cache.nbytes


@pytest.mark.parametrize("views", [2, 1])
def test_a_cache_is_filled_from_the_one_below(views: int) -> None:
    below, rng = filled(10), np.random.default_rng(3)
    whole, grid = ByteScale(np.full(5, 2.0**-6, np.float32)), (2, 6)
    first, second = rng.integers(0, 128, (2, 10, 2, 5)).astype(np.float16) * np.float16(2.0**-6)
    beneath = MapCache(10, 2, GRID, below.scale, (whole,), below)
    for part in np.array_split(np.arange(10), 4):
        made = [(first[part, view], below.maps(part, view)) for view in range(2)]
        beneath.update(Forwarded(below.labels[part], below.held[part], None, made))
    twice = ByteScale(2 * below.scale.step)
    above = MapCache(10, views, grid, twice, (whole, whole), beneath)
    for part in np.array_split(np.arange(10), 3):
        maps = [beneath.maps(part, view).values.reshape(-1, 24, CHANNELS)[:, :12] for view in range(views)]
        offsets = np.arange(len(part) + 1, dtype=np.int64) * 12
        doubled = [Maps(2 * own.reshape(-1, CHANNELS), offsets, grid) for own in maps]
        known = [beneath.features(part, view) for view in range(views)]
        made = [(np.concatenate([known[v], second[part, v]], axis=1), doubled[v]) for v in range(views)]
        above.update(Forwarded(beneath.labels[part], beneath.held[part], None, made))
        beneath.forget(int(part[-1]) + 1)
    assert above.rows == 10
    np.testing.assert_array_equal(above.codes, below.codes.reshape(10, 2, 24, -1)[:, :views, :12].reshape(-1, 12, 3))
    np.testing.assert_array_equal(above.labels, below.labels)
    np.testing.assert_array_equal(above.held, below.held)
    for view in range(views):
        expected = np.concatenate([first[:, view], second[:, view]], axis=1)
        np.testing.assert_array_equal(above.features(np.arange(10), view), expected)
    assert above.nbytes == MapCache.bytes_needed(10, views, grid, twice, (5, 5))


def test_maps_that_are_forgotten_take_no_memory() -> None:
    cache = filled(1000)
    page, before, example = mmap.PAGESIZE, cache.codes.tobytes(), 2 * 24 * CHANNELS
    for examples in (10, 600, 500):  # the first less than a page
        cache.forget(examples)
        gone = max(examples, 600 * (examples == 500)) * example // page * page
        # Pages that were given back read as nought, as those that were never written to.
        assert cache.codes.tobytes() == bytes(gone) + before[gone:]
    cache.forget(1000)
    assert not any(cache.codes.tobytes()[: 1000 * example // page * page])
    assert cache.labels.tolist() == [0, 1] * 500


def test_batches_fill_blocks() -> None:
    assert _pieces(0, 5, 10) == [(0, 5)]
    assert _pieces(8, 5, 10) == [(0, 2), (2, 5)]
    assert _pieces(0, 25, 10) == [(0, 10), (10, 20), (20, 25)]
    assert _pieces(9, 1, 10) == [(0, 1)]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_windows_of_kept_bytes_are_those_of_floats(every: int) -> None:
    rng, index = np.random.default_rng(0), PATCHERS[0].grid_index(GRID)
    values = rng.standard_normal((3 * 24, channels := 5)).astype(np.float32)
    scale = ByteScale.of(values)
    codes = scale.encode(values).reshape(3, 24, scale.site_bytes)
    floats = np.append(scale.decode(codes), np.zeros((3, 1, channels), np.float32), axis=1)
    examples, sites = np.array([0, 2]), rng.integers(0, 24, (2, 7)).astype(np.int32)
    for first in range(every):
        read = slice(first, None, every)
        expected = floats[examples[:, None, None], index[sites], read].reshape(14, -1)
        factor, offset = rng.standard_normal((2, expected.shape[1])).astype(np.float32)
        out = np.empty(expected.shape, np.float32)
        scale.sample(codes, examples, sites, index, read, factor, offset, out)
        np.testing.assert_allclose(out, expected * factor + offset, rtol=1e-5, atol=1e-5)
