"""Bags against counters of counters."""

import copy
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag import bagclusters
from seqbag.bagclusters import cluster_bags
from seqbag.bags import Bags
from seqbag.errors import UsageError
from tests import naive


@st.composite
def examples(draw: st.DrawFn) -> dict:
    """Ragged examples of few codes, so that bags repeat, under labels that differ."""
    lengths = draw(st.lists(st.integers(0, 5), max_size=12))
    groups, regions, width = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sites, most = sum(lengths), draw(st.integers(1, 3))
    return {
        "codes": rng.integers(0, most, (groups, sites)).astype(np.int32),
        "segments": rng.integers(0, regions, sites).astype(np.int32),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "labels": rng.integers(0, 3, len(lengths)).astype(np.int32),
        "dense": rng.integers(0, 2, (len(lengths), width)).astype(np.float16),
        "regions": regions,
    }


def empty_bags(case: dict) -> Bags:
    return Bags(len(case["codes"]), case["regions"], case["dense"].shape[1])


def update(bags: Bags, case: dict, start: int = 0, stop: int | None = None) -> None:
    stop = len(case["labels"]) if stop is None else stop
    first, last = case["offsets"][start], case["offsets"][stop]
    bags.update(
        np.ascontiguousarray(case["codes"][:, first:last]),
        case["segments"][first:last],
        case["offsets"][start : stop + 1] - first,
        case["labels"][start:stop],
        case["dense"][start:stop],
    )


