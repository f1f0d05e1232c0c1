"""Polish: training a layer's filters on a few of each example's real windows a step, drawn anew each time.

What the counts cannot tell (windows of one code differ) the data can, and a few windows of an example, spread over its
regions, stand for all of them: at 32 of 256 windows a step costs an eighth of the convolution. There is still no
gradient through a second layer but the readout: one of 1x1 windows over the sampled activations, which are pooled only
behind it. It stays with its layer, whose filters learn to be of use to another layer, and not to a mean alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s, Int32s
from seqbag.classifier import Classifier, cross_entropy
from seqbag.features import pooled_features, pooled_gradient, takes_means
from seqbag.filters import Gradients, VectorFilters, activations
from seqbag.head import ACTIVATIONS, Activation, EpochReport, Schedule
from seqbag.kernels.filters import SIGN, activation_gradient
from seqbag.kernels.maps import spread_samples, sum_samples
from seqbag.layer import as_inputs, channels_read
from seqbag.mapcache import MapCache
from seqbag.optimiser import FILTERS, Optimiser, one_cycle
from seqbag.parallel import Workers
from seqbag.patches import Patcher
from seqbag.regions import Regions

_PIECE = 32  # examples a thread takes at a time
_TEST_ROWS = 4096  # held-out rows, at most, for the accuracy shown after an epoch
Blocks = Callable[[int], Iterable[MapCache]]


@dataclass(frozen=True, slots=True)
class _Tape:
    """Of a piece of a batch, (b * m) windows: what the backward pass reads.

    windows: of each group (b * m, d); values: of each group, before and after the activation (b * m, F); inside: what
    the readout takes (b * m, all F), if there is one; read: its values before and after the activation.
    """

    windows: list[Float32s]
    values: list[tuple[Float32s, Float32s]]
    inside: list[Float32s]
    read: list[tuple[Float32s, Float32s]]


class Sampler:
    """Where windows are drawn: about `samples` an example, in equal shares of each region, spread over it.

    index: per group (s, window) int32, the input sites of each place a window may stand, -1 for padding; segments:
    (m,) int32, the region of each sample; weights: (m,) float32, how many sites of its region a sample stands for.
    shift: examples are moved by up to so many sites along each axis, differently each time; what comes from outside
    reads nought.
    """

    def __init__(
        self, patchers: tuple[Patcher, ...], regions: Regions, grid: tuple[int, ...], samples: int, shift: int
    ) -> None:
        axes, wide = len(grid), tuple(size + 2 * shift for size in grid)
        strides = np.cumprod((1, *wide[:0:-1]))[::-1]
        inside = (np.stack(np.unravel_index(np.arange(np.prod(grid)), grid), axis=1) + shift) @ strides
        site_of = np.full(int(np.prod(wide)), -1, np.int32)
        site_of[inside] = np.arange(len(inside), dtype=np.int32)
        self.regions = regions
        made: dict[Patcher, Int32s] = {}
        for patcher in set(patchers):
            window = patcher.grid_index(wide)
            made[patcher] = np.where(window >= 0, site_of[window], -1).astype(np.int32)
        self.index = [made[patcher] for patcher in patchers]
        region = regions.segments(np.array([0, len(inside)], np.int64), grid)
        count = regions.count(axes)
        self._members = [inside[region == r] for r in range(count)]
        self._taken = [min(len(own), max(1, round(samples / count))) for own in self._members]
        shares = [len(own) / max(taken, 1) for own, taken in zip(self._members, self._taken, strict=True)]
        self.segments: Int32s = np.repeat(np.arange(count, dtype=np.int32), self._taken)
        self.weights: Float32s = np.repeat(np.array(shares, np.float32), self._taken)
        self.lengths: Float32s = np.array([len(own) for own in self._members], np.float32)
        moves = np.meshgrid(*[np.arange(-shift, shift + 1)] * axes, indexing="ij")
        self._moves = np.stack(moves, axis=-1).reshape(-1, axes) @ strides

    def draw(self, examples: int, rng: np.random.Generator, move: bool = True) -> Int32s:
        """(examples, m) int32: rows of `index`."""
        parts = []
        for own, taken in zip(self._members, self._taken, strict=True):
            at = (np.arange(taken) + rng.random((examples, taken), np.float32)) * (len(own) / max(taken, 1))
            parts.append(own[np.minimum(at.astype(np.intp), len(own) - 1)])
        sites = np.concatenate(parts, axis=1)
        if move:
            sites += self._moves[rng.integers(0, len(self._moves), examples)][:, None]
        return sites.astype(np.int32)


class Polish:
    """One layer in training on sampled windows: filters, readout, pooling over regions, auxiliary classifier."""

    def __init__(
        self, sampler: Sampler, filters: VectorFilters, readout: VectorFilters | None, classifier: Classifier,
        activation: Activation, workers: Workers, rng: np.random.Generator, channel_groups: int = 1, signs: int = 1,
    ) -> None:  # fmt: skip
        """readout: filters over the activations of all others, or None to pool those; the last two: see `Layer`."""
        self.sampler, self.filters, self.readout, self.classifier = sampler, filters, readout, classifier
        self.channel_groups, self.signs = channel_groups, signs
        self.activation, self.workers, self.rng = ACTIVATIONS[activation], workers, rng
        self._means = takes_means(sampler.regions)

    def fit(
        self, blocks: Blocks, rows: int, schedule: Schedule, class_weights: Float32s, smoothing: float, decay: float,
        report: Callable[[EpochReport], None],
    ) -> float:  # fmt: skip
        """Train on the rows that are not held out; blocks(epoch) yields them all, in one cache or in several.

        rows: how many rows that is, for the rate. Returns the accuracy on (samples of) held-out rows.
        """
        # Muon is faster at first (0.837 for 0.824 after five epochs of a second layer), but learns by heart what Adam
        # does not: 0.856 after three long layers, where Adam reached 0.865. Signs, which fit far less, keep it for the
        # filters: 0.8166 of the images held out by a third layer, with the hidden layer by Muon, too, 0.8008.
        quantised = self.filters.quantise
        behind = {} if self.readout is None else self.readout.parameters
        parameters = {**self.filters.parameters, **behind, **self.classifier.parameters}
        optimiser = Optimiser(parameters, decay, self.workers, FILTERS if quantised else (), quantised)
        steps = max(1, schedule.epochs * (rows // schedule.batch))
        done, accuracy = 0, float("nan")
        for epoch in range(schedule.epochs):
            losses, right, tested, first = 0.0, 0, 0, done
            for block in blocks(epoch):
                order = self.rng.permutation(np.flatnonzero(~block.held))
                batches = np.array_split(order, max(1, len(order) // schedule.batch))
                for chosen in batches if len(order) else []:  # all of a small block may be held out
                    rate = one_cycle(min(done, steps - 1), steps, schedule.rate)
                    losses += self._step(block, chosen, class_weights, smoothing, optimiser, rate)
                    done += 1
                chosen = np.flatnonzero(block.held)[: max(0, _TEST_ROWS - tested)]
                right, tested = right + self._right(block, chosen), tested + len(chosen)
            accuracy = right / tested if tested else float("nan")
            report(EpochReport(epoch + 1, schedule.epochs, losses / max(1, done - first), accuracy))
        return accuracy

    def _step(
        self, block: MapCache, chosen: npt.NDArray[np.intp], class_weights: Float32s, smoothing: float,
        optimiser: Optimiser, rate: float,
    ) -> float:  # fmt: skip
        views = chosen * block.views + self.rng.integers(0, block.views, len(chosen))
        sums, tapes = self._forward(block, views, self.sampler.draw(len(chosen), self.rng))
        weights = class_weights[block.labels[chosen]]
        logits, tape = self.classifier.training_pass(self._features(sums), weights)
        target = np.full(logits.shape, smoothing / logits.shape[1], np.float32)
        target[np.arange(len(chosen)), block.labels[chosen]] += 1 - smoothing
        self.classifier.follow(tape)
        loss, gradient = cross_entropy(logits, target, weights)
        gradients = Gradients()
        of_features = self.classifier.features_gradient(self.classifier.backward(gradient, tape, gradients), tape)
        slopes = self._slopes(of_features, sums)
        parts = [gradients, *self._backward(slopes, tapes)]
        optimiser.step(parts, rate)
        return loss

    def _right(self, block: MapCache, chosen: npt.NDArray[np.intp], batch: int = 256) -> int:
        """How many of the examples are classified right from a sample of their windows."""
        right = 0
        for start in range(0, len(chosen), batch):
            part = chosen[start : start + batch]
            sites = self.sampler.draw(len(part), self.rng, move=False)
            logits = self.classifier.logits(self._features(self._forward(block, part * block.views, sites)[0]))
            right += int((logits.argmax(1) == block.labels[part]).sum())
        return right

    def _features(self, sums: Float32s) -> Float32s:
        return pooled_features(sums, self._lengths(sums), self._means)

    def _slopes(self, gradient: Float32s, sums: Float32s) -> Float32s:
        return pooled_gradient(gradient, sums, self._lengths(sums) if self._means else None)

    def _lengths(self, sums: Float32s) -> Float32s:
        return np.broadcast_to(self.sampler.lengths, sums.shape[:2])

    def _forward(self, block: MapCache, views: npt.NDArray[np.intp], sites: Int32s) -> tuple[Float32s, list[_Tape]]:
        """Sums (b, regions, filters), of the readout's if there is one, and a tape for each piece of the batch."""
        starts, readout = range(0, len(views), _PIECE), self.readout
        settled = self.filters.settled(), None if readout is None else readout.settled()
        parts = [slice(start, start + _PIECE) for start in starts]
        done = self.workers.map(parts, lambda part: self._forward_piece(*settled, block, views[part], sites[part]))
        return np.concatenate([sums for sums, _ in done]), [tape for _, tape in done]

    def _forward_piece(
        self, filters: VectorFilters, readout: VectorFilters | None, block: MapCache, views: npt.NDArray[np.intp],
        sites: Int32s,
    ) -> tuple[Float32s, _Tape]:  # fmt: skip
        windows = []
        for group, (inputs, index) in enumerate(zip(filters.inputs, self.sampler.index, strict=True)):
            read = channels_read(group, self.channel_groups)
            windows.append(np.empty((sites.size, len(inputs.mean)), np.float32))
            offset = -inputs.mean * inputs.scale
            block.scale.sample(block.codes, views, sites, index, read, inputs.scale, offset, windows[-1])
        values = activations(filters, windows, self.activation, self.signs)
        tape = _Tape(windows, values, [], [])
        active = np.concatenate([after for _, after in values], axis=1) if len(values) > 1 else values[0][1]
        if readout is not None:
            tape.inside.append(as_inputs(active, self.activation))
            tape.read.extend(activations(readout, tape.inside, self.activation, self.signs))
            active = tape.read[0][1]
        sums = np.empty((len(views), len(self.sampler.lengths), active.shape[1]), np.float32)
        sum_samples(active, self.sampler.segments, self.sampler.weights, sums)
        return sums, tape

    def _backward(self, slopes: Float32s, tapes: list[_Tape]) -> list[Gradients]:
        """Gradients of the filters and of the readout, of each piece apart."""
        edges = np.cumsum([0, *self.filters.sizes])
        readout = None if self.readout is None else self.readout.settled()

        def work(number: int) -> Gradients:
            tape, gradients, changes = tapes[number], Gradients(), []
            own = slopes[number * _PIECE : (number + 1) * _PIECE]
            change = np.empty((own.shape[0] * len(self.sampler.segments), own.shape[2]), np.float32)
            spread_samples(own, self.sampler.segments, self.sampler.weights, change)
            if readout is not None:
                activation_gradient(*tape.read[0], self.activation, change)
                readout.backward(tape.inside, [change], gradients)
                change = readout.inputs_gradient(0, change)
                if self.activation == SIGN:
                    change *= np.float32(2)  # from -1 to +1 is twice as far as from 0 to 1
            for group, (before, after) in enumerate(tape.values):
                changes.append(np.ascontiguousarray(change[:, edges[group] : edges[group + 1]]))
                activation_gradient(before, after, self.activation, changes[-1])
            self.filters.backward(tape.windows, changes, gradients)
            return gradients

        return self.workers.map(range(len(tapes)), work)
