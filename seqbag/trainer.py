"""The training loop: one pass over the data a layer, no gradient through more than one layer.

For each layer: stream the rows through the frozen layers below, cut windows, count them by code and by example, then
train filters and an auxiliary classifier on the counts. A last pass refits the classifier on what the net makes of the
rows, and measures it on those held out.
(Layer-wise training: Belilovsky et al. 2018, arXiv 1812.11446.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from seqbag import resuming
from seqbag.augment import seen
from seqbag.bags import Bags, Halves
from seqbag.batch import ImageColumn, Int32s, Rows, Source
from seqbag.checkpoint import Checkpoint
from seqbag.classifier import with_vote
from seqbag.codebook import ExactCodebook
from seqbag.config import TrainConfig
from seqbag.errors import DataError
from seqbag.fitting import Fitter
from seqbag.kmeans import KMeans
from seqbag.layer import Maps, embed
from seqbag.mapcache import MapCache
from seqbag.narrowing import pooling, projected
from seqbag.network import Network
from seqbag.parallel import Workers
from seqbag.passes import ClassIndex, Forwarded, LayerCounts, RowSample, drawn, hold_out, stream
from seqbag.patches import Patcher
from seqbag.polishing import Polisher
from seqbag.progress import Progress, Silent
from seqbag.recency import STRATA, alike, strata
from seqbag.regions import Regions
from seqbag.signpass import forwarding, passing
from seqbag.spill import Spill, budget
from seqbag.statistics import ShardStatistics
from seqbag.tokens import Vocabulary
from seqbag.trained import LayerReport, Trained, layer_report, listed
from seqbag.whitening import whitening

KMEANS_CODES = 1024
_SAMPLE_ROWS = 4096
_SAMPLE_SITES = 1 << 16  # of the sampled rows that are clustered
_SITES = 1 << 14  # sites whose activations are held at once
_PART_SITES = 1 << 12  # sites that a thread takes at a time
_MEASURED_ROWS = 10_000  # images that a vote of layers is standardised by, at least, if there are as many
_CACHED_ROWS, _CACHED_SITES = 256, 1 << 16  # of a cache, at most, that go through a layer at once
_WHITENING_ROWS = 1024  # of the sampled images, whose patches are many
_WHITENED = 3  # sites along each axis of the patches that are whitened
_FEATURES_SHARE = 0.5  # of the memory: features of images that the last classifier learns from, beside cached ones


def train(
    source: Source, config: TrainConfig, progress: Progress | None = None, checkpoint: Checkpoint | None = None
) -> Trained:
    """Train a net on a source of labelled rows. Raises DataError with one line for data that cannot be trained on.

    checkpoint: an entered `Checkpoint` to keep the state in, and to start from if it holds one.
    """
    with Workers(config.threads) as workers:
        return Trainer(source, config, progress or Silent(), workers, checkpoint).run()


class Trainer:
    """One run. What a checkpoint of it holds is in `resuming`."""

    def __init__(
        self, source: Source, config: TrainConfig, progress: Progress, workers: Workers, checkpoint: Checkpoint | None
    ) -> None:
        config.check(source.kind)
        self.checkpoint, self.resumed, self.exact = checkpoint, checkpoint.state if checkpoint else None, False
        self.source, self.config, self.progress, self.workers = source, config, progress, workers
        self.rng = np.random.default_rng(config.seed)
        images = source.kind == "image"
        self.shard = (
            None
            if images
            else ShardStatistics.none(source.kind, config, True, budget(self.config.memory), self._spill(0))
        )
        self.vocabulary = self.shard.vocabulary if self.shard is not None else Vocabulary(config.vocabulary)
        self.sample = RowSample(_SAMPLE_ROWS, config.seed)
        self.index = self.shard.index if self.shard is not None else ClassIndex()
        self.rows, self.fingerprint = 0, source.fingerprint
        self.rare: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)  # classes of which no row is held out
        self.times = alike()  # how often rows count, by stratum
        self.reports: list[LayerReport] = []
        self.network = Network(config, (), None)
        self.polisher: Polisher | None = None
        self.kept: MapCache | None = None  # the input of the newest layer
        self.fitter = Fitter(config, self.rng, workers, self.progress)

    def run(self) -> Trained:
        started = time.perf_counter()
        self.trained = trained = Trained(self.network, 0, self.reports, float("nan"), 0.0, self.vocabulary)
        done = resuming.take_up(self)
        if self.network.shape and self.config.polish:
            self._refill(done)
        for number in range(done, self.config.layers):
            self._learn(number)
        self._finish()
        trained.confusion, trained.rows = self.fitter.confusion, self.rows
        trained.valid_accuracy, trained.seconds = self.reports[-1].valid_accuracy, time.perf_counter() - started
        return trained

    def _learn(self, number: int) -> None:
        """Count the rows for a layer and train it. Its counts go with this call, before the next layer's are made."""
        started = time.perf_counter()
        if number == 0 and self.source.kind != "image":
            counts, self.times = self.fitter.choose_past(self._count_tokens(), self.network)
            self.trained.explain(counts)
        else:
            if number == 0:
                self._whiten()
            counts = self._count_vectors(number)
            if number:
                self._calibrate(counts)
        distinct = counts.distinct
        counts.cluster(self.config.bag_clusters, self.rng, self.config.threads)
        exact = [isinstance(book, ExactCodebook) and not book.overflowed for book in counts.codebooks]
        whole = not counts.bags.clustered and counts.examples == self.rows
        self.exact = bool(exact) and all(exact) and whole and self.config.layers == 1
        accuracy = self._fit(number, counts)
        self.reports.append(layer_report(counts, distinct, accuracy, time.perf_counter() - started))
        if self.exact:
            self.reports[-1].valid_accuracy = accuracy
        if self.checkpoint is not None:
            self.checkpoint.save(resuming.state(self, self.checkpoint, number + 1))
        if counts.spill is not None:
            counts.spill.clear()

    def _count_tokens(self) -> LayerCounts:
        """First pass: classes, vocabulary, row sample, and the exact counts of the first layer."""
        shard, self.shard = self.shard, None
        assert shard is not None
        counts = shard.counts
        self.workers.start([shard], ShardStatistics.rehearse)  # while the first rows are read
        for first, rows, prepared in self._pass(
            0, "layer 1: counting windows", counts, lambda first, rows: shard.prepare(rows)
        ):
            tokens = shard.update(rows, first, prepared, self.workers)
            if self.config.layers > 1:
                self.sample.update(tokens, first)
            if not self.rows and counts.bags.size:
                self.workers.start([self.fitter.rehearsal(counts)], lambda run: run())
                counts.expect(len(rows), self.source.rows or 0)
            self.rows += len(rows)
        self.network.classes, self.rare, self.network.lookup = shard.settle(self.source.describe())
        self.progress.note(f"{listed(self.network.classes)}; {counts.held_out.rows:,} of {self.rows:,} rows held out")
        return counts

    def _whiten(self) -> None:
        """First pass over images: classes, row sample, and the whitening layer."""
        for first, rows in stream(self.source, self.progress, "sampling"):
            self.index.update(rows.labels, first)
            assert isinstance(rows.input, ImageColumn)
            if not self.rows:
                self.network.shape = shape = rows.input.pixels.shape[1:]
                if len(shape) < 3:
                    what = f"images are of the shape {shape}, which is one of lines"
                    raise DataError(f"{self.source.describe()}: {what}: give height, width and channels")
            self.sample.update(self.network.encode(rows.input), first)
            self.rows += len(rows)
        self.network.classes, _ = self.index.order()
        self.rare = np.zeros(len(self.network.classes), np.bool_)
        grid, activation = self.network.shape[:-1], self.config.activation
        patcher = Patcher((_WHITENED,) * len(grid), (1,) * len(grid), "same")
        sample = self.sample.maps().part(0, min(len(self.sample.maps()), _WHITENING_ROWS))
        self.network.layers.append(whitening(sample, patcher, activation, pooling(grid)))

    def _count_vectors(self, number: int) -> LayerCounts:
        """A later pass: rows go through the frozen layers, their windows to the nearest of k centroids."""
        features, sampled = self._sampled()
        patchers = self._patchers(axes := sampled.axes)
        books = [self._centroids(sampled, patcher) for patcher in patchers] if self._counting else []
        grid = self.network.output_grid() if self.network.shape else ()
        regions = Regions.parse(self.config.regions or "grid:2").on(grid) if grid else self.network.layers[-1].regions
        shape = len(books), regions.count(axes), sum(self.network.widths())
        limits, cut = (budget(self.config.memory), self._spill(number)), patchers if books else ()
        counts = LayerCounts(cut, books, regions, Bags(*shape), Bags(*shape), *limits)
        keep = self._cache(features, sampled) if self.config.polish else None
        every = max(1, self.rows // _MEASURED_ROWS)
        del features, sampled  # as large as a share of the bags, and of no use while the rows are counted
        views = keep.views if keep is not None else self.config.views if books else 1
        for part in self._forwarded(number, f"layer {number + 1}: counting windows", counts, views):
            counts.update_views(part) if books else counts.update_features(part, every)
            if keep is not None:
                keep.update(part)
        if counts.bags.rows == 0:
            raise DataError(f"all {self.rows} rows are held out: give a smaller --valid-fraction")
        return counts

    def _cache(self, features: Halves, sampled: Maps) -> MapCache | None:
        """Make ready to polish a layer whose input looks like `sampled`: the cache for it, if the memory has room."""
        rows = self.rows, features, sampled, self._labels
        self.polisher = Polisher(self.source, self.config, self.network, *rows, self.kept)
        return self.polisher.keep

    def _refill(self, passes: int) -> None:
        """Fill the cache that `passes` passes had left, the same way: its maps were rounded before every layer."""
        layers = self.network.layers
        for number in range(passes):
            self.network.layers = layers[: number + 1]
            keep = self._cache(*self._sampled())
            if keep is not None:
                none = LayerCounts.of_features(0)
                for part in self._forwarded(number, f"layer {number + 1}: filling its cache", none, keep.views):
                    keep.update(part)
            self.kept, self.polisher = keep, None
        self.network.layers = layers

    def _forwarded(
        self, number: int, task: str, counts: LayerCounts, views: int, fraction: float = 1.0
    ) -> Iterator[Forwarded]:
        """A fraction of the rows through the network, part by part, images in some views.

        From the cache of the newest layer's input if there is one, else from the source.
        """
        kept, self.kept = self.kept, None
        last, cut = number == self.config.layers, self._counting
        if kept is None:
            resumable = number > 0 and self.polisher is None
            encode, forward = partial(self._encode, views=views, fraction=fraction), forwarding(self.network, last, cut)
            for first, batch, (chosen, encoded) in self._pass(number, task, counts, encode, resumable):
                labels = self._labels(batch, first)
                held, labels = self._held(first, labels)[chosen], labels[chosen]
                times = self.times[strata(first, len(batch))[chosen]]
                inputs = [view.parts(self._most(_PART_SITES if last else _SITES)) for view in encoded]
                most = len(inputs[0]) if last else self.config.threads  # maps are large, features alone are not
                for start in range(0, len(inputs[0]), max(1, most)):
                    parts = list(zip(*[view[start : start + most] for view in inputs], strict=True))
                    done = self.workers.each([maps for part in parts for _, maps in part], forward)
                    for (rows, _), *others in parts:
                        yield Forwarded(labels[rows], held[rows], times[rows], list(islice(done, 1 + len(others))))
            return
        views, make = min(views, kept.views), passing(self.network, kept, last, cut)
        self.progress.begin(task, kept.rows, "rows")
        most = min(_CACHED_ROWS, max(1, _CACHED_SITES // math.prod(kept.grid)))
        for part in np.array_split(np.arange(kept.rows), -(-kept.rows // most)):
            pieces = np.array_split(part, self.config.threads)
            in_views = [(piece, view) for piece in pieces for view in range(views)]
            done = self.workers.each(in_views, lambda one: make(*one))
            for piece in pieces:
                yield Forwarded(kept.labels[piece], kept.held[piece], None, list(islice(done, views)))
            kept.forget(part[-1] + 1)
            counts.relieve(self.rng, self.progress, task)
            self.progress.advance(len(part))
        self.progress.end()
        counts.gather(self.rng, self.config.threads, self.progress, task)

    def _encode(self, first: int, rows: Rows, views: int, fraction: float) -> tuple[npt.NDArray[np.intp], list[Maps]]:
        """Which rows of a batch are drawn, and the first layer's input made of those, in each view."""
        taken = drawn(first, len(rows), fraction, self.config.seed)
        chosen = np.flatnonzero(taken)
        column = rows.input if taken.all() else rows.input.take(chosen)
        columns = [column]
        if isinstance(column, ImageColumn):
            columns = [seen(column, view, first + chosen, self.config.seed) for view in range(views)]
        return chosen, [self.network.encode(view) for view in columns]

    @property
    def _counting(self) -> bool:
        """Whether the windows of vectors are counted: a polish can start from counts."""
        return not self.config.polish or self.config.codebook is not None

    def _most(self, sites: int) -> int:
        """Sites to take at once: of images more, as each has many."""
        return sites if self.source.kind != "image" else 8 * sites

    def _centroids(self, outputs: Maps, patcher: Patcher) -> KMeans:
        """A codebook of the windows of the sampled rows."""
        windows = outputs.windows(patcher)[0].astype(np.float32, copy=False)
        if len(windows) == 0:
            raise DataError("the sampled rows hold no tokens: there is nothing to cluster")
        return KMeans.of_sample(windows, self.config.codebook or KMEANS_CODES, self.rng, self.config.threads)

    def _fit(self, number: int, counts: LayerCounts) -> float:
        """Train the layer on its counts and freeze it. Returns the proxy's accuracy on held-out rows."""
        task = f"layer {number + 1}: training"
        if self.config.regions is None and counts.regions.kind == "tail" and number == 0:
            counts = self.fitter.choose_regions(counts, self.network)
        layer, accuracy = None, float("nan")
        if counts.codebooks:
            layer, classifier, accuracy = self.fitter.fit(counts, self.network, task)
        if self.polisher is None:
            self.network.classifier = classifier
        else:
            polisher, task = self.polisher, f"layer {number + 1}: polishing"
            patchers = self._patchers(len(polisher.grid))
            weights = self.fitter.class_weights(counts.bags, len(self.network.classes))
            layer, own, accuracy = polisher.run(patchers, layer, weights, self.workers, self.rng, self.progress, task)
            self.kept, self.polisher = polisher.keep, None
            self.network.classifier = with_vote(self.network.classifier, own, number)
        assert layer is not None
        if self.network.shape:
            layer = replace(layer, pooling=pooling(self.network.output_grid(), whole=number == 0))
            if number + 1 < self.config.layers:
                layer = projected(layer, self._sampled()[1], self.config.project)
        self.network.layers.append(layer)
        return accuracy

    def _finish(self) -> None:
        """Refit the classifier on the rows as they really are, and measure the net on the held-out ones.

        A net of one layer whose windows are all codes is known from the counts, and there is nothing to refit.
        """
        if self.exact:
            return
        counts = LayerCounts.of_features(sum(self.network.widths()))
        number, need = self.config.layers, (2 * counts.bags.width + 64) * max(self.rows, 1)
        fraction = min(1.0, budget(self.config.memory) / need)
        views = max(1, min(self.config.views, int(_FEATURES_SHARE * self.config.memory / need)))
        counts.bags.reserve(int(fraction * self.rows * views))
        for part in self._forwarded(number, "measuring", counts, views, fraction):
            counts.update_views(part)
        self._calibrate(counts)

    def _calibrate(self, counts: LayerCounts) -> None:
        """Refit the newest classifier on the true features in the bags, and note its accuracy on the held-out ones.

        After a polish those of the layers vote, in the end beside a new one of all layers' features.
        """
        task = f"layer {len(self.reports)}: calibrating"
        assert self.network.classifier is not None
        if self.config.polish:
            votes, accuracy = self.network.classifier, self.fitter.measure(self.network.classifier, counts)
            if len(self.reports) == self.config.layers:
                whole = self.fitter.classifier(counts, self.network.classes, task)
                votes, accuracy = self.fitter.stack(votes, whole, counts)
            self.network.classifier, self.reports[-1].valid_accuracy = votes, accuracy
            return
        clustered = self.reports[-1].clusters is not None
        self.reports[-1].valid_accuracy = self.fitter.calibrate(self.network.classifier, counts, task, clustered)

    def _held(self, first: int, labels: Int32s) -> npt.NDArray[np.bool_]:
        """Which rows of a later pass are held out."""
        return hold_out(first, len(labels), self.config.valid_fraction, self.config.seed) & ~self.rare[labels]

    def _labels(self, rows: Rows, first: int) -> Int32s:
        """Class numbers, sorted by name, of a later pass."""
        known = len(self.index.numbers)
        labels = self.index.update(rows.labels, first)
        if len(self.index.numbers) != known:
            raise self._changed()
        return self.index.order()[1][labels]

    def _pass(
        self, number: int, task: str, counts: LayerCounts, prepare: Callable[[int, Rows], Any], resumable: bool = True
    ) -> Iterator[tuple[int, Rows, Any]]:
        """The rows of pass `number` that are still to be counted, with the bags kept in budget and checkpoints made.

        prepare: what is made of a batch beside the counting of the one before. Raises DataError if the rows are seen
        to be others than in the pass before.
        """
        done, read = resuming.take_up_counts(self, number, counts), 0
        batches = stream(self.source, self.progress, task)
        for (first, rows), prepared in self.workers.ahead(batches, lambda batch: prepare(*batch)):
            read = first + len(rows)
            if first < done:
                continue
            yield first, rows, prepared
            counts.relieve(self.rng, self.progress, task)
            if self.checkpoint is not None and resumable:
                self.checkpoint.tick(partial(resuming.state, self, self.checkpoint, number, read, counts))
        if read != self.rows or self.source.fingerprint != self.fingerprint:
            raise self._changed()
        strata = STRATA if number == 0 and self.source.kind != "image" else 1
        counts.gather(self.rng, self.config.threads, self.progress, task, strata)

    def _spill(self, number: int) -> Spill:
        """Where the bags of a pass go when they outgrow the memory."""
        return Spill(None if self.checkpoint is None else self.checkpoint.folder, f"bags-{number}")

    def _changed(self) -> DataError:
        return DataError(f"{self.source.describe()} changed between passes: train again on data that stays as it is")

    def _patchers(self, axes: int = 1) -> tuple[Patcher, ...]:
        return tuple(Patcher((width,) * axes, (1,) * axes, "same") for width in self.config.windows)

    def _sampled(self) -> tuple[Halves, Maps]:
        """Of some rows the features, and the newest layer's output."""
        maps = self.sample.maps().last(self.network.config.last)
        if self.network.lookup is not None:
            maps = Maps(embed(maps.values.astype(np.int32, copy=False), self.network.lookup), maps.offsets)
        rows = max(1, int(np.searchsorted(maps.offsets, self._most(_SAMPLE_SITES), side="right")) - 1)
        return self.network.forward(maps.part(0, rows))
