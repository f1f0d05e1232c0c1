"""How the trainer polishes a layer: the maps it needs, kept in memory or made again each epoch, and the run itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import gcd

import numpy as np
import numpy.typing as npt

from seqbag.augment import seen
from seqbag.bags import Halves
from seqbag.batch import Float32s, ImageColumn, Int32s, Rows, Source
from seqbag.bytescale import ByteScale
from seqbag.classifier import Classifier
from seqbag.config import TrainConfig
from seqbag.filters import Standardiser, VectorFilters, sign_biases
from seqbag.head import EpochReport, Schedule
from seqbag.layer import Layer, Maps, channels_read, layer_of_readout
from seqbag.levels import Levels
from seqbag.mapcache import MapCache, MapScale
from seqbag.network import Network
from seqbag.parallel import Workers
from seqbag.passes import Forwarded, hold_out, stream
from seqbag.patches import Patcher
from seqbag.polish import Blocks, Polish, Sampler
from seqbag.progress import Progress, Silent
from seqbag.regions import Regions
from seqbag.spill import PROCESS

BATCH = 128
RATE = 2e-3  # 0.8484 of the images held out by a second layer, where 0.005 gives 0.8426 and turns signs at random
_CACHE_SHARE = 0.9  # of the memory that the process leaves, for maps that are kept
_BLOCK_SHARE = 0.3  # of the memory, for a block of maps that are made again each epoch
_READ_OUT = 2  # layers, with a third one's learned by heart: 0.848 of sampled images held out instead of 0.876
_SITES_A_SHIFT = 8  # along an axis: of four, a third layer moved by one learns 0.846 of the images held out, not 0.8555
_FIT_WINDOWS = 1 << 14  # sampled windows that the inputs are standardised by


class Polisher:
    """Polishes one layer of a network on the rows of a source.

    keep: a cache for all rows, to be filled while they stream by, in as many views as the memory has room for; None if
    that is none.
    """

    def __init__(
        self, source: Source, config: TrainConfig, network: Network, rows: int, features: Halves, sample: Maps,
        labels: Callable[[Rows, int], Int32s], below: MapCache | None,
    ) -> None:  # fmt: skip
        """features, sample: of some rows, what the layers below pool and what the layer takes; rows: of the source;
        labels: classes of a batch.

        below: the cache of the layer below, if there is one, which this one is filled from.
        """
        assert sample.grid is not None
        self.source, self.config, self.network, self.rows, self.grid = source, config, network, rows, sample.grid
        self.labels, self._scale = labels, _scale(network, sample)
        self._sample = sample.part(0, min(len(sample), max(1, _FIT_WINDOWS // int(np.prod(sample.grid)))))
        edges = np.cumsum([0, *network.widths()])
        scales = [ByteScale.of(own) for own in np.split(features, edges[:-1], axis=1)]
        widths = [len(own) for own in scales]
        room = int(_CACHE_SHARE * (config.memory - PROCESS))
        views = config.views if below is None else below.views
        views = min(views, room // MapCache.bytes_needed(rows, 1, self.grid, self._scale, widths))
        self.keep = MapCache(rows, views, self.grid, self._scale, scales, below) if views else None

    def run(
        self, patchers: tuple[Patcher, ...], start: Layer | None, class_weights: Float32s, workers: Workers,
        rng: np.random.Generator, progress: Progress, task: str,
    ) -> tuple[Layer, Classifier, float]:  # fmt: skip
        """Train filters, from those of the counts (`start`) if given.

        Returns the layer, the classifier it was trained with, and the held-out accuracy of the two.
        """
        config = self.config
        regions = Regions.parse(config.regions or "grid:2").on(self.grid)
        shift = min(config.shift, min(self.grid) // _SITES_A_SHIFT)
        quantise, own = config.activation == "sign", config.filters_of(self.network.depth)
        # Filters of the counts read all channels, and so do those over a whitened image, whose channels are few.
        alone = start is not None or self.network.depth == 0
        groups = 1 if alone else gcd(config.channel_groups, self._scale.readers, own)
        patchers, own = tuple(patcher for patcher in patchers for _ in range(groups)), own // groups
        sampler = Sampler(patchers, regions, self.grid, config.samples, shift)
        axes = self.network.layers[-1].projection is not None
        filters = VectorFilters(_inputs(patchers, groups, self._sample, quantise, axes), own, rng, quantise)
        if start is not None:
            filters.load(start.weights, tuple(np.atleast_2d(bias).mean(0) for bias in start.biases))
        channels, width, readout = own * len(patchers), config.readout, None
        if self.network.depth >= _READ_OUT:
            width = 0
        if width:
            readout = VectorFilters([Standardiser.none(channels)], width, rng, quantise, "readout.")
        features = regions.count(len(self.grid)) * ((width or channels) + 1)
        classifier = Classifier(features, config.hidden, len(self.network.classes), rng)
        polish = Polish(sampler, filters, readout, classifier, config.activation, workers, rng, groups, config.signs)

        def report(epoch: EpochReport) -> None:
            progress.advance(1, f"loss {epoch.loss:.4f}, held-out accuracy (sampled) {epoch.accuracy:.4f}")

        progress.begin(task, config.polish, "epochs")
        schedule = Schedule(config.polish, BATCH, RATE)
        rows = int(self.rows * (1 - config.valid_fraction))
        accuracy = polish.fit(
            self._blocks(), rows, schedule, class_weights, config.smoothing_for(rows), config.decay, report
        )
        progress.end()
        frozen = [filters.frozen(group) for group in range(len(patchers))]
        weights, biases = tuple(w for w, _ in frozen), tuple(sign_biases(b, config.signs) for _, b in frozen)
        behind = None
        if readout is not None:
            w, b = readout.frozen(0)
            behind = layer_of_readout(w, sign_biases(b, config.signs), config.activation, regions, len(self.grid))
        layer = Layer(patchers, weights, biases, config.activation, regions, channel_groups=groups, readout=behind)
        return layer, classifier, accuracy

    def _blocks(self) -> Blocks:
        if self.keep is not None:
            kept = [self.keep]
            return lambda epoch: kept
        return self._made_again

    def _made_again(self, epoch: int) -> Iterator[MapCache]:
        """The rows once more through the layers below, seen in another view each epoch, block by block."""
        config = self.config
        room = config.memory * _BLOCK_SHARE / MapCache.bytes_needed(1, 1, self.grid, self._scale)
        block: MapCache | None = None
        size = max(1, min(int(room), self.rows))
        for first, rows in stream(self.source, Silent(), ""):
            assert isinstance(rows.input, ImageColumn)
            numbers = np.arange(first, first + len(rows))
            column = seen(rows.input, epoch % config.views, numbers, config.seed)
            features, maps = self.network.forward(self.network.encode(column))
            held = hold_out(first, len(rows), config.valid_fraction, config.seed)
            labels = self.labels(rows, first)
            for start, stop in _pieces(block.rows if block else 0, len(rows), size):
                block = block or MapCache(size, 1, self.grid, self._scale)
                view = features[start:stop], maps.part(start, stop)
                block.update(Forwarded(labels[start:stop], held[start:stop], None, [view]))
                if block.rows == size:
                    yield block
                    block = None
        if block is not None:
            yield block


def _scale(network: Network, sample: Maps) -> MapScale:
    """How to keep maps that look like these, which the network makes."""
    newest = network.layers[-1]
    if newest.activation != "sign":
        return ByteScale.of(sample.values)
    return Levels.of(newest)


def _pieces(filled: int, rows: int, size: int) -> list[tuple[int, int]]:
    """Ranges of the rows of a batch that fill blocks of `size` rows, the first of which holds `filled` already."""
    edges = [0, *range(size - filled, rows, size), rows]
    return [(a, b) for a, b in pairwise(edges) if a < b]


def _inputs(patchers: tuple[Patcher, ...], groups: int, sample: Maps, quantise: bool, axes: bool) -> list[Standardiser]:
    """Signs, or their means, are taken as they are, so that they stay bits; principal axes keep what they vary."""
    inputs = []
    for group, patcher in enumerate(patchers):
        read = sample.channels(channels_read(group, groups))
        windows: npt.NDArray[np.float32] = read.windows(patcher)[0].astype(np.float32, copy=False)
        none = quantise or len(windows) == 0
        size = windows.shape[1]
        made = Standardiser.none(size) if none else Standardiser.of(windows, np.ones(len(windows), np.int64))
        inputs.append(made.alike() if axes and not none else made)
    return inputs
