"""Adam and its rate against the formulas."""

import numpy as np
import pytest

from seqbag.filters import Gradients
from seqbag.optimiser import Adam, one_cycle
from tests import naive


def test_adam_matches_the_paper():
    rng = np.random.default_rng(0)
    start = {"out": rng.standard_normal((5, 3), np.float32), "out_bias": rng.standard_normal(7, np.float32)}
    optimiser = Adam({name: value.copy() for name, value in start.items()}, 0.1)
    rates = [0.1, 0.2, 0.05, 0.01]
    gradients = {name: [rng.standard_normal(value.shape, np.float32) for _ in rates] for name, value in start.items()}
    for step, rate in enumerate(rates):
        optimiser.step(Gradients({name: values[step] for name, values in gradients.items()}), rate)
    for name, value in start.items():
        decay = 0.1 if value.ndim == 2 else 0.0  # biases do not decay
        expected = naive.adam(value, gradients[name], rates, decay)
        np.testing.assert_allclose(optimiser.parameters[name], expected, rtol=1e-4, atol=1e-6)


def test_gradients_of_some_rows_move_those_rows_as_dense_ones_would():
    rng = np.random.default_rng(1)
    start = rng.standard_normal((9, 4), np.float32)
    sparse, dense = (Adam({"embedding": start.copy()}, 0.5) for _ in range(2))
    rows = np.array([1, 4, 8])
    for step in range(3):
        gradient = rng.standard_normal((3, 4), np.float32)
        sparse.step(Gradients({"embedding": gradient}, {"embedding": rows}), 0.1 / (step + 1))
        whole = np.zeros_like(start)
        whole[rows] = gradient
        dense.step(Gradients({"embedding": whole}), 0.1 / (step + 1))
    others = np.setdiff1d(np.arange(9), rows)
    np.testing.assert_array_equal(sparse.parameters["embedding"][others], start[others])
    np.testing.assert_array_equal(sparse.parameters["embedding"][rows], dense.parameters["embedding"][rows])
    assert (sparse.parameters["embedding"][rows] != start[rows]).all()


def test_gradients_of_all_rows_are_dense():
    start = np.ones((3, 2), np.float32)
    a, b = Adam({"embedding": start.copy()}, 0.0), Adam({"embedding": start.copy()}, 0.0)
    gradient = np.arange(6, dtype=np.float32).reshape(3, 2)
    a.step(Gradients({"embedding": gradient}, {"embedding": np.arange(3)}), 0.1)
    b.step(Gradients({"embedding": gradient}), 0.1)
    np.testing.assert_array_equal(a.parameters["embedding"], b.parameters["embedding"])


@pytest.mark.parametrize("steps", [1, 7, 100, 1000])
def test_one_cycle_rises_to_its_peak_and_falls_to_nought(steps):
    rates = np.array([one_cycle(step, steps, 0.5) for step in range(steps)])
    assert (rates > 0).all()
    assert rates.max() <= 0.5
    top = int(rates.argmax())
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    if steps >= 100:
        assert 0.14 * steps < top < 0.16 * steps
        assert rates.max() > 0.499
        assert rates[-1] < 0.001 * 0.5
        np.testing.assert_allclose(np.diff(rates[: top - 1], 2), 0, atol=1e-12)
