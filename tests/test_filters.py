"""Filters over tokens and vectors against convolutions written out, and their kernels."""

import numpy as np
import pytest

from seqbag.filters import (
    Gradients,
    Standardiser,
    TokenFilters,
    VectorFilters,
    activations,
    sign_biases,
    ternary,
)
from seqbag.kernels.filters import (
    RELU,
    SIGN,
    TANH,
    activation_gradient,
    add_named_rows,
    count_signs,
    gather_bags,
    number_tokens,
    sum_rows,
)
from tests import naive


def windows_of(n, width, tokens=7, seed=0):
    return np.random.default_rng(seed).integers(0, tokens, (n, width)).astype(np.int32)


def token_filters(quantise=False):
    filters = TokenFilters(7, 4, (1, 3), 5, np.random.default_rng(1), quantise)
    filters.parameters["bias.1"][:] = np.arange(5)
    return filters


@pytest.mark.parametrize("quantise", [False, True])
def test_token_filters_forward(quantise):
    filters = token_filters(quantise)
    assert not filters.parameters["embedding"][:2].any(), "neither padding nor unknown tokens add anything"
    embedding, weights = filters.parameters["embedding"], filters.parameters["filters.1"]
    if quantise:
        embedding, weights = np.sign(embedding), naive.ternary(weights)
    windows, prepared = windows_of(20, 3), filters.prepare([windows_of(20, 1), windows_of(20, 3)])
    expected = embedding[windows].reshape(20, -1).astype(np.float64) @ weights + filters.parameters["bias.1"]
    np.testing.assert_allclose(filters.forward(prepared, relu=False)[1], expected, rtol=1e-4, atol=1e-5)
    for given, used in zip(filters.frozen(1), (weights, filters.parameters["bias.1"]), strict=True):
        np.testing.assert_allclose(given, used, rtol=1e-5)


