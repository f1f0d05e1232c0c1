"""What a site counts in its rows and may send elsewhere: the statistics of a first layer, which merge.

Sites count with the same settings, save, and send files; whoever holds the files merges them and trains a net without
ever opening the rows. Everything in here is integers, so that merging is exact, and merged shards are what one pass
over all rows would have counted. A file holds hashed token ids, label names, and counts by range of row numbers; the
tokens' text only if asked for.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

from seqbag.bags import Bags
from seqbag.batch import ImageColumn, InputKind, Int32s, LabelColumn, Rows, Source, TextColumn, TokensColumn
from seqbag.checkpoint import prefixed, under
from seqbag.codebook import ExactCodebook
from seqbag.config import TrainConfig
from seqbag.errors import DataError, ModelError, UsageError
from seqbag.fitting import Fitter
from seqbag.layer import Maps
from seqbag.network import Network
from seqbag.parallel import Workers
from seqbag.passes import ClassIndex, LayerCounts, Windows, hold_out, stream
from seqbag.patches import Patcher
from seqbag.progress import Progress, Silent
from seqbag.recency import STRATA, by_stratum
from seqbag.regions import Regions
from seqbag.spill import Spill
from seqbag.store import FORMAT, read_tensors, tensor_parts, write_atomically
from seqbag.tokens import Encoder, Spans, Vocabulary
from seqbag.trained import Trained, layer_report

EXACT_CODES = 1 << 20
_TAIL = "tail:8,2,1"
_MADE_UP = 16  # rows: more than new bags have room for
_KEY = "seqbag.statistics"
_OLDEST = 2  # the first format to count examples apart from rows
Prepared: TypeAlias = tuple[Maps, Spans, list[Windows]]


@dataclass
class ShardStatistics:
    """Classes, vocabulary and first-layer counts of some rows.

    kind: of input; index: numbers of the label texts; vocabulary: token counts and maybe texts; counts: codebooks and
    bags; rows: how many were counted; first_row: the number of the first among those of all shards.
    """

    kind: InputKind
    config: TrainConfig
    vocabulary: Vocabulary
    counts: LayerCounts
    index: ClassIndex = field(default_factory=ClassIndex)
    rows: int = 0
    first_row: int = 0

    @classmethod
    def none(
        cls, kind: InputKind, config: TrainConfig, texts: bool = True, budget: int = 1 << 62, spill: Spill | None = None
    ) -> Self:
        """Statistics of no rows. texts: whether the text of tokens is kept; budget, spill: see `LayerCounts`."""
        if kind == "image":
            raise UsageError("images have no statistics of tokens: name a text or token column")
        regions = Regions.parse(config.regions or (_TAIL if kind == "tokens" else "whole"))
        books = [ExactCodebook(width, config.codebook or EXACT_CODES) for width in config.windows]
        patchers = tuple(Patcher((width,), (1,), "same") for width in config.windows)
        bags, held_out = (Bags(len(books), regions.count()) for _ in range(2))
        counts = LayerCounts(patchers, books, regions, bags, held_out, budget, spill)
        return cls(kind, config, Vocabulary(config.vocabulary, texts), counts)

    @classmethod
    def count(
        cls,
        source: Source,
        config: TrainConfig,
        texts: bool = False,
        first_row: int = 0,
        progress: Progress | None = None,
    ) -> Self:
        """Count the rows of a source in one pass.

        first_row: the number of its first row among those of all shards, by which rows are held out and shards ordered.
        """
        statistics = cls.none(source.kind, config, texts)
        statistics.first_row = first_row
        for first, rows in stream(source, progress or Silent(), "counting windows"):
            statistics.update(rows, first_row + first)
        return statistics

    def prepare(self, rows: Rows) -> Prepared:
        """What can be made of a batch without knowing those before it: its tokens, where they stand, its windows."""
        assert not isinstance(rows.input, ImageColumn)
        encoder = Encoder("list" if self.kind == "tokens" else self.config.tokenizer, self.config.vocabulary)
        ids, offsets, spans = encoder.locate(rows.input)
        maps = Maps(ids, offsets)
        read = maps.last(self.config.last)
        return maps, spans, [read.windows(patcher) for patcher in self.counts.patchers]

    def update(self, rows: Rows, first: int, prepared: Prepared | None = None, workers: Workers | None = None) -> Maps:
        """Count a batch whose first row has the number `first`. Returns its token ids."""
        maps, spans, windows = self.prepare(rows) if prepared is None else prepared
        workers = workers or Workers(1)
        known = workers.start(
            [maps.values.astype(np.int32, copy=False)], lambda ids: self.vocabulary.update(ids, spans), True
        )
        labels = self.index.update(rows.labels, first)
        held = hold_out(first, len(rows), self.config.valid_fraction, self.config.seed)
        none = np.empty((len(rows), 0), np.float16)
        apart = self.counts.counting(windows, by_stratum(labels, first), held, none)
        workers.map(apart, lambda count: count())
        known()
        self.rows += len(rows)
        return maps

    def rehearse(self) -> None:
        """Count some rows that are made up, elsewhere: that leaves loaded the kernels that counting needs."""
        offsets = np.arange(_MADE_UP + 1)
        text = TextColumn(np.frombuffer(b"a" * _MADE_UP, np.uint8), offsets)
        column = TokensColumn(text, offsets) if self.kind == "tokens" else text
        labels = LabelColumn(np.zeros(_MADE_UP, np.int32), ("a",))
        type(self).none(self.kind, self.config).update(Rows(column, labels), 0)

    def merge(self, other: Self) -> None:
        """Add what `other` counted. Raises UsageError if it was counted with other settings."""
        if (self.kind, self.config) != (other.kind, other.config):
            raise UsageError("statistics of other settings do not merge: count all shards with the same settings")
        numbers = np.array(
            [self.index.numbers.setdefault(name, len(self.index.numbers)) for name in other.index.numbers], np.int32
        )
        codes = [
            mine.merge(theirs)  # type: ignore[arg-type]
            for mine, theirs in zip(self.counts.codebooks, other.counts.codebooks, strict=True)
        ]
        for mine, theirs in (
            (self.counts.bags, other.counts.bags),
            (self.counts.held_out, other.counts.held_out),
        ):
            named = copy.deepcopy(theirs)
            named.relabel(_by_class(numbers))
            mine.merge(named, [part for part in codes if part is not None])
        self.vocabulary.merge(other.vocabulary)
        self.counts.patches += other.counts.patches
        if other.rows:
            self.first_row = min(self.first_row, other.first_row) if self.rows else other.first_row
        self.rows += other.rows

    def empty(self) -> Self:
        """Statistics that merging leaves unchanged."""
        return type(self).none(self.kind, self.config, len(self.vocabulary.texts) > 0, self.counts.budget)

    def settle(self, name: str) -> tuple[tuple[str, ...], npt.NDArray[np.bool_], Int32s]:
        """Sort the classes and fix the tokens, once all rows are counted. name: of the rows, for what is wrong.

        Labels stay apart by stratum, until `Fitter.choose_past` has weighed those.

        Returns the class texts, which classes are too rare to hold rows out of (classes,), and `LayerCounts.lookup`.
        Raises DataError if there is nothing to learn.
        """
        if self.counts.patches == 0:
            raise DataError(f"{name}: every row is empty, there is nothing to learn from")
        classes, order = self.index.order()
        if self.counts.bags.rows == 0:
            raise DataError(f"all {self.rows} rows are held out: give a smaller --valid-fraction")
        self.counts.bags.relabel(_by_class(order))
        self.counts.held_out.relabel(_by_class(order))
        rare = self.counts.train_rare(len(classes))
        return classes, rare, self.counts.lookup(self.config.vocabulary)

    def save(self, path: Path) -> int:
        """Write a file of statistics; returns its bytes. Raises DataError if it cannot."""
        description = {
            "format": FORMAT, "kind": self.kind, "config": self.config.to_json(), "rows": self.rows,
            "first_row": self.first_row, "regions": str(self.counts.regions), "classes": list(self.index.numbers),
            "strata": STRATA,
        }  # fmt: skip
        arrays = prefixed("vocabulary", self.vocabulary.arrays()) | prefixed("counts", self.counts.arrays())
        return write_atomically(path, *tensor_parts(_KEY, description, arrays))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of statistics. Raises ModelError if it is missing, damaged, foreign, too new or too old."""
        description, arrays = read_tensors(path, _KEY)
        if description["format"] < _OLDEST:
            raise ModelError(f"{path} has format {description['format']}, older than {_OLDEST}: count the rows again")
        try:
            config = TrainConfig.from_json(description["config"])
            statistics = cls.none(description["kind"], config)
            statistics.vocabulary = Vocabulary.from_arrays(under("vocabulary", arrays))
            statistics.counts.restore(under("counts", arrays), np.random.default_rng(config.seed))
            statistics.index.numbers = {str(name): number for number, name in enumerate(description["classes"])}
            statistics.rows, statistics.first_row = int(description["rows"]), int(description.get("first_row", 0))
            if description["strata"] != STRATA:
                raise ValueError(f"{description['strata']} strata of rows")
            statistics.check()
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, UsageError) as error:
            raise ModelError(f"{path} is damaged ({error}): count the rows again") from error
        return statistics

    def check(self) -> None:
        """Raises ValueError unless codes, classes and tokens are within what they point into."""
        books = self.counts.codebooks
        for bags in (self.counts.bags, self.counts.held_out):
            if (bags.groups, bags.regions, bags.width) != (len(books), self.counts.regions.count(), 0):
                raise ValueError("the bags do not fit the codebooks")
            for group, book in enumerate(books):
                if bags.largest(group) >= len(book.counts):
                    raise ValueError("the bags name codes that do not exist")
            labels = bags.label_counts()[1]
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.index.numbers) * STRATA:
                raise ValueError("the bags name classes that do not exist")
        for book, width in zip(books, self.config.windows, strict=True):
            if not isinstance(book, ExactCodebook) or book.width != width:
                raise ValueError("the codebooks do not fit the windows")
            if book.size and not 0 <= book.windows.min() <= book.windows.max() < self.config.vocabulary:
                raise ValueError("the codebooks name tokens that do not exist")


