"""Pooled features against their formula, and the gradient against differences."""

import numpy as np

from seqbag.features import pooled_features, pooled_gradient
from tests import naive


def test_features_and_their_gradient():
    rng = np.random.default_rng(0)
    sums, lengths = rng.standard_normal((3, 2, 4)) * 5, rng.integers(0, 9, (3, 2)).astype(np.float32)
    features = pooled_features(sums.astype(np.float32), lengths)
    for i in range(3):
        pooled = [np.sign(v) * np.log(1 + abs(v)) for region in sums[i] for v in region]
        np.testing.assert_allclose(features[i], pooled + [np.log(1 + n) for n in lengths[i]], rtol=1e-5)
    pull = rng.standard_normal(features.shape).astype(np.float32)
    slopes = naive.slopes(
        lambda x: float((np.sign(x) * np.log1p(np.abs(x)) * pull[:, :8].reshape(x.shape)).sum()), sums
    )
    np.testing.assert_allclose(pooled_gradient(pull, sums.astype(np.float32)), slopes, rtol=1e-5, atol=1e-8)


def test_the_logarithm_is_right_at_every_size():
    sums = np.concatenate([[0, 1e-45], np.logspace(-10, 30, 10_001)]).astype(np.float32)
    sums = np.concatenate([sums, -sums]).reshape(1, 1, -1)
    features = pooled_features(sums, np.zeros((1, 1), np.float32))[0, :-1]
    exact = np.sign(sums[0, 0]) * np.log1p(np.abs(sums[0, 0].astype(np.float64)))
    np.testing.assert_allclose(features, exact, rtol=2e-7, atol=2e-7)


def test_no_sites_are_nought():
    features = pooled_features(np.zeros((1, 1, 3), np.float32), np.zeros((1, 1), np.float32))
    np.testing.assert_array_equal(features, np.zeros((1, 4), np.float32))
