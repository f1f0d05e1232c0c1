"""How much of the past a net reads: counts cut to the last tokens, and the choice of how many those are."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag.checkpoint import Checkpoint
from seqbag.config import TrainConfig
from seqbag.errors import UsageError
from seqbag.layer import Maps
from seqbag.past import of_last, pasts
from seqbag.regions import Regions
from seqbag.statistics import ShardStatistics, train_statistics
from seqbag.store import load, save, to_bytes
from seqbag.trainer import train
from tests.memory import MemorySource, Notes, tokens_column
from tests.naive import last_sites

CONFIG = TrainConfig(filters=(8,), dims=8, hidden=8, vocabulary=64, epochs=12)
COLUMNS = {"kind": "tokens", "input": "events", "label": "label"}
ROWS = 8_000


def changing(reaches=1):
    """Three events; the last but `reaches` - 1 tells what follows, and since three fifths of the rows the other."""
    rng = np.random.default_rng(0)
    states, old = rng.integers(0, 2, (ROWS, 3)), np.arange(ROWS) < 0.6 * ROWS
    labels = np.where(old, states[:, -reaches], 1 - states[:, -reaches])
    events = [[("raised", "waiting")[state] for state in row] for row in states]
    return MemorySource("tokens", (events, [("solved", "closed")[label] for label in labels]))


def contents(counts, codebooks):
    """Of each bag the windows of each group and segment, with its labels; and how often each window was counted."""
    found = []
    for bags in (counts.bags, counts.held_out):
        pointers, labels, rows = bags.label_counts()
        kept = {}
        for bag in range(bags.size):
            spans = range(bag * bags.spans, (bag + 1) * bags.spans)
            entries = [slice(*bags.pointers[span : span + 2]) for span in spans]
            books = [codebooks[place // bags.regions] for place in range(bags.spans)]
            key = tuple(
                tuple(sorted((*book.windows[code].tolist(), int(count)) for code, count in zip(
                    bags.codes[entry], bags.counts[entry], strict=True
                )))
                for entry, book in zip(entries, books, strict=True)
            )  # fmt: skip
            nodes = slice(*pointers[bag : bag + 2])
            assert key not in kept, "a bag is there twice"
            kept[key] = dict(zip(labels[nodes].tolist(), rows[nodes].tolist(), strict=True))
        found.append((kept, bags.rows, bags.examples))
    windows = [dict(zip(map(tuple, b.windows.tolist()), b.counts.tolist(), strict=True)) for b in codebooks]
    return found, windows


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.lists(st.sampled_from("abcd"), max_size=6), st.sampled_from("xy")), min_size=1, max_size=40),
    st.sampled_from([1, 2]),
    st.sampled_from([(1, 3), (2,), (5, 1)]),
)
def test_counts_are_cut_to_what_counting_the_last_tokens_gives(rows, tokens, windows):
    source = MemorySource("tokens", ([events for events, _ in rows], [label for _, label in rows]))
    config = dataclasses.replace(CONFIG, windows=windows, valid_fraction=0.3)
    counts = ShardStatistics.count(source, config).counts
    before = contents(counts, counts.codebooks)
    cut = of_last(counts, tokens)
    assert contents(counts, counts.codebooks) == before, "what is given stays as it is"
    regions = "whole" if tokens == 1 else "tail:1"
    expected = ShardStatistics.count(source, dataclasses.replace(config, last=tokens, regions=regions)).counts
    assert str(cut.regions) == regions
    assert contents(cut, cut.codebooks) == contents(expected, expected.codebooks)
    np.testing.assert_array_equal(cut.lookup(64), expected.lookup(64))


@pytest.mark.parametrize(
    ("regions", "expected"),
    [("whole", []), ("tail:8", []), ("tail:8,2", []), ("tail:1", [1]), ("tail:8,2,1", [2, 1]), ("tail:3,2,1", [3, 2, 1])
])  # fmt: skip
def test_of_which_last_tokens_counts_can_be_had(regions, expected):
    assert pasts(Regions.parse(regions)) == expected


@settings(max_examples=60)
@given(st.lists(st.integers(0, 6), max_size=8), st.one_of(st.none(), st.integers(1, 7)))
def test_the_last_sites_of_each_sequence(lengths, sites):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    maps = Maps(np.arange(offsets[-1], dtype=np.int32), offsets)
    last = maps.last(sites)
    found = [last.values[start:stop].tolist() for start, stop in zip(last.offsets, last.offsets[1:], strict=False)]
    assert found == last_sites(maps.values.tolist(), lengths, sites)
    assert (last.values.dtype, last.offsets.dtype) == (np.int32, np.int64)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_last_token_is_read_alone_where_it_predicts_the_newest_rows_as_well(layers, tmp_path):
    notes, config = Notes(), dataclasses.replace(CONFIG, layers=layers, filters=(16,))
    trained = train(changing(), config, notes)
    (told,) = notes.about("past")
    assert told == (
        "past: of 984 of the newest rows are predicted 1.0000 by all tokens, 1.0000 by the last 2, 1.0000 by the "
        "last 1; of each row it reads the last 1"
    )
    assert (trained.network.config.last, trained.network.config.recency) == (1, True)
    save(trained.model(COLUMNS), tmp_path / "m.seqbag")
    network = load(tmp_path / "m.seqbag").network
    assert network.config.last == 1
    rows = tokens_column([["raised"], ["waiting", "unheard of", "raised"], ["waiting"], ["raised", "waiting"], []])
    found = network.probabilities(rows)
    assert [network.classes[at] for at in found.argmax(1)[:4]] == ["closed", "closed", "solved", "solved"]
    np.testing.assert_array_equal(found[[0, 2]], found[[1, 3]])


@pytest.mark.parametrize(("reaches", "expected"), [(2, 2), (3, None)])
def test_what_lies_further_back_is_read_where_it_tells_more(reaches, expected):
    notes = Notes()
    trained = train(changing(reaches), dataclasses.replace(CONFIG, epochs=30, filters=(16,)), notes)
    assert trained.network.config.last == expected
    assert notes.about("past")[0].endswith(
        f"; of each row it reads {'all tokens' if expected is None else 'the last 2'}"
    )
    assert trained.valid_accuracy < 0.5, "of all rows, the older ones too"


@pytest.mark.parametrize("chosen", [{"recency": False}, {"last": 3}, {"regions": "tail:2,1"}, {"last": 1}])
def test_it_is_chosen_only_where_the_settings_leave_it_open_and_newer_rows_weigh_more(chosen):
    notes = Notes()
    trained = train(changing(), dataclasses.replace(CONFIG, **chosen), notes)
    assert (trained.network.config.last, notes.about("past")) == (chosen.get("last"), [])


def test_of_few_rows_all_is_read():
    events = [["a", "b"][i % 2 :] for i in range(2_000)]
    source, notes = MemorySource("tokens", (events, [str(i % 2) for i in range(2_000)])), Notes()
    trained = train(source, dataclasses.replace(CONFIG, recency=True), notes)
    assert (trained.network.config.last, notes.about("past")) == (None, [])


def test_statistics_of_shards_train_the_same_net():
    ways = train(changing(), CONFIG), train_statistics(ShardStatistics.count(changing(), CONFIG, texts=True))
    assert ways[0].network.config.last == 1
    assert to_bytes(ways[0].model(COLUMNS)) == to_bytes(ways[1].model(COLUMNS))


def test_what_was_chosen_outlives_an_interruption(tmp_path):
    config, identity = dataclasses.replace(CONFIG, layers=2), {"seed": 0}
    whole = to_bytes(train(changing(), config).model(COLUMNS))

    class Stopping(Notes):
        def begin(self, task, total, unit):
            if task == "layer 2: training":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Checkpoint(tmp_path / "work", identity) as checkpoint:
        train(changing(), config, Stopping(), checkpoint)
    with Checkpoint(tmp_path / "work", identity, resume=True) as checkpoint:
        notes = Notes()
        trained = train(changing(), config, notes, checkpoint)
    assert notes.about("past") == [], "it is not chosen again"
    assert to_bytes(trained.model(COLUMNS)) == whole


def test_images_have_no_last_tokens():
    with pytest.raises(UsageError, match=r"^last is 2: images have no last tokens, leave it out$"):
        TrainConfig.for_kind("image", last=2).check("image")
