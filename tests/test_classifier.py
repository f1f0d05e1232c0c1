"""The classifier against formulas and finite differences."""

import numpy as np
import pytest

from seqbag.classifier import Classifier, softmax
from seqbag.filters import Gradients
from tests import naive


def features_of(n, d, seed=0):
    """Features of unlike scales, one of them constant."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, d), np.float32) * np.array([0.1, 1, 10, 1, 2], np.float32)[:d] + np.float32(3)
    values[:, 1] = 5
    return values


@pytest.mark.parametrize("hidden", [0, 6])
def test_logits_standardise_by_the_statistics_set(hidden):
    features = features_of(50, 4)
    classifier = Classifier(4, hidden, 3, np.random.default_rng(1))
    classifier.standardise(features.mean(0, np.float64), features.var(0, np.float64))
    wide = {name: value.astype(np.float64) for name, value in classifier.parameters.items()}
    expected = naive.head_logits(wide, naive.standardised(features.astype(np.float64)))
    np.testing.assert_allclose(classifier.logits(features), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(classifier.logits(features[:1]), expected[:1], rtol=1e-4, atol=1e-4)


def test_features_that_do_not_vary_have_no_say():
    features = features_of(50, 4)
    classifier = Classifier(4, 6, 3, np.random.default_rng(1))
    classifier.standardise(features.mean(0, np.float64), features.var(0, np.float64))
    rounded = features.copy()
    rounded[:, 1] += np.float32(0.01)
    np.testing.assert_array_equal(classifier.logits(rounded), classifier.logits(features))


def test_training_uses_the_batch_and_keeps_a_running_mean():
    classifier = Classifier(4, 5, 3, np.random.default_rng(1))
    wide = {name: value.astype(np.float64) for name, value in classifier.parameters.items()}
    first, second = features_of(40, 4, 0), features_of(40, 4, 1)
    for batch in (first, second):
        logits, tape = classifier.training_pass(batch, np.ones(40, np.float32))
        classifier.follow(tape)
        expected = naive.head_logits(wide, naive.standardised(batch.astype(np.float64)))
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(classifier.mean, 0.9 * first.mean(0) + 0.1 * second.mean(0), rtol=1e-5)
    np.testing.assert_allclose(classifier.variance, 0.9 * first.var(0) + 0.1 * second.var(0), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("hidden", [0, 6])
def test_gradients_match_finite_differences(hidden):
    features, classifier = features_of(30, 4), Classifier(4, hidden, 3, np.random.default_rng(1))
    pull = np.random.default_rng(2).standard_normal((30, 3)).astype(np.float32)  # of the logits
    weights = np.random.default_rng(4).random(30).astype(np.float32) + np.float32(0.2)
    _, tape = classifier.training_pass(features, weights)
    into = Gradients()
    back = classifier.features_gradient(classifier.backward(pull.copy(), tape, into), tape)
    wide = {name: value.astype(np.float64) for name, value in classifier.parameters.items()}
    wide_features = features.astype(np.float64)

    def loss(parameters, values):
        return float((naive.head_logits(parameters, naive.standardised(values, weights)) * pull).sum())

    assert set(into.values) == set(wide)
    for name, value in wide.items():
        slopes = naive.slopes(lambda changed, name=name: loss(wide | {name: changed}, wide_features), value)
        np.testing.assert_allclose(into.values[name], slopes, rtol=2e-3, atol=2e-4 * np.abs(slopes).max())
    direction = np.random.default_rng(3).standard_normal(features.shape)
    direction[:, 1] = 0  # a constant feature has no slope worth the name
    step = 1e-5
    slope = (loss(wide, wide_features + step * direction) - loss(wide, wide_features - step * direction)) / (2 * step)
    assert np.isclose((back * direction).sum(), slope, rtol=2e-3)


def test_softmax_of_large_logits():
    logits = np.array([[1000, 0, -1000], [0, 0, 0], [-3, -2, -1]], np.float32)
    probabilities = softmax(logits)
    assert probabilities[0].tolist() == [1, 0, 0]
    np.testing.assert_allclose(probabilities[1], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    powers = np.exp(logits[2].astype(np.float64))
    np.testing.assert_allclose(probabilities[2], powers / powers.sum(), rtol=1e-5)


@pytest.mark.parametrize("hidden", [0, 6])
def test_a_vote_is_the_weighted_sum_of_the_logits(hidden):
    rng = np.random.default_rng(2)
    features = rng.standard_normal((40, 9), np.float32)
    voters = [
        (Classifier(size, hidden, 3, rng), first, weight) for size, first, weight in ((4, 0, 2), (5, 4, 1), (9, 0, 1))
    ]
    for voter, _, _ in voters:
        voter.parameters["out_bias"][:] = rng.standard_normal(3)
    voting = Classifier.voting(9, voters)
    mean, variance = features.mean(0, np.float64), features.var(0, np.float64)
    voting.standardise(mean, variance)
    expected = np.zeros((40, 3))
    for voter, first, weight in voters:
        own = slice(first, first + voter.features)
        wide = {name: value.astype(np.float64) for name, value in voter.parameters.items()}
        expected += weight * naive.head_logits(wide, naive.standardised(features.astype(np.float64))[:, own])
    np.testing.assert_allclose(voting.logits(features), expected, rtol=1e-4, atol=1e-4)
    assert voting.hidden == 3 * hidden