def content(bags: Bags) -> list[tuple]:
    """Per bag: its entries, its dense features, and the labels counted under it."""
    pointers, classes, counts = bags.label_counts()
    out = []
    for bag in range(bags.size):
        entries = {}
        for span in range(bags.spans):
            start, stop = bags.pointers[bag * bags.spans + span : bag * bags.spans + span + 2]
            codes = bags.codes[start:stop].tolist()
            assert codes == sorted(set(codes)), "each code once, in order"
            for code, count in zip(codes, bags.counts[start:stop].tolist(), strict=True):
                entries[span // bags.regions, span % bags.regions, code] = count
        nodes = slice(pointers[bag], pointers[bag + 1])
        labels = dict(zip(classes[nodes].tolist(), counts[nodes].tolist(), strict=True))
        assert list(labels) == sorted(labels)
        out.append((frozenset(entries.items()), tuple(bags.dense[bag].tolist()), labels))
    return out


def expected(case: dict, segments: np.ndarray | None = None) -> list[tuple]:
    found: dict[tuple, Counter] = {}
    codes, at = case["codes"].tolist(), (case["segments"] if segments is None else segments).tolist()
    for i, (first, last) in enumerate(itertools.pairwise(case["offsets"].tolist())):
        key = naive.bag_of(codes, at, first, last), tuple(case["dense"][i].tolist())
        found.setdefault(key, Counter())[int(case["labels"][i])] += 1
    return [(*key, dict(labels)) for key, labels in found.items()]


def summed(bags: list[tuple]) -> dict:
    """Labels by bag, whether or not equal bags are merged."""
    total: dict[tuple, Counter] = {}
    for entries, dense, labels in bags:
        total.setdefault((entries, dense), Counter()).update(labels)
    return total


@settings(max_examples=150)
@given(examples())
def test_counts_match_the_oracle(case):
    bags = empty_bags(case)
    update(bags, case)
    assert content(bags) == expected(case)
    assert bags.rows == len(case["labels"])
    assert bags.pointers[-1] == len(bags.codes) == len(bags.counts)
    assert bags.counts.sum() == sum(count for entries, _, _ in content(bags) for _, count in entries)


@settings(max_examples=60)
@given(examples(), st.data())
def test_batches_do_not_matter_nor_copies_between_them(case, data):
    whole, parts = empty_bags(case), empty_bags(case)
    update(whole, case)
    n = len(case["labels"])
    edges = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    for start, stop in itertools.pairwise([0, *edges, n]):
        before, parts = parts, copy.deepcopy(parts)
        held = content(before)
        update(parts, case, start, stop)
        assert content(before) == held, "nothing is shared"
    for name in ("pointers", "codes", "counts", "dense"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    for a, b in zip(whole.label_counts(), parts.label_counts(), strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=60)
@given(examples())
def test_coarsening_is_counting_with_one_region(case):
    bags = empty_bags(case)
    update(bags, case)
    coarse = copy.deepcopy(bags)
    coarse.coarsen()
    assert (coarse.regions, coarse.groups, coarse.rows) == (1, bags.groups, bags.rows)
    assert summed(content(coarse)) == summed(expected(case, np.zeros_like(case["segments"])))
    assert content(bags) == expected(case), "the copy shares nothing with the bags it was made of"


@settings(max_examples=30)
@given(examples())
def test_relabelling_renames_the_classes(case):
    bags, renamed = empty_bags(case), empty_bags(case)
    update(bags, case)
    numbers = np.array([2, 0, 1], np.int32)
    bags.relabel(numbers)
    update(renamed, {**case, "labels": numbers[case["labels"]]})
    assert content(bags) == content(renamed)


def test_many_bags_outgrow_the_tables():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 70, 3000)  # some longer than what is sorted by insertion
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    case = {
        "codes": rng.integers(0, 2**31 - 1, (1, offsets[-1]), dtype=np.int32),
        "segments": rng.integers(0, 2, offsets[-1]).astype(np.int32),
        "offsets": offsets,
        "labels": rng.integers(0, 3, 3000).astype(np.int32),
        "dense": np.empty((3000, 0), np.float16),
        "regions": 2,
    }
    bags = empty_bags(case)
    for start in range(0, 3000, 500):
        update(bags, case, start, start + 500)
    again = {**case, "labels": np.full(3000, 7, np.int32)}
    update(bags, again)
    merged = summed(expected(case))
    assert bags.size == len(merged)
    assert bags.rows == 6000
    assert bags.nbytes >= bags.codes.nbytes + bags.counts.nbytes
    for entries, dense, labels in content(bags):
        seen = merged[entries, dense]
        assert labels == {**seen, 7: sum(seen.values())}


def test_empty_bags_are_empty():
    bags = Bags(2, 3, 4).empty()
    assert (bags.groups, bags.regions, bags.width, bags.size, bags.rows) == (2, 3, 4, 0, 0)
    assert content(bags) == []
    bags.coarsen()
    assert content(bags) == []


def test_what_does_not_fit_is_refused():
    bags = Bags(2, 1, 3)
    with pytest.raises(UsageError) as error:
        bags.update(np.zeros((1, 1), np.int32), np.zeros(1, np.int32), np.array([0, 1]), np.zeros(1, np.int32))
    assert str(error.value) == "1 groups and (1, 0) features do not fit these bags"
    assert bags.size == 0


@settings(max_examples=50)
@given(examples(), st.integers(1, 8), st.integers(0, 3))
def test_a_sample_holds_some_of_the_bags_with_their_labels(case, most, seed):
    bags = empty_bags(case)
    update(bags, case)
    before = content(bags)
    part = bags.sample(most, np.random.default_rng(seed))
    assert part.size == min(most, bags.size)
    assert all(bag in before for bag in content(part))
    assert content(bags) == before, "what was sampled from is as it was"


@settings(max_examples=50)
@given(examples(), st.integers(1, 4))
def test_merging_clusters_keeps_every_label(case, clusters):
    bags = empty_bags(case)
    update(bags, case)
    if bags.size == 0:
        return
    before, rows = content(bags), bags.rows
    totals = np.bincount(bags.label_counts()[1], bags.label_counts()[2], minlength=3)
    owners = np.arange(bags.size, dtype=np.int64) % clusters
    kept = np.unique(owners, return_index=True)[1].astype(np.int64)
    bags.merge_into(kept, owners)
    assert (bags.size, bags.rows, bags.clustered) == (len(kept), rows, True)
    assert np.array_equal(np.bincount(bags.label_counts()[1], bags.label_counts()[2], minlength=3), totals)
    assert np.array_equal(bags.label_rows(3), totals)
    assert [bag[:2] for bag in content(bags)] == [bag[:2] for bag in before[: len(kept)]]


def test_many_labels_of_a_bag_are_listed_by_class():
    rng = np.random.default_rng(4)
    codes, labels = rng.integers(0, 3, 2000).astype(np.int32), rng.integers(0, 300, 2000).astype(np.int32)
    bags = Bags(1, 1)
    bags.update(codes[None], np.zeros(2000, np.int32), np.arange(2001), labels)
    counted = {code: Counter(labels[codes == code].tolist()) for code in range(3)}
    assert [found for *_, found in content(bags)] == [counted[code] for code in dict.fromkeys(codes.tolist())]


def test_bag_clusters_hold_like_bags_of_one_class():
    rng = np.random.default_rng(3)
    lengths = np.full(400, 12)
    kinds = rng.integers(0, 4, 400)
    codes = np.repeat(kinds, lengths) * 20 + rng.integers(0, 20, lengths.sum())
    bags = Bags(1, 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    bags.update(codes[None].astype(np.int32), np.zeros(lengths.sum(), np.int32), offsets, kinds.astype(np.int32))
    cluster_bags(bags, 20, rng)
    pointers, classes, _ = bags.label_counts()
    assert (bags.size, bags.rows) == (20, 400)
    assert np.all(np.diff(pointers) == 1), "no cluster mixes kinds that share no window"
    for bag in range(bags.size):
        assert np.all(bags.codes[bags.pointers[bag] : bags.pointers[bag + 1]] // 20 == classes[bag])


def test_clusters_go_by_the_class_where_labels_are_told_apart_further():
    rng, content_of = np.random.default_rng(3), []
    codes, kinds = rng.integers(0, 60, (200, 5)).astype(np.int32), rng.integers(0, 4, 200).astype(np.int32)
    for strata in (1, 7):
        bags = Bags(1, 1)
        labels = kinds * strata + np.arange(200, dtype=np.int32) % strata
        bags.update(codes.reshape(1, -1), np.zeros(1000, np.int32), np.arange(201) * 5, labels)
        cluster_bags(bags, 20, np.random.default_rng(0), strata=strata)
        counted = [Counter({label // strata: 0 for label in found}) for *_, found in content(bags)]
        for total, (*_, found) in zip(counted, content(bags), strict=True):
            for label, count in found.items():
                total[label // strata] += count
        content_of.append([(*bag[:2], total) for bag, total in zip(content(bags), counted, strict=True)])
    assert content_of[0] == content_of[1]


@pytest.mark.parametrize("clusters", [3, 11, 14, 20, 37, 64])
@pytest.mark.parametrize("seed", range(4))
def test_clusters_of_one_stretch_are_not_those_of_the_next(clusters, seed, monkeypatch):
    monkeypatch.setattr(bagclusters, "_STRETCH", 400)
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, 1200)
    kinds = np.minimum(rng.geometric(0.3, 1200), 9)  # many of a few kinds, few of many: small cells beside large ones
    codes = np.repeat(kinds, lengths) * 20 + rng.integers(0, 20, lengths.sum())
    bags = Bags(1, 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    bags.update(codes[None].astype(np.int32), np.zeros(lengths.sum(), np.int32), offsets, kinds.astype(np.int32))
    cluster_bags(bags, clusters, rng)
    pointers, _, counts = bags.label_counts()
    assert bags.size <= clusters
    assert bags.rows == counts.sum() == 1200
    assert np.all(np.diff(pointers) > 0), "each bag has labels"


@settings(max_examples=50)
@given(examples(), st.integers(0, 8))
def test_merged_shards_are_one_pass(case, at):
    whole, left, right = empty_bags(case), empty_bags(case), empty_bags(case)
    update(whole, case)
    at = min(at, len(case["labels"]))
    update(left, case, 0, at)
    update(right, case, at)
    names = [np.arange(int(case["codes"].max(initial=0)) + 1, dtype=np.int32)] * whole.groups
    with pytest.MonkeyPatch.context() as patch:  # in stretches of a few sites
        patch.setattr("seqbag.bags._SITES", 6)
        patch.setattr("seqbag.bags._STRETCH", 3)
        left.merge(right, names)
    left.merge(left.empty(), names)
    assert (content(left), left.rows, left.examples) == (content(whole), whole.rows, whole.examples)


@settings(max_examples=50)
@given(examples())
def test_saved_bags_come_back(case):
    bags = empty_bags(case)
    update(bags, case)
    back = Bags.from_arrays(bags.arrays())
    assert content(back) == content(bags)
    update(back, case)
    update(bags, case)
    assert (content(back), back.rows, back.examples) == (content(bags), bags.rows, bags.examples)


def test_medoids_do_not_depend_on_the_pieces_they_are_worked_out_in(monkeypatch):
    rng = np.random.default_rng(5)
    points = rng.standard_normal((200, 6)).astype(np.float32)
    weights, owners = rng.integers(1, 5, 200).astype(np.float64), rng.integers(0, 12, 200)
    whole = bagclusters._medoids(points, weights, owners)
    monkeypatch.setattr(bagclusters, "_PIECE", 7)
    np.testing.assert_array_equal(bagclusters._medoids(points, weights, owners), whole)
    for cluster, medoid in enumerate(whole):
        own = np.flatnonzero(owners == cluster)
        centre = np.average(points[own], axis=0, weights=weights[own])
        assert medoid == own[np.square(points[own] - centre).sum(1).argmin()]
