"""Metrics against their formulas, and their laws."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seqbag.metrics import Metrics
from tests import naive

CLASSES = ("a", "b", "c", "d")


@st.composite
def predictions(draw: st.DrawFn, unknown: bool = True) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(0, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    probabilities = rng.dirichlet(np.full(len(CLASSES), 0.3), n).astype(np.float32)
    return rng.integers(-1 if unknown else 0, draw(st.integers(1, 4)), n).astype(np.int32), probabilities


def counted(*batches: tuple[np.ndarray, np.ndarray]) -> Metrics:
    metrics = Metrics(CLASSES)
    for labels, probabilities in batches:
        metrics.update(labels, probabilities)
    return metrics


def same(a: Metrics, b: Metrics) -> bool:
    counts = ((getattr(a, name), getattr(b, name)) for name in ("labelled", "predicted", "right"))
    return all(np.array_equal(*pair) for pair in counts) and a.log_loss_units == b.log_loss_units


@given(predictions(unknown=False).filter(lambda case: len(case[0])))
def test_figures_match_the_formulas(case):
    labels, probabilities = case
    metrics = counted(case)
    predicted = probabilities.argmax(1).tolist()
    n = len(labels)
    assert metrics.rows == n
    assert metrics.accuracy == sum(t == p for t, p in zip(labels, predicted, strict=True)) / n
    assert math.isclose(metrics.macro_f1, naive.macro_f1(labels.tolist(), predicted))
    losses = [-math.log(max(float(p[t]), 1e-15)) for t, p in zip(labels, probabilities, strict=True)]
    assert math.isclose(metrics.log_loss, sum(losses) / n, rel_tol=1e-6, abs_tol=1e-9)
    assert set(metrics.per_class()) == {CLASSES[c] for c in {*labels.tolist(), *predicted}}


def test_a_table_by_hand():
    probabilities = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 0]]
    metrics = counted((np.array([0, 1, 1, 1, -1], np.int32), probabilities))
    assert metrics.per_class() == {
        "a": {"precision": 1 / 3, "recall": 1.0, "f1": 2 / 4, "rows": 1},
        "b": {"precision": 1.0, "recall": 2 / 3, "f1": 4 / 5, "rows": 3},
    }
    assert (metrics.rows, metrics.unknown, metrics.accuracy) == (5, 1, 3 / 5)
    assert math.isclose(metrics.macro_f1, (0.5 + 0.8 + 0) / 3), "labels never seen are a class of F1 0"
    assert math.isclose(metrics.log_loss, -math.log(1e-15) / 4, rel_tol=1e-6)


@given(predictions(), predictions(), predictions())
def test_merging_is_counting_everything_at_once(a, b, c):
    left = counted(a)
    left.merge(counted(b))
    left.merge(counted(c))
    tail = counted(c)
    tail.merge(counted(b))
    right = tail.empty()
    right.merge(tail)
    right.merge(counted(a))
    assert same(left, right)
    assert same(left, counted(a, b, c))


def test_no_rows():
    metrics = counted()
    assert (metrics.rows, metrics.accuracy, metrics.macro_f1, metrics.log_loss, metrics.per_class()) == (0, 0, 0, 0, {})
