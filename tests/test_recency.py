"""Rows by age: strata of row numbers, what they weigh, and processes that change while they are logged."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag.bags import Bags
from seqbag.config import TrainConfig
from seqbag.fitting import Fitter
from seqbag.network import Network
from seqbag.parallel import Workers
from seqbag.recency import STRATA, alike, by_stratum, foresight, newer_more, newest, rows_of_strata, strata
from seqbag.statistics import ShardStatistics, merged, train_statistics
from seqbag.store import to_bytes
from seqbag.trainer import train
from tests.memory import MemorySource, Notes, text_column

CONFIG = TrainConfig(filters=(8,), dims=8, hidden=8, windows=(1,), regions="whole", vocabulary=64, epochs=3)
COLUMNS = {"kind": "text", "input": "message", "label": "label"}
ROWS = 8_000


def changing(order=None):
    """A state that is followed by another one since three fifths of the rows: the older way is the commoner one."""
    rng = np.random.default_rng(0)
    states = rng.integers(0, 2, ROWS)
    follows = np.where(np.arange(ROWS) < 0.6 * ROWS, states, 1 - states)
    order = np.arange(ROWS) if order is None else order
    texts = [("raised", "waiting")[state] for state in states[order]]
    return MemorySource("text", (texts, [("solved", "closed")[label] for label in follows[order]]))


def what_follows(trained):
    """The classes predicted after either state."""
    best = trained.network.probabilities(text_column(["raised", "waiting"])).argmax(1)
    return [trained.network.classes[at] for at in best]


@settings(max_examples=50)
@given(st.integers(0, 10**9), st.integers(1, 3000), st.integers(0, 3000))
def test_strata_are_of_the_row_number_alone_and_rise(first, rows, split):
    split = min(split, rows)
    whole = strata(first, rows)
    assert whole[0] >= 0
    assert whole[-1] < STRATA
    assert (np.diff(whole) >= 0).all()
    np.testing.assert_array_equal(np.concatenate([strata(first, split), strata(first + split, rows - split)]), whole)


@pytest.mark.parametrize("rows", [100, 4096, 4097, 1_000_000])
def test_the_newest_stratum_is_a_sixth_at_most(rows):
    held = np.bincount(strata(0, rows), minlength=STRATA)
    assert 0 < held[held > 0][-1] <= 0.17 * rows
    left = held[newest(held) > 0].sum()
    assert 0.1 * rows <= left <= 0.32 * rows


def test_weights_fall_with_the_square_of_the_share_of_rows_that_are_newer():
    rows = np.zeros(STRATA, np.int64)
    rows[10:20] = 100
    expected = [round((1.03 / (newer + 0.03)) ** 2) for newer in np.arange(0.95, 0, -0.1)]
    assert newer_more(rows)[10:20].tolist() == expected
    assert (expected[0], expected[-1]) == (1, 166)
    weights = newer_more(np.bincount(strata(0, 10**6), minlength=STRATA))
    assert (np.diff(weights) >= 0).all(), "newer ones never less"
    assert len(set(newer_more(np.zeros(STRATA, np.int64)).tolist())) == 1, "no rows weigh alike"


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), max_size=60))
def test_weighing_counts_each_row_as_often_as_its_stratum_says(examples):
    weights = np.ones(STRATA, np.int64)
    weights[:4] = [1, 2, 3, 8]
    bags, expected = bags_of(examples), {}
    for code, label, stratum in examples:
        expected[code, label] = expected.get((code, label), 0) + int(weights[stratum])
    np.testing.assert_array_equal(
        rows_of_strata(bags), np.bincount([s for _, _, s in examples], minlength=STRATA).astype(np.int64)
    )
    bags.weigh(weights)
    pointers, labels, counts = bags.label_counts()
    found = {
        (int(bags.codes[bag]), int(labels[node])): int(counts[node])
        for bag in range(bags.size)
        for node in range(pointers[bag], pointers[bag + 1])
    }
    assert found == expected
    assert (bags.rows, bags.examples) == (sum(expected.values()), len(examples))
    half = bags.sample(bags.size // 2, np.random.default_rng(0))
    assert half.examples == round(half.rows / max(bags.rows, 1) * len(examples)), "they weigh as those of all"


def test_a_table_sorted_by_class_is_in_no_order_of_time():
    """Rows of one text, of which the older half is of one class and the newer of another."""
    found = foresight(bags_of([(0, 0, 5)] * 1000 + [(0, 1, 9)] * 300 + [(0, 1, 10)] * 600))
    assert (found.rows, found.alike, found.newer_more, found.clear) == (600, 0, 1, False)


def test_labels_are_told_apart_by_stratum():
    labels = by_stratum(np.array([0, 1, 2], np.int32), 4)
    np.testing.assert_array_equal(labels // STRATA, [0, 1, 2])
    np.testing.assert_array_equal(labels % STRATA, strata(4, 3))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_changed_process_is_predicted_as_it_is_now(layers):
    notes, config = Notes(), dataclasses.replace(CONFIG, layers=layers)
    assert what_follows(train(changing(), config, notes)) == ["closed", "solved"]
    (told,) = notes.about("recency")
    assert told.endswith("predict 0.0000, and 1.0000 if newer ones weigh more, as they do now")
    assert what_follows(train(changing(), dataclasses.replace(config, recency=False))) == ["solved", "closed"]


def test_it_is_chosen_before_bags_are_clustered_on_request(monkeypatch):
    """Rows of a cluster are not equal: of the DGA domains, their clusters would tell that newer rows weigh more."""
    choose, seen = Fitter.choose_past, []

    def chosen(fitter, counts, network):
        seen.append(counts.bags.clustered)
        return choose(fitter, counts, network)

    monkeypatch.setattr(Fitter, "choose_past", chosen)
    texts = [f"a{number % 40} b{number % 7} c{number % 3}" for number in range(1000)]
    source = MemorySource("text", (texts, [("even", "odd")[len(text) % 2] for text in texts]))
    config = dataclasses.replace(CONFIG, bag_clusters=20)
    for trained in (train(source, config), train_statistics(ShardStatistics.count(source, config, texts=True))):
        assert trained.layers[0].clusters == 20
    assert seen == [False, False]


def test_of_bags_clustered_to_fit_the_memory_newer_rows_weigh_no_more():
    source, notes = changing(), Notes()
    shard = ShardStatistics.count(source, CONFIG)
    shard.counts.bags.clustered = True
    with Workers(1) as workers:
        fitter = Fitter(CONFIG, np.random.default_rng(0), workers, notes)
        counts, times = fitter.choose_past(shard.counts, Network(CONFIG, ("closed", "solved"), None))
        assert (counts is shard.counts, times.tolist(), notes.texts) == (True, alike().tolist(), [])


def test_rows_in_no_order_weigh_alike():
    notes = Notes()
    order = np.random.default_rng(1).permutation(ROWS)
    assert what_follows(train(changing(order), CONFIG, notes)) == ["solved", "closed"]
    assert notes.about("recency") == []


def bags_of(examples):
    """Bags of one code each, from (code, class, stratum) of rows."""
    bags = Bags(1, 1)
    for code, label, stratum in examples:
        one, ends = np.array([[code]], np.int32), np.array([0, 1], np.int64)
        bags.update(one, np.zeros(1, np.int32), ends, np.array([label * STRATA + stratum], np.int32))
    return bags


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=80))
def test_foresight_is_a_look_up_of_equal_rows(examples):
    rows = np.bincount([stratum for _, _, stratum in examples], minlength=STRATA)
    tested = newest(rows)
    new = [row for row in examples if tested[row[2]]]
    old = [row for row in examples if not tested[row[2]]]
    found = foresight(bags_of(examples))
    asked = [row for row in new if any(code == row[0] for code, _, _ in old)]
    assert found.rows == len(asked)
    assert not found.clear, "few rows tell nothing"
    for weights, share in ((alike(), found.alike), (newer_more(rows * (1 - tested)), found.newer_more)):
        least = most = 0  # right, however ties are broken
        for code, label, _ in asked:
            score = [sum(weights[s] for c, n, s in old if (c, n) == (code, name)) for name in range(3)]
            most += score[label] == max(score)
            least += score[label] == max(score) and score.count(max(score)) == 1
        assert least <= round(share * len(asked)) <= most


@pytest.mark.parametrize(("now", "clear"), [(280, False), (330, True)])
def test_newer_rows_must_be_clearly_better(now, clear):
    """Newer rows predict the other class than older ones; of the 560 newest, `now` are of that."""
    old = [(0, 0, 1)] * 650 + [(0, 1, 9)] * 450
    examples = old + [(0, 1, 10)] * now + [(0, 0, 10)] * (560 - now)
    found = foresight(bags_of(examples))
    assert found.rows == 560
    assert found.clear == clear


def test_shards_of_a_changed_process_give_the_model_of_one_pass():
    (texts, labels), parts = changing()._passes[0], []
    for start, stop in ((0, 3000), (3000, ROWS)):
        part = MemorySource("text", (texts[start:stop], labels[start:stop]))
        parts.append(ShardStatistics.count(part, CONFIG, texts=True, first_row=start))
    trained = train_statistics(merged(parts))
    assert what_follows(trained) == ["closed", "solved"]
    assert to_bytes(trained.model(COLUMNS)) == to_bytes(train(changing(), CONFIG).model(COLUMNS))
