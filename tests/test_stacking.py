import numpy as np
import pytest

from seqbag.stacking import stacked

CLASSES = 4


def case(rng, rows=400, noise=(1.0, 2.0)):
    """Logits of classifiers that see the label behind noise; labels; how many rows each stands for."""
    labels = rng.integers(0, CLASSES, rows).astype(np.int32)
    truth = np.eye(CLASSES)[labels]
    logits = np.stack([2 * truth + size * rng.standard_normal(truth.shape) for size in noise])
    return logits, labels, rng.integers(1, 4, rows)


def cross_entropy(weights, logits, labels, counts):
    mixed = sum(weight * own for weight, own in zip(weights, logits, strict=True))
    powers = np.exp(mixed)
    right = powers[np.arange(len(labels)), labels] / powers.sum(1)
    return -(counts * np.log(right)).sum() + np.square(weights - 1 / len(logits)).sum() / 2


@pytest.mark.parametrize("noise", [(1.0, 2.0), (0.5, 0.5), (1.0, 3.0, 2.0)])
def test_no_weights_near_by_say_more(noise):
    rng = np.random.default_rng(0)
    given = case(rng, noise=noise)
    weights = stacked(*given)
    least = cross_entropy(weights, *given)
    for _ in range(50):
        assert cross_entropy(weights + 0.02 * rng.standard_normal(len(noise)), *given) > least


def test_rows_count_as_often_as_they_are():
    logits, labels, counts = case(np.random.default_rng(1))
    each = np.repeat(np.arange(len(labels)), counts)
    np.testing.assert_allclose(
        stacked(logits, labels, counts), stacked(logits[:, each], labels[each], np.ones(len(each), np.int64)), rtol=1e-6
    )


def test_the_better_one_weighs_more_and_one_that_misleads_nothing():
    logits, labels, counts = case(np.random.default_rng(2))
    better, worse = stacked(logits, labels, counts)
    assert better > 2 * worse > 0
    logits[1] *= -1
    alone, none = stacked(logits, labels, counts)
    assert none == 0
    assert alone == pytest.approx(stacked(logits[:1], labels, counts)[0], rel=0.01)


def test_all_weigh_alike_if_none_is_of_use():
    logits, labels, counts = case(np.random.default_rng(2))
    np.testing.assert_array_equal(stacked(-logits, labels, counts), [0.5, 0.5])


def test_without_rows_all_weigh_alike():
    none = np.zeros((2, 0, CLASSES)), np.zeros(0, np.int32), np.zeros(0, np.int64)
    np.testing.assert_array_equal(stacked(*none), [0.5, 0.5])


def test_rows_that_are_all_right_leave_weights_bounded():
    logits, labels, counts = case(np.random.default_rng(3), noise=(0.01, 0.01))
    assert 1 < stacked(logits, labels, counts).sum() < 20
