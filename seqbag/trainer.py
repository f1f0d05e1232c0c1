"""The training loop: one pass over the data a layer, no gradient through more than one layer.

For each layer: stream the rows through the frozen layers below, cut windows, count them by code and by example, then
train filters and an auxiliary classifier on the counts. A last pass measures the net as it is, on rows held out.
(Layer-wise training: Belilovsky et al. 2018, arXiv 1812.11446.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from seqbag.bags import Bags
from seqbag.batch import Float32s, ImageColumn, Int32s, Int64s, Rows, Source
from seqbag.codebook import ExactCodebook
from seqbag.config import TrainConfig
from seqbag.errors import DataError
from seqbag.fitting import UNKNOWN, Fitter
from seqbag.kmeans import KMeans
from seqbag.layer import Maps, embed
from seqbag.mapcache import MapCache
from seqbag.network import Network
from seqbag.parallel import Workers
from seqbag.passes import ClassIndex, LayerCounts, RowSample, empty_input, hold_out, stream, take
from seqbag.patches import Patcher
from seqbag.polishing import Polisher, views
from seqbag.progress import Progress, Silent
from seqbag.projection import Moments, Projection
from seqbag.regions import Regions
from seqbag.store import Model
from seqbag.tokens import Encoder, Spans, Vocabulary, mask_texts
from seqbag.whitening import pooling, whitening

EXACT_CODES = 1 << 18
KMEANS_CODES = 2048
_SAMPLE_ROWS = 4096
_SAMPLE_SITES = 1 << 16  # of the sampled rows that are clustered
_SITES = 1 << 14  # sites whose activations are held at once
_CACHED_ROWS = 256  # rows of a cache that go through a layer at once
_PROJECTED = 64
_WHITENING_ROWS = 1024  # of the sampled images, whose patches are many
_WHITENED = 3  # sites along each axis of the patches that are whitened
_TAIL = "tail:8,2,1"
_KEPT_WINDOWS = 2000  # the commonest, kept in the model to explain it


@dataclass
class LayerReport:
    """Figures of one layer. Accuracies are on held-out rows: of the counts, and of the real forward pass."""

    patches: int
    distinct: int
    codebook: int
    bags: int
    proxy_accuracy: float
    valid_accuracy: float = float("nan")
    seconds: float = 0.0


@dataclass
class Trained:
    """A net, what it was trained on, and what is needed to explain it.

    windows, window_counts: per group of the first layer, the commonest windows in token ids (m, width), and their
    counts.
    """

    network: Network
    rows: int
    layers: list[LayerReport]
    valid_accuracy: float
    seconds: float
    vocabulary: Vocabulary | None
    windows: list[Int32s] = field(default_factory=list)
    window_counts: list[Int64s] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """The figures as JSON values; accuracies are null where nothing was held out."""
        figures: dict[str, Any] = {"rows": self.rows, "classes": len(self.network.classes)}
        figures["layers"] = [{name: _known(value) for name, value in asdict(layer).items()} for layer in self.layers]
        return {**figures, "valid_accuracy": _known(self.valid_accuracy), "seconds": self.seconds}

    def model(self, columns: dict[str, Any]) -> Model:
        """What `save` writes. columns: `kind`, `input` and `label` of the source, for later sources to be read by.

        Of the report all but the seconds is kept: the same training gives the same file.
        """
        report = self.report()
        for figures in (report, *report["layers"]):
            del figures["seconds"]
        lookup, vocabulary = self.network.lookup, self.vocabulary
        if lookup is None or vocabulary is None:
            return Model(self.network, columns, report)
        words = columns.get("kind") == "text" and self.network.config.tokenizer == "words"
        masks = mask_texts(len(vocabulary)) if words else {}
        texts = [masks.get(token) or vocabulary.decode(token) for token in np.flatnonzero(lookup > UNKNOWN).tolist()]
        windows = [embed(windows, lookup) for windows in self.windows]
        return Model(self.network, columns, report, texts, windows, self.window_counts)


def _listed(classes: tuple[str, ...], most: int = 8) -> str:
    more = f" and {len(classes) - most} more" if len(classes) > most else ""
    return f"{len(classes)} classes: {', '.join(classes[:most])}{more}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def train(source: Source, config: TrainConfig, progress: Progress | None = None) -> Trained:
    """Train a net on a source of labelled rows. Raises DataError with one line for data that cannot be trained on."""
    with Workers(config.threads) as workers:
        return _Trainer(source, config, progress or Silent(), workers).run()


class _Trainer:
    def __init__(self, source: Source, config: TrainConfig, progress: Progress, workers: Workers) -> None:
        self.source, self.config, self.progress, self.workers = source, config, progress, workers
        self.rng = np.random.default_rng(config.seed)
        self.encoder = Encoder("list" if source.kind == "tokens" else config.tokenizer, config.vocabulary)
        self.vocabulary = Vocabulary(config.vocabulary)
        self.sample = RowSample(_SAMPLE_ROWS, config.seed)
        self.index = ClassIndex()
        self.rows = 0
        self.fingerprint = source.fingerprint
        self.reports: list[LayerReport] = []
        self.network = Network(config, (), None)
        self.polisher: Polisher | None = None
        self.kept: MapCache | None = None  # the input of the newest layer
        self.fitter = Fitter(config, self.rng, workers, self.progress)

    def run(self) -> Trained:
        started = time.perf_counter()
        trained = Trained(self.network, 0, self.reports, float("nan"), 0.0, self.vocabulary)
        for number in range(self.config.layers):
            layer_started = time.perf_counter()
            if number == 0 and self.source.kind != "image":
                counts = self._count_tokens()
                self._explain(trained, counts)
            else:
                if number == 0:
                    self._whiten()
                counts = self._count_vectors(number)
                if number:
                    self._calibrate(counts)
            accuracy = self._fit(number, counts)
            self.reports.append(
                LayerReport(
                    counts.patches,
                    sum(len(c.counts) for c in counts.codebooks),
                    sum(c.capacity if isinstance(c, ExactCodebook) else c.k for c in counts.codebooks),
                    counts.bags.size,
                    accuracy,
                    seconds=time.perf_counter() - layer_started,
                )
            )
        books = counts.codebooks
        exact = bool(books) and all(isinstance(book, ExactCodebook) and not book.overflowed for book in books)
        self._finish(exact and self.config.layers == 1)
        trained.rows, trained.valid_accuracy = self.rows, self.reports[-1].valid_accuracy
        trained.seconds = time.perf_counter() - started
        return trained

    def _count_tokens(self) -> LayerCounts:
        """First pass: classes, vocabulary, row sample, and the exact counts of the first layer."""
        config = self.config
        regions = Regions.parse(config.regions or (_TAIL if self.source.kind == "tokens" else "whole"))
        books = [ExactCodebook(width, config.codebook or EXACT_CODES) for width in config.windows]
        groups = len(books)
        counts = LayerCounts(
            self._patchers(), books, regions, Bags(groups, regions.count()), Bags(groups, regions.count())
        )
        anything = False
        for first, rows in stream(self.source, self.progress, "layer 1: counting windows"):
            labels = self.index.update(rows.labels, first)
            held = hold_out(first, len(rows), config.valid_fraction, config.seed)
            maps = self._first_maps(rows, held)
            anything = anything or not empty_input(rows)
            self.sample.update(maps, first)
            counts.update(maps, labels, held, np.empty((len(rows), 0), np.float16))
            self.rows += len(rows)
        if not anything:
            raise DataError(f"{self.source.describe()}: every row is empty, there is nothing to learn from")
        classes, order = self.index.order()
        if counts.bags.rows == 0:
            raise DataError(f"all {self.rows} rows are held out: give a smaller --valid-fraction")
        self.progress.note(f"{_listed(classes)}; {counts.held_out.rows:,} of {self.rows:,} rows held out")
        counts.bags.relabel(order)
        counts.held_out.relabel(order)
        self.network.classes = classes
        self.network.lookup = self._lookup()
        return counts

    def _whiten(self) -> None:
        """First pass over images: classes, row sample, and the whitening layer."""
        for first, rows in stream(self.source, self.progress, "sampling"):
            self.index.update(rows.labels, first)
            assert isinstance(rows.input, ImageColumn)
            if not self.rows:
                self.network.shape = rows.input.pixels.shape[1:]
            self.sample.update(self.network.encode(rows.input), first)
            self.rows += len(rows)
        self.network.classes, _ = self.index.order()
        grid, activation = self.network.shape[:-1], self.config.activation
        patcher = Patcher((_WHITENED,) * len(grid), (1,) * len(grid), "same")
        sample = self.sample.maps()
        some = sample.part(0, min(len(sample), _WHITENING_ROWS))
        self.network.layers.append(whitening(some, patcher, activation, pooling(grid)))

    def _first_maps(self, rows: Rows, held: npt.NDArray[np.bool_]) -> Maps:
        """Hashed token ids of a batch; the tokens of training rows are counted and their text is learned."""
        assert not isinstance(rows.input, ImageColumn)
        ids, offsets, spans = self.encoder.locate(rows.input)
        seen = np.repeat(~held, np.diff(offsets))
        known = Spans(spans.data, spans.starts[seen], spans.sizes[seen], spans.folded)
        self.vocabulary.update(ids[seen], known)
        return Maps(ids, offsets)

    def _lookup(self) -> Int32s:
        """Embedding row of each hashed token id."""
        lookup = np.full(self.config.vocabulary, UNKNOWN, np.int32)
        seen = np.flatnonzero(self.vocabulary.counts)
        lookup[0] = 0
        lookup[seen] = np.arange(2, 2 + len(seen), dtype=np.int32)
        return lookup

    def _count_vectors(self, number: int) -> LayerCounts:
        """A later pass: rows go through the frozen layers, their windows to the nearest of k centroids."""
        sample = self._embedded(self.sample.maps())
        rows = max(1, int(np.searchsorted(sample.offsets, self._most(_SAMPLE_SITES), side="right")) - 1)
        _, sampled = self.network.forward(sample.part(0, rows))
        axes = sampled.axes
        patchers = self._patchers(axes)
        books = [self._centroids(sampled, patcher) for patcher in patchers] if self._counting() else []
        regions = self.network.layers[-1].regions
        if regions.kind == "none":
            regions = Regions.parse(self.config.regions or "grid:2")
        dense = sum(layer.features(axes) for layer in self.network.layers)
        bags, held_bags = (Bags(len(books), regions.count(axes), dense) for _ in range(2))
        counts = LayerCounts(patchers if books else (), books, regions, bags, held_bags)
        if self.config.polish:
            beside = self.kept.nbytes if self.kept is not None else 0
            self.polisher = Polisher(self.source, self.config, self.network, self.rows, sampled, self._labels, beside)
            if self.polisher.crowded and self.polisher.keep is not None:
                self.kept = None
        keep = self.polisher.keep if self.polisher is not None else None
        for labels, held, forward in self._forwarded(f"layer {number + 1}: counting windows"):
            halves = [features.astype(np.float16) for features, _ in forward]
            for view, (_, outputs) in enumerate(forward):
                counts.update(outputs, labels, held, halves[view], training_only=view > 0)
            if keep is not None:
                keep.update([maps for _, maps in forward], labels, held, halves)
        return counts

    def _forwarded(self, task: str) -> Iterator[tuple[Int32s, npt.NDArray[np.bool_], list[tuple[Float32s, Maps]]]]:
        """All rows, part by part: labels, which are held out, and what the network makes of them, in each view.

        From the cache of the newest layer's input if there is one, else from the source.
        """
        kept, self.kept = self.kept, None
        if kept is None:
            for first, batch in self._again(task):
                held = hold_out(first, len(batch), self.config.valid_fraction, self.config.seed)
                labels = self._labels(batch, first)
                columns = views(batch.input, self.config.flips)
                inputs = [self.network.encode(column).parts(self._most(_SITES)) for column in columns]
                for start in range(0, len(inputs[0]), self.config.threads):
                    several = slice(start, start + self.config.threads)
                    done = self._forward([maps for view in inputs for _, maps in view[several]], 0)
                    for at, (rows, _) in enumerate(inputs[0][several]):
                        yield labels[rows], held[rows], done[at :: len(inputs[0][several])]
            return
        self.progress.begin(task, kept.rows, "rows")
        for part in np.array_split(np.arange(kept.rows), -(-kept.rows // _CACHED_ROWS)):
            pieces = np.array_split(part, self.config.threads)
            inputs_kept = [kept.maps(piece, view) for view in range(kept.views) for piece in pieces]
            done = self._forward(inputs_kept, len(self.network.layers) - 1)
            for at, piece in enumerate(pieces):
                forward = [
                    (np.concatenate([kept.features[piece * kept.views + view], features], axis=1), maps)
                    for view, (features, maps) in enumerate(done[at :: len(pieces)])
                ]
                yield kept.labels[piece], kept.held[piece], forward
            self.progress.advance(len(part))
        self.progress.end()

    def _forward(self, inputs: list[Maps], first: int) -> list[tuple[Float32s, Maps]]:
        """What the layers from `first` on make of several maps, shared between the threads."""
        done: list[tuple[Float32s, Maps] | None] = [None] * len(inputs)

        def work(start: int, stop: int) -> None:
            for at in range(start, stop):
                done[at] = self.network.forward(inputs[at], first)

        self.workers.split(len(inputs), work)
        return [result for result in done if result is not None]

    def _counting(self) -> bool:
        """Whether a layer of vectors is trained on counts, if only to start with."""
        return not self.config.polish or self.config.codebook is not None

    def _most(self, sites: int) -> int:
        """Sites to take at once: of images more, as each has many."""
        return sites if self.source.kind != "image" else 8 * sites

    def _centroids(self, outputs: Maps, patcher: Patcher) -> KMeans:
        """A codebook of the windows of the sampled rows; frozen, so that counting merges exactly."""
        windows = outputs.windows(patcher)[0].astype(np.float32)
        if len(windows) == 0:
            raise DataError("the sampled rows hold no tokens: there is nothing to cluster")
        moments = Moments.of(windows.shape[1], np.float32)
        moments.update(windows)
        projection = Projection.fit(moments, min(_PROJECTED, windows.shape[1]), 0.01)
        k = min(self.config.codebook or KMEANS_CODES, max(1, len(windows) // 4))
        codebook = KMeans(
            k, windows.shape[1], np.float32, self.rng, projection=projection, sample=16 * k, start_after=len(windows),
            threads=self.config.threads,
        )  # fmt: skip
        codebook.update(windows)
        codebook.freeze()
        return codebook

    def _fit(self, number: int, counts: LayerCounts) -> float:
        """Train the layer on its counts and freeze it. Returns the proxy's accuracy on held-out rows."""
        task = f"layer {number + 1}: training"
        if self.config.regions is None and counts.regions.kind == "tail" and number == 0:
            counts = self.fitter.choose_regions(counts, self.network)
        layer, accuracy = None, float("nan")
        if counts.codebooks:
            layer, self.network.classifier, accuracy = self.fitter.fit(counts, self.network, task)
        if self.polisher is not None:
            task = f"layer {number + 1}: polishing"
            patchers = self._patchers(len(self.polisher.grid))
            weights = self.fitter.class_weights(counts.bags, len(self.network.classes))
            layer, accuracy = self.polisher.run(patchers, layer, weights, self.workers, self.rng, self.progress, task)
            self.kept, self.polisher = self.polisher.keep, None
        assert layer is not None
        if self.network.shape:
            layer = replace(layer, pooling=pooling(self.network.output_grid()))
        self.network.layers.append(layer)
        return accuracy

    def _finish(self, exact: bool) -> None:
        """Measure the net on the held-out rows as they really are; refit the classifier unless it was exact."""
        axes = max(1, len(self.network.shape) - 1)
        bags, held_out = (Bags(0, 1, sum(layer.features(axes) for layer in self.network.layers)) for _ in range(2))
        counts = LayerCounts((), [], Regions("whole"), bags, held_out)
        if exact:
            for first, rows in self._again("measuring"):
                held = hold_out(first, len(rows), self.config.valid_fraction, self.config.seed)
                chosen = np.flatnonzero(held)
                maps, labels = take(self.network.encode(rows.input), chosen), self._labels(rows, first)[chosen]
                counts.update(maps, labels, held[chosen], self.network.features(maps).astype(np.float16))
        else:
            for labels, held, forward in self._forwarded("measuring"):
                for view, (features, outputs) in enumerate(forward):
                    counts.update(outputs, labels, held, features.astype(np.float16), training_only=view > 0)
        self._calibrate(counts, refit=not exact)

    def _calibrate(self, counts: LayerCounts, refit: bool = True) -> None:
        """Refit the newest classifier on the true features in the bags, and note its accuracy on the held-out ones.

        After a polish, which trains without the features of the layers below, the classifier is a new one.
        """
        task = f"layer {len(self.reports)}: calibrating"
        if self.config.polish:
            self.network.classifier, self.reports[-1].valid_accuracy = self.fitter.classifier(
                counts, self.network.classes, task, final=len(self.reports) == self.config.layers
            )
            return
        assert self.network.classifier is not None
        self.reports[-1].valid_accuracy = self.fitter.calibrate(self.network.classifier, counts, task, refit)

    def _labels(self, rows: Rows, first: int) -> Int32s:
        """Class numbers, sorted by name, of a later pass."""
        known = len(self.index.numbers)
        labels = self.index.update(rows.labels, first)
        if len(self.index.numbers) != known:
            raise self._changed()
        return self.index.order()[1][labels]

    def _again(self, task: str) -> Iterator[tuple[int, Rows]]:
        """The rows once more. Raises DataError if they are seen to be others than before."""
        read = 0
        for first, rows in stream(self.source, self.progress, task):
            read = first + len(rows)
            yield first, rows
        if read != self.rows or self.source.fingerprint != self.fingerprint:
            raise self._changed()

    def _changed(self) -> DataError:
        return DataError(f"{self.source.describe()} changed between passes: train again on data that stays as it is")

    def _patchers(self, axes: int = 1) -> tuple[Patcher, ...]:
        return tuple(Patcher((width,) * axes, (1,) * axes, "same") for width in self.config.windows)

    def _embedded(self, maps: Maps) -> Maps:
        if self.network.lookup is None:
            return maps
        return Maps(embed(maps.values.astype(np.int32, copy=False), self.network.lookup), maps.offsets)

    def _explain(self, trained: Trained, counts: LayerCounts) -> None:
        """Keep the commonest windows, for `inspect`."""
        for book in counts.codebooks:
            assert isinstance(book, ExactCodebook)
            commonest = np.argsort(-book.counts, kind="stable")[:_KEPT_WINDOWS]
            trained.windows.append(book.windows[commonest])
            trained.window_counts.append(book.counts[commonest])
