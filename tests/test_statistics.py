"""What sites count: merged shards are one pass, files come back, and a net is trained without the rows."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag.config import TrainConfig
from seqbag.errors import DataError, ModelError, UsageError
from seqbag.recency import STRATA
from seqbag.statistics import ShardStatistics, merged, train_statistics
from seqbag.store import to_bytes
from seqbag.trainer import train
from tests.memory import MemorySource

CONFIG = TrainConfig(filters=(4,), dims=4, hidden=4, epochs=2, regions="whole", windows=(1, 2))
COLUMNS = {"kind": "text", "input": "message", "label": "label"}
ROWS = [(f"{'open' if i % 3 else 'close'} port {i % 7} of host{i % 5}", "up" if i % 3 else "down") for i in range(90)]


def source_of(rows):
    return MemorySource("text", ([text for text, _ in rows], [label for _, label in rows]))


def shards_of(rows, edges, **changed):
    config = dataclasses.replace(CONFIG, **changed)
    edges = [0, *sorted(edges), len(rows)]
    return [
        ShardStatistics.count(source_of(rows[a:b]), config, texts=True, first_row=a)
        for a, b in itertools.pairwise(edges)
        if b > a
    ]


def content(statistics):
    """What was counted, whatever the order it came in."""
    names = list(statistics.index.numbers)
    found = {}
    for kind, bags in (("bags", statistics.counts.bags), ("held", statistics.counts.held_out)):
        pointers, classes, counts = bags.label_counts()
        for bag in range(bags.size):
            entries = []
            for span in range(bags.spans):
                windows = statistics.counts.codebooks[span // bags.regions].windows
                at = slice(*bags.pointers[bag * bags.spans + span : bag * bags.spans + span + 2])
                entries += [
                    (span, *windows[c].tolist(), n)
                    for c, n in zip(bags.codes[at], bags.counts[at].tolist(), strict=True)
                ]
            nodes = slice(pointers[bag], pointers[bag + 1])
            labels = {
                (names[c // STRATA], c % STRATA): n for c, n in zip(classes[nodes], counts[nodes].tolist(), strict=True)
            }
            found[kind, tuple(sorted(entries))] = labels
    books = [
        dict(zip(map(tuple, book.windows.tolist()), book.counts.tolist(), strict=True))
        for book in statistics.counts.codebooks
    ]
    return found, books, statistics.vocabulary.counts.tolist(), statistics.rows, statistics.counts.patches


@settings(max_examples=20)
@given(st.lists(st.integers(1, 89), max_size=3, unique=True), st.permutations(range(4)))
def test_merging_is_exact_in_any_order(edges, order):
    shards = shards_of(ROWS, edges)
    whole = shards_of(ROWS, [])[0]
    mixed = [shards[i] for i in order if i < len(shards)]
    assert content(merged(shards)) == content(whole)
    assert content(merged(mixed)) == content(whole)
    if len(shards) > 2:
        assert content(merged([shards[0], merged(shards[1:])])) == content(whole)
    assert content(merged([whole.empty(), whole])) == content(merged([whole, whole.empty()])) == content(whole)


def test_a_net_of_merged_shards_is_that_of_one_pass():
    shards = shards_of(ROWS, [20, 50])
    before = [content(shard) for shard in shards]
    trained = train_statistics(merged(shards))
    direct = train(source_of(ROWS), CONFIG)
    assert to_bytes(trained.model(COLUMNS)) == to_bytes(direct.model(COLUMNS))
    for order in itertools.permutations(shards):
        assert to_bytes(train_statistics(merged(order)).model(COLUMNS)) == to_bytes(direct.model(COLUMNS))
    assert trained.valid_accuracy == direct.valid_accuracy
    assert [content(shard) for shard in shards] == before, "training and merging leave the shards as they are"


def test_a_file_comes_back(tmp_path):
    shard = shards_of(ROWS, [])[0]
    assert shard.save(tmp_path / "shard") == (tmp_path / "shard").stat().st_size
    back = ShardStatistics.load(tmp_path / "shard")
    assert (content(back), back.config, back.kind) == (content(shard), shard.config, shard.kind)
    last = shards_of(ROWS, [70])[1]
    last.save(tmp_path / "last")
    assert ShardStatistics.load(tmp_path / "last").first_row == last.first_row == 70
    assert merged([last.empty(), last]).first_row == 70
    back.merge(shard)
    assert back.rows == 2 * shard.rows


def test_a_file_holds_no_text_unless_asked(tmp_path):
    for texts in (False, True):
        ShardStatistics.count(source_of(ROWS), CONFIG, texts=texts).save(tmp_path / "shard")
        assert (b"close" in (tmp_path / "shard").read_bytes()) == texts


def test_texts_are_those_of_the_shards_that_keep_them():
    kept, silent = (ShardStatistics.count(source_of(ROWS), CONFIG, texts=texts) for texts in (True, False))
    expected = kept.vocabulary.texts.tobytes()
    for order in ([kept, silent], [silent, kept]):
        assert merged(order).vocabulary.texts.tobytes() == expected


def test_damaged_files_are_refused(tmp_path):
    shards_of(ROWS, [])[0].save(tmp_path / "shard")
    data = (tmp_path / "shard").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            changed[at] = rng.integers(0, 256)
        (tmp_path / "changed").write_bytes(
            bytes(changed[: rng.integers(1, len(data))] if rng.random() < 0.2 else changed)
        )
        with contextlib.suppress(ModelError):
            ShardStatistics.load(tmp_path / "changed").check()
    (tmp_path / "changed").write_bytes(data[:-1])
    with pytest.raises(ModelError):
        ShardStatistics.load(tmp_path / "changed")


def test_a_file_of_an_older_format_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("seqbag.statistics.FORMAT", 1)
    shards_of(ROWS, [])[0].save(tmp_path / "old")
    monkeypatch.undo()
    with pytest.raises(ModelError) as error:
        ShardStatistics.load(tmp_path / "old")
    assert str(error.value) == f"{tmp_path / 'old'} has format 1, older than 2: count the rows again"


def test_other_settings_do_not_merge():
    with pytest.raises(UsageError) as error:
        merged(shards_of(ROWS, []) + shards_of(ROWS, [], windows=(1, 3)))
    assert str(error.value) == "statistics of other settings do not merge: count all shards with the same settings"
    with pytest.raises(UsageError) as error:
        merged([])
    assert str(error.value) == "there are no statistics to merge: give those of one shard or more"
    with pytest.raises(UsageError) as error:
        train_statistics(shards_of(ROWS, [], layers=2)[0])
    assert str(error.value) == "statistics are of one layer and the settings are of 2: count with layers=1"


def test_one_class_is_not_enough():
    rows = [row for row in ROWS if row[1] == "up"]
    with pytest.raises(DataError) as error:
        train_statistics(shards_of(rows, [])[0])
    assert str(error.value) == "the label column holds only 'up': training needs rows of two classes or more"
