"""Training on bags against convolutions over the sequences themselves, without any counting."""

from itertools import pairwise

import numpy as np
import pytest

from seqbag.bags import Bags
from seqbag.classifier import Classifier
from seqbag.codebook import ExactCodebook
from seqbag.filters import Gradients, TokenFilters, VectorFilters
from seqbag.head import EpochReport, Head, Schedule, _Labels, _Piece
from seqbag.layer import Maps
from seqbag.parallel import Workers
from seqbag.passes import LayerCounts
from seqbag.patches import Patcher
from seqbag.recency import STRATA
from seqbag.regions import Regions
from tests import naive

WIDTHS = (1, 3)


def counts_of(sequences, labels, tails=(), held=None):
    """Sequences of embedding rows, counted in one pass."""
    regions = Regions("tail", tails) if tails else Regions("whole")
    bags, held_out = (Bags(len(WIDTHS), regions.count()) for _ in range(2))
    patchers = tuple(Patcher((width,), (1,), "same") for width in WIDTHS)
    counts = LayerCounts(patchers, [ExactCodebook(width, 1 << 16) for width in WIDTHS], regions, bags, held_out)
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
    maps = Maps(np.array([t for s in sequences for t in s], np.int32), offsets)
    n = len(sequences)
    counts.update(
        maps, np.array(labels, np.int32), np.zeros(n, np.bool_) if held is None else held, np.empty((n, 0), np.float16)
    )
    return counts


def head_of(counts, filters=3, classes=3, tokens=6, dims=3, hidden=4, activation="relu", seed=0, workers=None):
    rng, workers = np.random.default_rng(seed), workers or Workers(1)
    classifier = Classifier(counts.regions.count() * (filters * len(WIDTHS) + 1), hidden, classes, rng)
    made = TokenFilters(tokens, dims, WIDTHS, filters, rng, quantise=activation == "sign")
    for group in range(len(WIDTHS)):  # unknown tokens and padding are nought: no value may stand at the bend of relu
        made.parameters[f"bias.{group}"][...] = rng.uniform(0.1, 0.5, filters)
    windows = [book.windows for book in counts.codebooks]
    return Head(windows, made, classifier, counts.regions, activation, workers)


def gradients_of(head, bags, chosen, target, weight):
    return head._gradients(_Piece(len(chosen), target, weight, head._gather(bags, chosen)), 1.0)


def random_sequences(n, tokens=6, most=7, seed=0):
    rng = np.random.default_rng(seed)
    found = {tuple(rng.integers(1, tokens, rng.integers(0, most)).tolist()): None for _ in range(4 * n)}
    return [list(sequence) for sequence in found][:n]


def wide(head):
    parameters = {**head.filters.parameters, **head.classifier.parameters}
    return {name: value.astype(np.float64) for name, value in parameters.items()}