def _by_class(numbers: Int32s) -> Int32s:
    """New labels by stratum (classes * STRATA,), where class c becomes numbers[c]."""
    labels: Int32s = np.repeat(numbers * np.int32(STRATA), STRATA)
    labels += np.tile(np.arange(STRATA, dtype=np.int32), len(numbers))
    return labels


def merged(statistics: Iterable[ShardStatistics]) -> ShardStatistics:
    """One of all shards, which are left as they are. Raises UsageError for none, or for other settings.

    What is counted does not depend on the order in which shards merge, but windows and bags are numbered as they are
    met, and a net is trained in that order: it is that of their first rows here, so that the net is one, to the byte.
    """
    total: ShardStatistics | None = None
    for shard in sorted(statistics, key=lambda shard: shard.first_row):
        if total is None:
            total = copy.deepcopy(shard)
        else:
            total.merge(shard)
    if total is None:
        raise UsageError("there are no statistics to merge: give those of one shard or more")
    return total


def train_statistics(statistics: ShardStatistics, progress: Progress | None = None) -> Trained:
    """Train a net of one layer on what shards have counted, without their rows.

    Accuracies are those on the held-out bags, which are the real ones as long as no codebook overflowed. Raises
    DataError if there is nothing to learn, UsageError for settings of more than one layer.
    """
    config, started = statistics.config, time.perf_counter()
    if config.layers != 1:
        raise UsageError(f"statistics are of one layer and the settings are of {config.layers}: count with layers=1")
    shard = copy.deepcopy(statistics)
    classes, _, lookup = shard.settle("the statistics")
    network = Network(config, classes, lookup)
    trained = Trained(network, shard.rows, [], float("nan"), 0.0, shard.vocabulary)
    with Workers(config.threads) as workers:
        fitter = Fitter(config, np.random.default_rng(config.seed), workers, progress or Silent())
        counts, _ = fitter.choose_past(shard.counts, network)
        distinct = counts.bags.size
        trained.explain(counts)
        counts.cluster(config.bag_clusters, fitter.rng, config.threads)
        if config.regions is None and counts.regions.kind == "tail":
            counts = fitter.choose_regions(counts, network)
        layer, network.classifier, accuracy = fitter.fit(counts, network, "layer 1: training")
    network.layers.append(layer)
    trained.layers.append(layer_report(counts, distinct, accuracy, time.perf_counter() - started))
    exact = not counts.bags.clustered and not any(getattr(book, "overflowed", 1) for book in counts.codebooks)
    trained.confusion = fitter.confusion
    trained.layers[0].valid_accuracy = trained.valid_accuracy = accuracy if exact else float("nan")
    trained.seconds = time.perf_counter() - started
    return trained