def test_token_filters_backward_is_the_adjoint_and_joins_the_groups():
    filters, into = token_filters(), Gradients()
    total = np.zeros((7, 4))
    windows = [windows_of(9, 1, 6), windows_of(11, 3, 6)]
    pulls = [windows_of(len(own), 5, 9, seed=3).astype(np.float32) - 4 for own in windows]
    filters.backward(filters.prepare(windows), pulls, into)
    for group, (own, pull) in enumerate(zip(windows, pulls, strict=True)):
        weights = filters.parameters[f"filters.{group}"]
        inputs = filters.parameters["embedding"][own].reshape(len(own), -1)
        np.testing.assert_allclose(into.values[f"filters.{group}"], inputs.T @ pull, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(into.values[f"bias.{group}"], pull.sum(0))
        np.add.at(total, own, (pull @ weights.T).reshape(len(own), -1, 4))
    total[:2] = 0  # neither padding nor unknown tokens are learned
    dense = np.zeros((7, 4))
    dense[into.rows["embedding"]] = into.values["embedding"]
    np.testing.assert_allclose(dense, total, rtol=1e-4, atol=1e-4)


def test_quantised_filters_pass_gradients_straight_through():
    quantised, plain = token_filters(quantise=True), token_filters()
    plain.parameters["embedding"] = np.sign(quantised.parameters["embedding"])
    for name in ("filters.0", "filters.1"):
        plain.parameters[name] = ternary(quantised.parameters[name])
    windows = quantised.prepare([windows_of(9, 1), windows_of(9, 3)])
    pulls = list(np.random.default_rng(2).standard_normal((2, 9, 5), np.float32))
    ours, theirs = Gradients(), Gradients()
    quantised.backward(windows, pulls, ours)
    plain.backward(windows, pulls, theirs)
    for name, value in theirs.values.items():
        np.testing.assert_array_equal(ours.values[name], value)


def test_vector_filters_act_on_raw_input_once_frozen():
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((40, 6)).astype(np.float32) * 3 + 1
    standardiser = Standardiser.of(raw, np.ones(40, np.int64))
    filters = VectorFilters([standardiser], 5, rng)
    filters.parameters["bias.0"][:] = rng.standard_normal(5)
    weights, bias = filters.frozen(0)
    values = filters.forward([standardiser(raw)], relu=False)[0]
    np.testing.assert_allclose(values, raw @ weights + bias, rtol=1e-4, atol=1e-4)
    pull, into = rng.standard_normal((40, 5)).astype(np.float32), Gradients()
    filters.backward([standardiser(raw)], [pull], into)
    np.testing.assert_allclose(into.values["filters.0"], standardiser(raw).T @ pull, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(into.values["bias.0"], pull.sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quantise", [False, True])
def test_settled_vector_filters_pass_the_same_and_leave_the_others_as_they_are(quantise):
    rng = np.random.default_rng(0)
    filters = VectorFilters([Standardiser.none(6), Standardiser.none(4)], 3, rng, quantise)
    before = {name: values.copy() for name, values in filters.parameters.items()}
    windows = [rng.standard_normal((5, size)).astype(np.float32) for size in (6, 4)]
    settled = filters.settled()
    for one, other in zip(settled.forward(windows, relu=False), filters.forward(windows, relu=False), strict=True):
        np.testing.assert_array_equal(one, other)
    if quantise:
        np.testing.assert_allclose(settled.parameters["filters.0"], naive.ternary(before["filters.0"]), rtol=1e-5)
    for name, values in filters.parameters.items():
        np.testing.assert_array_equal(values, before[name])


def test_standardisers():
    rng = np.random.default_rng(0)
    rows, counts = rng.standard_normal((6, 3)).astype(np.float32), np.array([1, 0, 4, 2, 3, 1])
    copies = np.repeat(rows, counts, axis=0).astype(np.float64)
    standardiser = Standardiser.of(rows, counts)
    variance = copies.var(0)
    np.testing.assert_allclose(standardiser.mean, copies.mean(0), rtol=1e-5)
    np.testing.assert_allclose(standardiser.scale, 1 / np.sqrt(variance + 1e-3 * variance.mean()), rtol=1e-5)
    np.testing.assert_array_equal(Standardiser.none(3)(rows), rows)
    constant = Standardiser.of(np.ones((2, 3), np.float32), np.array([1, 1]))(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(constant, 0)


def test_ternary():
    weights = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
    np.testing.assert_allclose(ternary(weights), naive.ternary(weights), rtol=1e-5)
    assert not ternary(np.zeros((3, 2), np.float32)).any()


@pytest.mark.parametrize("kind", [RELU, TANH, SIGN])
def test_slopes_of_activations(kind):
    before = np.array([[-2, -1, -0.5], [0, 0.5, 1], [1.5, 2, -0.25]], np.float32)
    after = naive.activated(before, {RELU: "relu", TANH: "tanh", SIGN: "sign"}[kind]).astype(np.float32)
    gradient = np.full_like(before, 3)
    activation_gradient(before, after, kind, gradient)
    if kind == SIGN:
        expected = np.where(np.abs(before) <= 1, 1.5, 0)
    elif kind == TANH:
        expected = 3 * (1 - np.tanh(before) ** 2)
    else:
        expected = np.where(before > 0, 3, 0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("signs", [1, 2, 4])
def test_signs_round_to_the_nearest_level_what_is_cut_to_one(signs):
    filters = VectorFilters([Standardiser.none(1)], 3, np.random.default_rng(0))
    filters.parameters["filters.0"][:] = 1
    filters.parameters["bias.0"][:] = (0.25, -3, 2)
    windows = (np.arange(-40, 40, dtype=np.float32) / 16 + np.float32(1 / 64))[:, None]  # never at a threshold
    ((before, after),) = activations(filters, [windows], SIGN, signs)
    np.testing.assert_allclose(before, windows + np.array([0.25, -3, 2]))
    levels = np.round((np.clip(before, -1, 1) + 1) / 2 * signs) / signs
    np.testing.assert_array_equal(after, levels)
    weights, bias = filters.frozen(0)
    biases = np.atleast_2d(sign_biases(bias, signs))
    assert biases.shape == (signs, 3)
    np.testing.assert_array_equal(naive.signs_on(windows @ weights, biases), levels)
    counted = windows @ weights
    count_signs(counted, biases)
    np.testing.assert_array_equal(counted, levels)


def test_gather_bags_gives_the_same_counts_by_segment_and_by_code():
    rng = np.random.default_rng(0)
    groups, regions, codes_known = 2, 2, 9
    lengths = rng.integers(0, 4, 5 * groups * regions)
    pointers = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    codes = np.concatenate([rng.choice(codes_known, n, replace=False) for n in lengths]).astype(np.int32)
    counts = rng.integers(1, 5, len(codes)).astype(np.int32)
    chosen = np.array([3, 0, 4])
    slots, unique = np.full(codes_known, -1, np.int32), np.empty(codes_known, np.int32)
    for group in range(groups):
        expected = np.zeros((len(chosen) * regions, codes_known))
        for j, bag in enumerate(chosen):
            for r in range(regions):
                span = bag * groups * regions + group * regions + r
                for e in range(pointers[span], pointers[span + 1]):
                    expected[j * regions + r, codes[e]] += counts[e]
        by_segment, local, weight, known, by_code, segment_of, weight_of, sites = gather_bags(
            pointers, codes, counts, chosen, groups * regions, group * regions, regions, slots, unique
        )
        forward, backward = np.zeros_like(expected), np.zeros_like(expected)
        for s in range(len(expected)):
            for e in range(by_segment[s], by_segment[s + 1]):
                forward[s, unique[local[e]]] += weight[e]
        for v in range(known):
            for e in range(by_code[v], by_code[v + 1]):
                backward[segment_of[e], unique[v]] += weight_of[e]
        np.testing.assert_array_equal(forward, expected)
        np.testing.assert_array_equal(backward, expected)
        np.testing.assert_array_equal(sites, expected.sum(1))
        assert (slots == -1).all(), "left as it was found"


def test_tokens_are_numbered_in_their_order():
    distinct, numbered = number_tokens(np.array([7, 2, 2, 9, 7], np.int32), 11)
    assert (distinct.tolist(), numbered.tolist()) == ([2, 7, 9], [1, 0, 0, 2, 1])


@pytest.mark.parametrize("names", [[], [1, 5], [0, 2, 3, 8, 9]])
@pytest.mark.parametrize("others", [[], [2, 8], [0, 1, 4, 5, 9]])
def test_named_rows_are_added_by_name(names, others):
    rng = np.random.default_rng(0)
    rows, more = (rng.standard_normal((len(own), 3)).astype(np.float32) for own in (names, others))
    total, expected = np.zeros((10, 3), np.float32), np.zeros((10, 3), np.float32)
    expected[names] += rows
    expected[others] += more
    union, sums = add_named_rows(np.array(names, np.int64), rows, np.array(others, np.int64), more)
    assert union.tolist() == sorted({*names, *others})
    total[union] = sums
    np.testing.assert_allclose(total, expected, rtol=1e-6)


@pytest.mark.parametrize(("rows_first", "first"), [(0, 2), (3, 0)])
def test_sums_of_rows_read_and_fill_some_columns(rows_first, first):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((6, 4 + rows_first)).astype(np.float32)
    pointers, indexes = np.array([0, 2, 2, 5], np.int32), np.array([1, 5, 0, 2, 1], np.int32)
    weights = rng.random(5).astype(np.float32)
    out = np.full((3, 4 + first), 9, np.float32)
    sum_rows(pointers, indexes, weights, rows, rows_first, out, first)
    for s in range(3):
        expected = sum(weights[e] * rows[indexes[e], rows_first:] for e in range(pointers[s], pointers[s + 1]))
        np.testing.assert_allclose(out[s, first:], expected + np.zeros(4), rtol=1e-5)
    assert (out[:, :first] == 9).all(), "the others are left"
