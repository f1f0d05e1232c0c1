"""The nearest-centroid kernel, whitening, the reservoir, and the codebook and its laws."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag.errors import DataError, UsageError
from seqbag.kernels.assign import PANEL, ROWS, Affine, Searcher
from seqbag.kmeans import KMeans
from seqbag.projection import Moments, Projection
from seqbag.reservoir import Reservoir
from tests import naive


def blobs(rng, n, groups=5, dims=3, dtype=np.uint8):
    """Vectors around a few far apart corners, and which."""
    corners = np.random.default_rng(99).integers(0, 20, (groups, dims)) * 12
    group = rng.integers(0, groups, n)
    return (corners[group] + rng.integers(0, 4, (n, dims))).astype(dtype), group


# --- kernels


@settings(max_examples=60)
@given(st.integers(0, 3 * ROWS + 1), st.integers(1, 40), st.integers(1, 2 * PANEL + 3), st.integers(0, 99))
def test_search_matches_oracle_and_ties_go_to_the_lowest(n, dims, k, seed):
    rng = np.random.default_rng(seed)
    # small integers are exact in float32 and tie often
    x = rng.integers(-2, 3, (n, dims)).astype(np.float32)
    centroids = rng.integers(-2, 3, (k, dims)).astype(np.float32)
    codes, scores = Searcher(centroids)(x)
    assert codes.dtype == np.int32
    assert codes.tolist() == naive.nearest(x, centroids).tolist()
    squares = ((x - centroids[codes]) ** 2).sum(axis=1)
    np.testing.assert_array_equal((x**2).sum(axis=1) - 2 * scores, squares)


def test_search_of_many_rows_in_any_number_of_threads():
    rng = np.random.default_rng(0)
    x, centroids = rng.random((3001, 33), dtype=np.float32), rng.random((301, 33), dtype=np.float32)
    codes, scores = Searcher(centroids)(x)
    assert codes.tolist() == naive.nearest(x, centroids).tolist()
    for threads in (2, 3):
        again = Searcher(centroids)(x, threads)
        np.testing.assert_array_equal(again[0], codes)
        np.testing.assert_array_equal(again[1], scores)
    part = Searcher(centroids)(x[1000:1003])
    np.testing.assert_array_equal(part[1], scores[1000:1003])


def test_a_missing_centroid_is_never_found():
    centroids = np.array([[np.nan], [1.0], [2.0], [np.nan]], np.float32)
    codes, _ = Searcher(centroids)(np.array([[0.0], [9.0], [1.2]], np.float32))
    assert codes.tolist() == [1, 2, 1]


@settings(max_examples=40)
@given(st.integers(0, 600), st.integers(1, 20), st.integers(1, 2 * PANEL + 3), st.integers(0, 99))
def test_affine_matches_matmul_whatever_the_batch(n, dims, width, seed):
    rng = np.random.default_rng(seed)
    x, matrix = rng.random((n, dims), dtype=np.float32), rng.random((dims, width), dtype=np.float32)
    bias = rng.random(width, dtype=np.float32)
    affine = Affine(matrix, bias)
    out = affine(x)
    np.testing.assert_allclose(out, x @ matrix + bias, rtol=1e-5)
    np.testing.assert_array_equal(affine(x, threads=2), out)
    np.testing.assert_array_equal(affine(x[n // 2 :]), out[n // 2 :])


# --- moments and whitening


@settings(max_examples=30)
@given(st.lists(st.integers(0, 50), min_size=3, max_size=3), st.sampled_from([np.uint8, np.int16]), st.integers(0, 99))
def test_moments_of_integers_merge_exactly_in_any_order(sizes, dtype, seed):
    rng = np.random.default_rng(seed)
    shards = [rng.integers(0, 250, (n, 4)).astype(dtype) for n in sizes]
    whole = Moments.of(4, dtype)
    whole.update(np.concatenate(shards))
    wide = np.concatenate(shards).astype(np.int64)
    np.testing.assert_array_equal(whole.total, wide.sum(axis=0))
    np.testing.assert_array_equal(whole.outer, wide.T @ wide)
    for order in ([0, 1, 2], [2, 0, 1]):
        merged = whole.empty()
        for shard in order:
            part = whole.empty()
            part.update(shards[shard])
            merged.merge(part)
        assert merged.count == whole.count
        np.testing.assert_array_equal(merged.total, whole.total)
        np.testing.assert_array_equal(merged.outer, whole.outer)


def test_moments_of_large_integers_are_exact_or_refused():
    x = np.full((3, 1), 2**26 - 1, np.int32)
    moments = Moments.of(1, np.int32)
    moments.update(x)
    assert moments.outer[0, 0] == 3 * (2**26 - 1) ** 2
    with pytest.raises(UsageError, match="too large for exact moments"):
        moments.update(np.full((1, 1), 2**30, np.int32))
    with pytest.raises(UsageError, match="cannot take float32"):
        moments.update(np.ones((1, 1), np.float32))
    with pytest.raises(UsageError, match="cannot be merged"):
        moments.merge(Moments.of(1, np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_projection_whitens(dtype):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4000, 5)) @ rng.normal(size=(5, 5)) * 10 + 128).clip(0, 255).astype(dtype)
    moments = Moments.of(5, dtype)
    moments.update(x)
    np.testing.assert_allclose(moments.covariance(), np.cov(x.T, bias=True), rtol=1e-5, atol=1e-6)
    z = Projection.fit(moments, 3, epsilon=0.0)(x)
    assert (z.shape, z.dtype) == ((4000, 3), np.float32)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(3), atol=1e-3)
    damped = Projection.fit(moments, 3, epsilon=1.0)(x)
    assert (damped.var(axis=0) < 1).all()


def test_projection_leaves_out_axes_without_variance():
    moments = Moments.of(3, np.uint8)
    x = np.array([[1, 7, 7], [3, 7, 7], [9, 7, 7]], np.uint8)
    moments.update(x)
    z = Projection.fit(moments, 3, epsilon=0.0)(x)
    assert np.isfinite(z).all()
    np.testing.assert_allclose(z.var(axis=0), [1, 0, 0], atol=1e-5)


# --- reservoir


def test_reservoir_is_uniform_over_the_stream_and_over_merges():
    rng = np.random.default_rng(0)
    hits = np.zeros((2, 40))
    for _ in range(1500):
        one, first, second = (Reservoir(10, 1, np.int32, rng) for _ in range(3))
        x = np.arange(40, dtype=np.int32)[:, None]
        for part in np.split(x, [3, 17]):
            one.update(part)
        first.update(x[:25])
        second.update(x[25:])
        first.merge(second)
        for hit, reservoir in zip(hits, (one, first), strict=True):
            assert (len(reservoir.rows), reservoir.seen) == (10, 40)
            assert len(np.unique(reservoir.rows)) == 10
            hit[reservoir.rows[:, 0]] += 1
    expected, deviation = 1500 / 4, np.sqrt(1500 * 0.25 * 0.75)
    assert np.abs(hits - expected).max() < 5 * deviation


# --- codebook


def codebook(k=5, dims=3, dtype=np.uint8, seed=0, **options):
    return KMeans(k, dims, dtype, np.random.default_rng(seed), **options)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_codebook_finds_the_clusters(dtype):
    x, group = blobs(np.random.default_rng(1), 2000, dtype=dtype)
    book = codebook(dtype=dtype)
    for part in np.array_split(x, 7):
        book.update(part)
    codes = book.assign(x)
    assert len(np.unique(codes * 5 + group)) == 5
    assert book.centroids.dtype == np.float32
    for code in range(5):
        np.testing.assert_allclose(book.centroids[code], x[codes == code].mean(axis=0), atol=0.1)


def test_streaming_centroids_are_running_means():
    x, _ = blobs(np.random.default_rng(1), 600)
    book = codebook(sample=80)
    book.update(x[:80])
    assert book.started
    sums, counts = book.sums.copy(), book.counts.copy()
    codes = book.assign(x[80:])
    book.update(x[80:])
    np.add.at(sums, codes, x[80:])
    np.add.at(counts, codes, 1)
    np.testing.assert_array_equal(book.sums, sums)
    np.testing.assert_array_equal(book.counts, counts)
    np.testing.assert_array_equal(book.centroids, (sums / counts[:, None]).astype(np.float32))


def test_codebook_searches_projected_and_sums_original_vectors():
    x, group = blobs(np.random.default_rng(1), 2000, dims=8)
    moments = Moments.of(8, np.uint8)
    moments.update(x)
    book = codebook(dims=8, projection=Projection.fit(moments, 4, 0.01))
    book.update(x[:80])
    book.update(x[80:])
    codes = book.assign(x)
    assert len(np.unique(codes * 5 + group)) == 5
    assert (book.sums.dtype, book.sums.shape) == (np.int64, (5, 8))
    assert book.sums.sum() == x.astype(np.int64).sum()


def test_empty_clusters_are_seeded_from_far_vectors():
    near = np.array([[10, 10]] * 50 + [[12, 10]] * 50, np.uint8)
    book = codebook(k=4, dims=2, sample=100)
    book.update(near)
    assert sorted(book.counts.tolist()) == [0, 0, 50, 50]
    assert set(book.assign(near).tolist()) <= set(np.flatnonzero(book.counts).tolist())
    far = np.array([[200, 200]] * 30 + [[10, 200]] * 30, np.uint8)
    book.update(np.concatenate([near, far]))
    assert book.counts.sum() == 260
    assert book.counts.min() > 0
    book.update(np.concatenate([near, far]))
    assert len(np.unique(book.assign(far[[0, 30]]))) == 2


def test_fewer_distinct_vectors_than_centroids():
    x = np.array([[1, 1], [5, 5], [1, 1]], np.float32)
    book = codebook(k=8, dims=2, dtype=np.float32)
    book.update(x)
    codes = book.assign(x)
    assert codes[0] == codes[2] != codes[1]
    np.testing.assert_array_equal(book.centroids[codes], x)
    assert np.isfinite(book.centroids).all()


@settings(max_examples=20)
@given(st.lists(st.integers(0, 300), min_size=3, max_size=3), st.permutations(range(3)))
def test_frozen_shards_merge_to_one_pass_bit_for_bit(sizes, order):
    rng = np.random.default_rng(2)
    book = codebook()
    book.update(blobs(rng, 400)[0])
    book.freeze()
    assert book.counts.sum() == 0
    shards = [blobs(rng, n)[0] for n in sizes]
    whole = book.empty()
    whole.update(np.concatenate(shards))
    merged = book.empty()
    for shard in order:
        part = book.empty()
        part.update(shards[shard])
        merged.merge(part)
    merged.merge(book.empty())
    np.testing.assert_array_equal(merged.counts, whole.counts)
    np.testing.assert_array_equal(merged.sums, whole.sums)
    np.testing.assert_array_equal(merged.centroids, whole.centroids)
    np.testing.assert_array_equal(merged.assign(shards[0]), book.assign(shards[0]))


def test_merge_of_different_centroids_clusters_them_and_keeps_the_totals():
    rng = np.random.default_rng(3)
    x, group = blobs(rng, 3000)
    one, two = codebook(seed=1), codebook(seed=2)
    for book, part in ((one, x[:1000]), (two, x[1000:])):
        book.update(part[:80])
        book.update(part[80:])
    one.merge(two)
    assert one.counts.sum() == 3000
    np.testing.assert_array_equal(one.sums.sum(axis=0), x.astype(np.int64).sum(axis=0))
    assert len(np.unique(one.assign(x) * 5 + group)) == 5


def test_merge_before_the_start():
    x, group = blobs(np.random.default_rng(3), 300)
    sampled, started = codebook(sample=200), codebook(sample=200, seed=1)
    sampled.update(x[:100])
    started.update(x[100:])
    assert (sampled.started, started.started) == (False, True)
    sampled.merge(started)
    assert sampled.counts.sum() == 300
    assert len(np.unique(sampled.assign(x) * 5 + group)) == 5
    one, two = codebook(sample=200), codebook(sample=200)
    one.update(x[:150])
    two.update(x[150:])
    one.merge(two)
    assert one.started
    assert len(np.unique(one.assign(x) * 5 + group)) == 5


@pytest.mark.parametrize("threads", [1, 2])
def test_same_seed_same_codebook_whatever_the_threads(threads):
    x = np.random.default_rng(4).random((3000, 6), dtype=np.float32)

    def learn(threads):
        book = codebook(k=64, dims=6, dtype=np.float32, threads=threads)
        for part in np.array_split(x, 3):
            book.update(part)
        return book

    book, again = learn(1), learn(threads)
    np.testing.assert_array_equal(book.sums, again.sums)
    np.testing.assert_array_equal(book.assign(x), again.assign(x))
    copy = pickle.loads(pickle.dumps(book))
    np.testing.assert_array_equal(copy.assign(x), book.assign(x))


def test_codebook_is_better_than_a_random_one():
    x = np.random.default_rng(5).normal(size=(4000, 4)).astype(np.float32)
    book = codebook(k=50, dims=4, dtype=np.float32)
    for part in np.array_split(x, 5):
        book.update(part)
    error = ((x - book.centroids[book.assign(x)]) ** 2).sum(axis=1).mean()
    drawn = x[:50]
    assert error < 0.8 * ((x - drawn[naive.nearest(x, drawn)]) ** 2).sum(axis=1).mean()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_vectors_that_are_not_finite_are_refused(bad):
    x = np.ones((200, 2), np.float32)
    x[7, 1] = bad
    book = codebook(k=2, dims=2, dtype=np.float32, sample=200)
    with pytest.raises(DataError, match="hold NaN, infinity or"):
        book.update(x)
    book = codebook(k=2, dims=2, dtype=np.float32)
    book.update(np.arange(80, dtype=np.float32).reshape(40, 2))
    with pytest.raises(DataError, match="hold NaN, infinity or"):
        book.assign(x)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UsageError, match="must be 1 or more"):
        codebook(k=0)
    with pytest.raises(DataError, match="has seen no vectors"):
        codebook().assign(np.zeros((1, 3), np.uint8))
    with pytest.raises(UsageError, match="cannot take float32"):
        codebook().update(np.zeros((1, 3), np.float32))
    with pytest.raises(UsageError, match="cannot be merged"):
        codebook().merge(codebook(k=6))
    with pytest.raises(UsageError, match="give each one code"):
        codebook().add(np.zeros((1, 3), np.uint8), np.array([9], np.int32))