@pytest.mark.parametrize("tails", [(), (4, 1)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sign"])
def test_features_are_those_of_a_convolution(activation, tails):
    sequences = random_sequences(20)
    assert [] in sequences
    counts = counts_of(sequences, [0] * 20, tails)
    head = head_of(counts, activation=activation)
    parameters = wide(head)
    if activation == "sign":
        parameters["embedding"] = np.sign(parameters["embedding"])
        for group in range(len(WIDTHS)):
            parameters[f"filters.{group}"] = naive.ternary(parameters[f"filters.{group}"])
    chosen = np.array([5, 0, 19, 7])
    expected = naive.head_features(parameters, [sequences[i] for i in chosen], tails, activation)
    np.testing.assert_allclose(head.features(counts.bags, chosen), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(("tails", "hidden"), [((), 4), ((2,), 4), ((2,), 0)])
def test_gradients_match_finite_differences(activation, tails, hidden):
    sequences = random_sequences(12)
    labels = [i % 3 for i in range(12)]
    counts = counts_of(sequences, labels, tails)
    head = head_of(counts, activation=activation, hidden=hidden)
    class_weights = np.array([0.5, 1.0, 1.5], np.float32)
    target = _Labels(counts.bags, 3, class_weights, 0.2).batch(np.arange(12, dtype=np.int32))[1]
    weight = np.random.default_rng(1).random(12).astype(np.float32) + np.float32(0.5)
    loss, gradients, _ = gradients_of(head, counts.bags, np.arange(12), target, weight)
    parameters = wide(head)
    one_hot = np.eye(3)[labels]
    expected_target = class_weights[labels][:, None] * (0.8 * one_hot + 0.2 / 3)
    np.testing.assert_allclose(target, expected_target, rtol=1e-5)

    def total(name, values):
        changed = parameters | {name: values}
        features = naive.standardised(naive.head_features(changed, sequences, tails, activation), weight)
        return naive.cross_entropy(naive.head_logits(changed, features), expected_target, weight.astype(np.float64))

    assert np.isclose(loss, total("out_bias", parameters["out_bias"]) * 12 / weight.sum(), rtol=1e-4)
    assert set(gradients.values) == set(parameters)
    for name, values in parameters.items():
        slopes = naive.slopes(lambda changed, name=name: total(name, changed), values)
        given = gradients.values[name]
        if name == "embedding":
            dense = np.zeros_like(slopes)
            dense[gradients.rows[name]] = given
            given, slopes[:2] = dense, 0  # padding and unknown tokens stay nought
        error = np.linalg.norm(given - slopes) / np.linalg.norm(slopes)
        assert error < 2e-3, name


def test_a_bag_trains_as_the_rows_it_stands_for():
    sequences = random_sequences(4)
    rows, labels = [0, 1, 1, 1, 2, 3, 3], [0, 1, 1, 2, 2, 0, 1]
    counts = counts_of([sequences[i] for i in rows], labels)
    assert (counts.bags.size, counts.bags.rows) == (4, 7)
    given = _Labels(counts.bags, 3, np.ones(3, np.float32), 0.1)
    _, merged, _ = gradients_of(head_of(counts), counts.bags, *given.batch(given.order(np.random.default_rng(0))))
    one_hot = (0.9 * np.eye(3)[labels] + 0.1 / 3).astype(np.float32)
    _, apart, _ = gradients_of(head_of(counts), counts.bags, np.array(rows), one_hot, np.ones(7, np.float32))
    for name, value in apart.values.items():
        np.testing.assert_allclose(merged.values[name], value, rtol=1e-3, atol=1e-5)


def test_an_epoch_visits_every_row_once():
    sequences = random_sequences(5)
    counts = counts_of([sequences[i] for i in (0, 1, 1, 2, 2, 2, 3, 4)], [0, 0, 1, 2, 2, 0, 1, 1])
    labels = _Labels(counts.bags, 3, np.ones(3, np.float32), 0.0)
    assert labels.visits == 8
    seen = np.zeros(5)
    order = labels.order(np.random.default_rng(0))
    for visits in np.array_split(order, 3):
        chosen, _, weight = labels.batch(visits)
        assert len(set(chosen.tolist())) == len(chosen)
        seen[chosen] += weight * len(visits) / len(chosen)  # the loss is a mean over the bags of a step
    np.testing.assert_allclose(seen, [1, 2, 3, 1, 1], rtol=1e-6)
    _, target, _ = labels.batch(order)
    np.testing.assert_allclose(target, [[1, 0, 0], [0.5, 0.5, 0], [1 / 3, 0, 2 / 3], [0, 1, 0], [0, 1, 0]], rtol=1e-6)


def test_rows_that_weigh_more_are_no_more_visits():
    """Of 40 bags of a row each, a fifth weigh 32 times as much: each visit then stands for seven, in the mean."""
    counts = counts_of([[1 + i] * 2 for i in range(40)], [i % 5 * STRATA + i % 3 for i in range(40)])
    counts.bags.weigh(np.repeat([1, 1, 32], [1, 1, STRATA - 2]))
    weights = counts.bags.weights()
    assert (counts.bags.rows, counts.bags.visits) == (weights.sum(), 40)
    labels = _Labels(counts.bags, 5, np.ones(5, np.float32), 0.0)
    assert 40 <= labels.visits < 80, "each bag once at least"
    order = labels.order(np.random.default_rng(0))
    chosen, _, weight = labels.batch(order)
    seen = weight * labels.visits / len(chosen)
    np.testing.assert_allclose(seen[chosen], weights * labels.visits / weights.sum(), rtol=1e-6)


def test_bags_are_mixed_by_twos():
    """Three quarters of each and a quarter of the one before, in features, labels and weights alike."""
    features = np.array([[1, 2], [3, 4], [5, 8]], np.float16)
    bags = Bags(0, 1, 2)
    none = np.empty(0, np.int32)
    bags.update(np.empty((0, 0), np.int32), none, np.zeros(4, np.int64), np.array([0, 1, 1], np.int32), features)
    rng = np.random.default_rng(0)
    classifier = Classifier(2, 0, 2, rng)
    with Workers(1) as workers:
        head = Head([], VectorFilters([], 0, rng), classifier, Regions("whole"), "relu", workers)
        labels = _Labels(bags, 2, np.ones(2, np.float32), 0.0)
        plain, mixed = (head._cut(bags, labels, np.arange(3, dtype=np.int32), share) for share in (1.0, 0.75))
        np.testing.assert_array_equal(plain.gathered.dense, features)
        np.testing.assert_array_equal(mixed.gathered.dense, [[2, 3.5], [2.5, 3.5], [4.5, 7]])
        np.testing.assert_array_equal(mixed.target, [[0.75, 0.25], [0.25, 0.75], [0, 1]])
        np.testing.assert_array_equal(mixed.weight, [1, 1, 1])
        schedule = Schedule(3, 3, 0.01)
        learned = []
        for mixup in (0.0, 0.4, 0.4):
            head.classifier = Classifier(2, 0, 2, np.random.default_rng(0))
            weights = np.ones(2, np.float32)
            head.fit(bags, bags, schedule, np.random.default_rng(1), weights, 0.0, 0.0, mixup=mixup)
            learned.append(head.classifier.parameters["out"])
    np.testing.assert_array_equal(learned[1], learned[2])
    assert not np.array_equal(learned[0], learned[1])


def toy(n, seed=0):
    """Class 1 where token 3 is followed by token 4 somewhere: a width of 3 sees it, single tokens do not."""
    rng = np.random.default_rng(seed)
    sequences, labels = [], []
    for i in range(n):
        sequence = rng.integers(1, 9, 10).tolist()
        for at in range(9):
            if sequence[at : at + 2] == [3, 4]:
                sequence[at + 1] = 5
        at = int(rng.integers(0, 9))
        sequence[at : at + 2] = [3, 4] if i % 2 else [4, 3]
        sequences.append(sequence)
        labels.append(int(any(pair == (3, 4) for pair in pairwise(sequence))))
    return sequences, labels


def fitted(counts, seed=0, threads=1, reports=None):
    rng = np.random.default_rng(seed)
    with Workers(threads) as workers:
        head = head_of(counts, filters=40, classes=2, tokens=9, dims=8, hidden=16, seed=seed, workers=workers)
        schedule = Schedule(25, 600, 0.03)
        head.fit(
            counts.bags, counts.held_out, schedule, rng, np.ones(2, np.float32), 0.05, 1e-3,
            None if reports is None else reports.append,
        )  # fmt: skip
        accuracy = head.accuracy(counts.held_out)
        head.calibrate(counts.bags, 500, rng)
    return accuracy, head


def bytes_of(head):
    values = {**head.filters.parameters, **head.classifier.parameters}
    values |= {"mean": head.classifier.mean, "variance": head.classifier.variance}
    return {name: value.tobytes() for name, value in values.items()}


def test_fit_learns_on_any_number_of_threads_and_is_seeded():
    sequences, labels = toy(1500)
    held = np.arange(1500) % 5 == 0
    counts = counts_of(sequences, labels, held=held)
    reports: list[EpochReport] = []
    accuracy, head = fitted(counts, reports=reports)
    assert accuracy > 0.95
    assert head.accuracy(counts.held_out, batch=7) > 0.95
    assert [report.epoch for report in reports] == list(range(1, 26))
    assert reports[-1].loss < reports[0].loss
    assert reports[-1].accuracy == accuracy
    first = bytes_of(head)
    assert bytes_of(fitted(counts)[1]) == first
    assert bytes_of(fitted(counts, threads=2)[1]) == first
    assert bytes_of(fitted(counts, seed=1)[1]) != first


def test_a_step_averages_the_gradients_of_its_pieces():
    sequences = random_sequences(40)
    counts = counts_of([sequences[i % 40] for i in range(3000)], [i % 3 for i in range(3000)])
    labels = _Labels(counts.bags, 3, np.ones(3, np.float32), 0.0)
    visits, head = labels.order(np.random.default_rng(0)), head_of(counts)
    pieces = np.array_split(visits, 3)
    parts = [gradients_of(head, counts.bags, *labels.batch(piece)) for piece in pieces]
    expected = {
        name: np.zeros_like(value) for name, value in {**head.filters.parameters, **head.classifier.parameters}.items()
    }
    for _, gradients, _ in parts:
        for name, value in gradients.values.items():
            expected[name][gradients.rows.get(name, slice(None))] += value / 3

    class Recorder:
        """Stands where the optimiser does and keeps the gradients."""

        def start(self, parts, rate):
            self.gradients = {name: Gradients.sum(parts, name) for name in expected}
            return list

    recorder = Recorder()
    cut = [head._cut(counts.bags, labels, piece) for piece in pieces]
    loss, following = head._step(counts.bags, labels, cut, [(visits[:5], 1.0)], recorder, 0.0)
    assert [piece.visits for piece in following] == [5]
    assert np.isclose(loss, np.mean([loss for loss, _, _ in parts]))
    for name, summed in recorder.gradients.items():
        given = np.zeros_like(expected[name])
        given[summed.rows.get(name, slice(None))] = summed.values[name]
        np.testing.assert_allclose(given, expected[name], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        head.classifier.mean, 0.81 * parts[0][2].mean + 0.09 * parts[1][2].mean + 0.1 * parts[2][2].mean, rtol=1e-5
    )


def test_accuracy_counts_rows_and_is_unknown_without_any(monkeypatch):
    sequences = random_sequences(4)
    counts = counts_of([sequences[i] for i in (0, 1, 1, 1, 2, 3)], [0, 1, 1, 2, 2, 0])
    head = head_of(counts)
    head.calibrate(counts.bags, 100, np.random.default_rng(0))
    best = head.classifier.logits(head.features(counts.bags, np.arange(4))).argmax(1)
    pairs = zip(best[[0, 1, 1, 1, 2, 3]].tolist(), [0, 1, 1, 2, 2, 0], strict=True)
    expected = sum(b == label for b, label in pairs) / 6
    assert head.accuracy(counts.bags) == head.accuracy(counts.bags, batch=1) == expected
    asked, features = [], head.features
    monkeypatch.setattr("seqbag.head._LOGITS", 7)
    monkeypatch.setattr(head, "features", lambda bags, chosen: (asked.append(len(chosen)), features(bags, chosen))[1])
    assert head.accuracy(counts.bags) == expected
    assert asked == [2, 2], "seven logits are of two bags of three classes"
    assert np.isnan(head.accuracy(counts.held_out))


def test_calibration_weighs_bags_by_their_rows():
    sequences = random_sequences(4)
    counts = counts_of([sequences[i] for i in (0, 1, 1, 1, 2, 3)], [0, 1, 1, 2, 2, 0])
    head = head_of(counts)
    head.calibrate(counts.bags, 100, np.random.default_rng(0), batch=3)
    features = head.features(counts.bags, np.array([0, 1, 1, 1, 2, 3])).astype(np.float64)
    np.testing.assert_allclose(head.classifier.mean, features.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(head.classifier.variance, features.var(0), rtol=1e-4, atol=1e-6)


def bags_that_count(rows, distinct):
    bags = Bags(1, 1)
    bags.examples, bags.size = rows, distinct
    return bags


def test_schedules_for_few_and_many_rows():
    for rows in (0, 1, 100, 5000, 700_000, 10**9):
        for distinct in {rows, -(-rows // 3), min(rows, 50)}:
            schedule = Schedule.for_bags(bags_that_count(rows, distinct))
            assert 64 <= schedule.batch <= 2048
            assert 2 <= schedule.epochs <= 20
            assert 0 < schedule.rate <= 0.02
    assert Schedule.for_bags(bags_that_count(5000, 5000), epochs=3).epochs == 3


def test_a_step_takes_more_of_rows_that_repeat():
    batches = [Schedule.for_bags(bags_that_count(17_000, 17_000 // repeats)).batch for repeats in (1, 2, 4, 16, 10_000)]
    assert batches == [128, 128, 256, 512, 1024]  # sixteen steps an epoch are left
    assert Schedule.for_bags(bags_that_count(10**7, 10)).batch == 2048
    assert Schedule.for_bags(bags_that_count(500, 2)).batch == 64
