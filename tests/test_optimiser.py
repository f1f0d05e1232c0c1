"""Adam, Muon and their rate against the formulas."""

import numpy as np
import pytest

from seqbag.filters import Gradients
from seqbag.kernels.muon import muon_step
from seqbag.optimiser import POLYNOMIALS, Optimiser, one_cycle
from seqbag.parallel import Workers
from tests import naive


def optimiser_of(parameters, decay, threads=1, quantised=False):
    own = {name: value.copy() for name, value in parameters.items()}
    return Optimiser(own, decay, Workers(threads), quantised=quantised)


@pytest.mark.parametrize(("threads", "quantised"), [(1, False), (3, False), (1, True)])
def test_each_parameter_moves_as_its_paper_says(threads, quantised):
    rng = np.random.default_rng(0)
    shapes = {"out": (5, 3), "out_bias": (7,), "hidden": (9, 4), "filters.0": (4, 6), "filters.1": (5, 5)}
    start = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    optimiser = optimiser_of(start, 0.1, threads, quantised)
    rates = [0.1, 0.2, 0.05, 0.01]
    gradients = {name: [rng.standard_normal(value.shape, np.float32) for _ in rates] for name, value in start.items()}
    for step, rate in enumerate(rates):
        parts = [Gradients({name: values[step] * size for name, values in gradients.items()}) for size in (0.75, 0.25)]
        optimiser.step(parts, rate)
    for name, value in start.items():
        decay = 0.1 if value.ndim == 2 else 0.0  # biases do not decay
        given = value, gradients[name], rates, decay
        expected = naive.adam(*given) if name.startswith("out") else naive.muon(*given, 3 if quantised else 2)
        np.testing.assert_allclose(optimiser.parameters[name], expected, rtol=1e-3, atol=1e-4)


def test_parameters_without_a_gradient_stay():
    start = {"hidden": np.ones((3, 2), np.float32), "out_bias": np.ones(2, np.float32)}
    optimiser = optimiser_of(start, 0.5)
    optimiser.step([Gradients(), Gradients({"out_bias": np.ones(2, np.float32)})], 0.1)
    np.testing.assert_array_equal(optimiser.parameters["hidden"], start["hidden"])
    assert (optimiser.parameters["out_bias"] < 1).all()


def orthogonal(matrix, rounds):
    values = np.ones_like(matrix)
    muon_step(values, np.zeros_like(matrix), matrix, *np.array([0, 0, -1], np.float32), POLYNOMIALS[:rounds])
    return values


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (12, 12), (5, 1), (130, 50), (49, 200)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
@pytest.mark.parametrize(("rounds", "least", "most"), [(2, 0.29, 1.71), (3, 0.73, 1.27)])
def test_orthogonal_brings_singular_values_near_one_whatever_the_scale(shape, scale, rounds, least, most):
    left, _, right = np.linalg.svd(np.random.default_rng(0).standard_normal(shape), full_matrices=False)
    spread = np.geomspace(1, 0.02 if min(shape) < 40 else 0.05, min(shape))  # a hundredth of the norm, at least
    matrix = ((left * spread) @ right).astype(np.float32)
    sizes = np.linalg.svd(orthogonal(matrix * np.float32(scale), rounds), compute_uv=False)
    assert least < sizes.min() <= sizes.max() < most


def test_orthogonal_of_nought_is_nought():
    np.testing.assert_array_equal(orthogonal(np.zeros((4, 3), np.float32), 3), np.zeros((4, 3), np.float32))


def test_gradients_of_some_rows_move_those_rows_as_dense_ones_would():
    rng = np.random.default_rng(1)
    start = rng.standard_normal((9, 4), np.float32)
    sparse, dense = (optimiser_of({"embedding": start}, 0.5) for _ in range(2))
    rows = np.array([1, 4, 8])
    for step in range(3):
        gradient = rng.standard_normal((3, 4), np.float32)
        sparse.step([Gradients({"embedding": gradient}, {"embedding": rows})], 0.1 / (step + 1))
        whole = np.zeros_like(start)
        whole[rows] = gradient
        dense.step([Gradients({"embedding": whole})], 0.1 / (step + 1))
    others = np.setdiff1d(np.arange(9), rows)
    np.testing.assert_array_equal(sparse.parameters["embedding"][others], start[others])
    np.testing.assert_array_equal(sparse.parameters["embedding"][rows], dense.parameters["embedding"][rows])
    assert (sparse.parameters["embedding"][rows] != start[rows]).all()


def test_gradients_of_all_rows_are_dense():
    start = np.ones((3, 2), np.float32)
    a, b = optimiser_of({"embedding": start}, 0.0), optimiser_of({"embedding": start}, 0.0)
    gradient = np.arange(6, dtype=np.float32).reshape(3, 2)
    a.step([Gradients({"embedding": gradient.copy()}, {"embedding": np.arange(3)})], 0.1)
    b.step([Gradients({"embedding": gradient.copy()})], 0.1)
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
