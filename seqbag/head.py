"""Training of one layer: filters and an auxiliary classifier, on bags and the windows their codes stand for.

An example's pooled activations are the count-weighted sum of the activations of its codes, so that each step applies
the filters once to every distinct window in a piece of the batch and not to every window of every example.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from seqbag.bags import Bags
from seqbag.batch import Float32s, Int32s, Int64s
from seqbag.classifier import Classifier, Tape, cross_entropy
from seqbag.features import pooled_features, pooled_gradient, takes_means
from seqbag.filters import Filters, Gradients, activations
from seqbag.kernels.bagmath import visited_bags
from seqbag.kernels.filters import RELU, SIGN, TANH, activation_gradient, gather_bags, sum_rows
from seqbag.optimiser import MATRICES, Optimiser, one_cycle
from seqbag.parallel import Workers
from seqbag.regions import Regions

_Judged = TypeVar("_Judged")
_Share = tuple[Int32s, float]  # some visits, and the share of each bag in a mixture, 1 without
Activation = Literal["relu", "tanh", "sign"]
ACTIVATIONS: dict[Activation, int] = {"relu": RELU, "tanh": TANH, "sign": SIGN}
_PIECE = 1024  # visits of a batch, about, that a thread passes at a time, and that are standardised by themselves
_TESTED = 4096  # bags, about, that are passed at a time where nothing is trained
_LOGITS = 1 << 24  # that are worked out at a time where nothing is trained
_STEPS = 16  # an epoch, at least, however often rows repeat
_SHOWN = 8192  # held-out bags, at most, for the accuracy shown after an epoch


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. epochs over the rows, bags a step, peak learning rate."""

    epochs: int
    batch: int
    rate: float

    @staticmethod
    def for_bags(bags: Bags, epochs: int | None = None) -> Schedule:
        """What was measured to do well from 5,000 to 700,000 rows: 20 epochs for few rows, 2 for many.

        Rows that repeat tell little anew, and a step costs what its distinct bags do: where each comes r times, a step
        takes sqrt(r) times as many, but no more than leave 16 steps an epoch. Training is as good in as much less time
        (17,000 rows of 500 bags: a quarter).
        """
        rows, repeats = max(bags.visits, 1), bags.visits / max(bags.size, 1)
        least = np.clip(np.round(np.log2(rows / 100)), 6, 11)
        more = min(np.round(np.log2(max(repeats, 1)) / 2), np.floor(np.log2(rows / _STEPS)) - least)
        batch = int(2 ** min(least + max(more, 0), 11))
        chosen = epochs if epochs is not None else int(np.clip(round(1500 / rows**0.5), 2, 20))
        return Schedule(chosen, batch, 0.02 * (batch / 2048) ** 0.5)

    def shortened(self) -> Schedule:
        """Two fifths of the epochs, in steps twice as large if those are small: enough where examples are clusters."""
        if self.batch > 256:
            return self
        return Schedule(-(-2 * self.epochs // 5), 2 * self.batch, self.rate * 2**0.5)


@dataclass(frozen=True)
class EpochReport:
    """What is known after an epoch.

    loss: mean training loss; accuracy: of the proxy, on a sample of the held-out bags (NaN without).
    """

    epoch: int
    epochs: int
    loss: float
    accuracy: float


class Head:
    """Filters + pooling + auxiliary classifier of one layer in training.

    windows: per group, what the codes stand for: (codes, width) int32 tokens or (codes, d) float32 vectors.
    """

    def __init__(
        self, windows: list[npt.NDArray[Any]], filters: Filters, classifier: Classifier, regions: Regions,
        activation: Activation, workers: Workers, signs: int = 1,
    ) -> None:  # fmt: skip
        """signs: of each filter, see `activations`."""
        self.windows, self.filters, self.classifier = windows, filters, classifier
        self.regions, self.activation, self.signs, self.workers = regions, ACTIVATIONS[activation], signs, workers
        self._means = takes_means(regions)
        self._scratch = _Scratch([len(rows) for rows in windows])

    def fit(
        self, bags: Bags, held_out: Bags, schedule: Schedule, rng: np.random.Generator, class_weights: Float32s,
        smoothing: float, decay: float, report: Callable[[EpochReport], None] | None = None, muon: bool = True,
        mixup: float = 0.0,
    ) -> None:  # fmt: skip
        """Train on `bags`. class_weights: (classes,), mean 1 over the rows; held_out: for the reports alone.

        muon: whether it moves the matrices, see `Optimiser`; mixup: if above 0, and for dense features alone, bags are
        mixed by twos in shares from Beta(mixup, mixup), drawn anew for each step (Zhang et al. 2018, arXiv 1710.09412).
        """
        parameters, moved = {**self.filters.parameters, **self.classifier.parameters}, MATRICES if muon else ()
        optimiser = Optimiser(parameters, decay, self.workers, moved, self.filters.quantise)
        labels = _Labels(bags, self.classifier.classes, class_weights, smoothing)
        steps_an_epoch = max(1, labels.visits // schedule.batch)
        shown = held_out.sample(_SHOWN, np.random.default_rng(0))
        for epoch in range(schedule.epochs):
            losses = 0.0
            steps = np.array_split(labels.order(rng), steps_an_epoch)
            shares = rng.beta(mixup, mixup, len(steps)).tolist() if mixup else [1.0] * len(steps)
            batches: list[list[_Share]] = [
                [(visits, share) for visits in _stretches(step, _PIECE)]
                for step, share in zip(steps, shares, strict=True)
            ]
            pieces = self.workers.map(batches[0], lambda part: self._cut(bags, labels, *part))
            for index, following in enumerate([*batches[1:], []]):
                rate = one_cycle(epoch * steps_an_epoch + index, schedule.epochs * steps_an_epoch, schedule.rate)
                loss, pieces = self._step(bags, labels, pieces, following, optimiser, rate)
                losses += loss
            if report is not None:
                report(EpochReport(epoch + 1, schedule.epochs, losses / steps_an_epoch, self.accuracy(shown)))

    def accuracy(self, bags: Bags, batch: int = _TESTED) -> float:
        """Share of the rows in bags whose class is the likeliest; NaN without rows."""
        right = self._judged(bags, batch, lambda own, best, counts: int(counts[own == best].sum()))
        return sum(right) / bags.rows if bags.size else float("nan")

    def confusion(self, bags: Bags, batch: int = _TESTED) -> Int64s:
        """(classes, classes) counts of rows: [class, prediction]."""
        shape = (self.classifier.classes,) * 2

        def part(own: Int32s, best: npt.NDArray[np.intp], counts: Int64s) -> Int64s:
            confusion = np.zeros(shape, np.int64)
            np.add.at(confusion, (own, best), counts)
            return confusion

        confusion: Int64s = sum(self._judged(bags, batch, part), np.zeros(shape, np.int64))
        return confusion

    def _judged(
        self, bags: Bags, batch: int, judge: Callable[[Int32s, npt.NDArray[np.intp], Int64s], _Judged]
    ) -> list[_Judged]:
        """What `judge` makes of some labels at a time: their class, the likeliest class, and how many rows have it."""
        pointers, classes, counts = bags.label_counts()
        batch = max(1, min(batch, _LOGITS // self.classifier.classes))

        def part(chosen: npt.NDArray[np.intp]) -> _Judged:
            best = self.classifier.logits(self.features(bags, chosen)).argmax(1)
            nodes = slice(pointers[chosen[0]], pointers[chosen[-1] + 1])
            owner = np.repeat(chosen - chosen[0], np.diff(pointers[chosen[0] : chosen[-1] + 2]))
            return judge(classes[nodes], best[owner], counts[nodes])

        return self.workers.map(_stretches(np.arange(bags.size), batch), part)

    def calibrate(self, bags: Bags, most: int, rng: np.random.Generator, batch: int = _TESTED) -> None:
        """Set the statistics the classifier standardises by from at most `most` of the bags, by the rows in each."""
        chosen = np.arange(bags.size)
        if bags.size > most:
            chosen = np.sort(rng.choice(bags.size, most, replace=False))
        pointers, _, counts = bags.label_counts()
        rows = np.diff(np.concatenate([[0], np.cumsum(counts)])[pointers])

        def part(chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
            features = self.features(bags, chosen).astype(np.float64)
            return np.stack([rows[chosen] @ features, rows[chosen] @ np.square(features)])

        total, square = sum(self.workers.map(_stretches(chosen, batch), part)) / rows[chosen].sum()
        self.classifier.standardise(total, np.maximum(square - np.square(total), 0))

    def features(self, bags: Bags, chosen: npt.NDArray[np.intp]) -> Float32s:
        """(b, features) float32 of the bags chosen (b,)."""
        return self._forward(self._gather(bags, chosen))[0]

    def _step(
        self, bags: Bags, labels: _Labels, pieces: list[_Piece], following: list[_Share],
        optimiser: Optimiser, rate: float,
    ) -> tuple[float, list[_Piece]]:  # fmt: skip
        """One step on the pieces of a batch: what comes out is the same on any number of threads.

        Returns the loss, and the pieces of the batch that follows, which are cut meanwhile by threads that are free.
        """
        visits = sum(piece.visits for piece in pieces)
        passed = self.workers.start(pieces, lambda piece: self._gradients(piece, piece.visits / visits))
        cut = self.workers.start(following, lambda part: self._cut(bags, labels, *part))
        parts = passed()
        for _, _, tape in parts:
            self.classifier.follow(tape)
        moved = optimiser.start([gradients for _, gradients, _ in parts], rate)
        pieces = cut()  # of which this thread takes one, where another began before it was here: both end at about once
        moved()
        return sum(loss for loss, _, _ in parts), pieces

    def _cut(self, bags: Bags, labels: _Labels, visits: Int32s, share: float = 1.0) -> _Piece:
        """What a step needs of some visits, whatever the parameters are."""
        chosen, target, weight = labels.batch(visits)
        if share != 1:
            target, weight = _mixed(target, share), _mixed(weight, share)
        return _Piece(len(visits), target, weight, self._gather(bags, chosen, share))

    def _gather(self, bags: Bags, chosen: npt.NDArray[np.intp], share: float = 1.0) -> _Gathered:
        """What the filters and the classifier need of some bags. share: of each one's dense features, see `_Share`."""
        groups, distinct, lengths = [], [], np.empty((len(chosen), 0), np.float32)
        for group, windows in enumerate(self.windows):
            by_segment, local, counts, known, by_code, segment_of, count_of, sites = gather_bags(
                bags.pointers, bags.codes, bags.counts, chosen, bags.spans, group * bags.regions, bags.regions,
                self._scratch.slots[group], self._scratch.unique[group],
            )  # fmt: skip
            distinct.append(windows.take(self._scratch.unique[group][:known], 0))
            groups.append(_Group(by_segment, local, counts, by_code, segment_of, count_of))
            if group == 0:
                lengths = sites.reshape(len(chosen), bags.regions)
        nested = self.regions.nest(lengths[:, :, None])[:, :, 0] if groups else lengths
        return _Gathered(bags.dense_rows(chosen, share), groups, self.filters.prepare(distinct), nested)

    def _gradients(self, piece: _Piece, share: float) -> tuple[float, Gradients, Tape]:
        """Mean loss and gradients of a piece, times its share of the batch, and the statistics of its features."""
        features, sums, tapes = self._forward(piece.gathered)
        logits, tape = self.classifier.training_pass(features, piece.weight)
        loss, gradient = cross_entropy(logits, piece.target, piece.weight)
        gradient *= np.float32(share)
        gradients = Gradients()
        slopes = self.classifier.backward(gradient, tape, gradients)
        if tapes:
            of_features = self.classifier.features_gradient(slopes, tape)
            self._backward(of_features, piece.gathered, sums, tapes, gradients)
        return share * loss, gradients, tape

    def _forward(self, gathered: _Gathered) -> tuple[Float32s, Float32s, list[tuple[Float32s, Float32s]]]:
        """Features (b, features), nested sums (b, regions, groups * filters), and per group what `_backward` needs."""
        dense = gathered.dense
        if not gathered.groups:  # a classifier on the layers below alone
            return dense, np.empty((len(dense), 0, 0), np.float32), []
        tapes = activations(self.filters, gathered.windows, self.activation, self.signs)
        edges = [0, *accumulate(after.shape[1] for _, after in tapes)]
        pooled = np.empty((len(gathered.groups[0].by_segment) - 1, edges[-1]), np.float32)
        for group, (_, after), first in zip(gathered.groups, tapes, edges, strict=False):
            sum_rows(group.by_segment, group.local, group.counts, after, 0, pooled, first)
        sums = self.regions.nest(pooled.reshape(len(dense), -1, edges[-1]))
        own = pooled_features(sums, gathered.lengths, self._means)
        return np.concatenate([dense, own], axis=1) if dense.shape[1] else own, sums, tapes

    def _backward(
        self, gradient: Float32s, gathered: _Gathered, sums: Float32s, tapes: list[tuple[Float32s, Float32s]],
        into: Gradients,
    ) -> None:  # fmt: skip
        lengths = gathered.lengths if self._means else None
        slopes = self.regions.nest_gradient(pooled_gradient(gradient, sums, lengths, gathered.dense.shape[1]))
        rows, first, changes = slopes.reshape(-1, slopes.shape[2]), 0, []
        for group, tape in zip(gathered.groups, tapes, strict=True):
            changes.append(np.empty_like(tape[1]))
            sum_rows(group.by_code, group.segment_of, group.count_of, rows, first, changes[-1], 0)
            activation_gradient(*tape, self.activation, changes[-1])
            first += changes[-1].shape[1]
        self.filters.backward(gathered.windows, changes, into)


@dataclass(frozen=True, slots=True)
class _Group:
    """Entries of one group of some bags, as `gather_bags` gives them."""

    by_segment: Int32s
    local: Int32s
    counts: Float32s
    by_code: Int32s
    segment_of: Int32s
    count_of: Float32s


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Bags (b) as filters take them.

    dense: (b, d) features of layers below; windows: the distinct ones of each group as the filters prepared them;
    lengths: (b, nested regions).
    """

    dense: Float32s
    groups: list[_Group]
    windows: Any
    lengths: Float32s


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some visits of a batch: how many, and of the bags visited (b) their target, weight and windows."""

    visits: int
    target: Float32s
    weight: Float32s
    gathered: _Gathered


class _Scratch(threading.local):
    """Each thread's own tables to number the codes of a batch by; sizes: of the codebooks."""

    def __init__(self, sizes: list[int]) -> None:
        self.slots = [np.full(size, -1, np.int32) for size in sizes]
        self.unique = [np.empty(size, np.int32) for size in sizes]


def _mixed(rows: Float32s, share: float) -> Float32s:
    """A share of each row and the rest of the row before it, of the first the last."""
    mixed: Float32s = share * rows + (1 - share) * np.roll(rows, 1, axis=0)
    return mixed


def _stretches(items: npt.NDArray[Any], size: int) -> list[npt.NDArray[Any]]:
    """The items in stretches of one length, about `size`."""
    return np.array_split(items, max(1, round(len(items) / size))) if len(items) else []


class _Labels:
    """Label distributions of bags, and the order they are visited in.

    A bag that stands for w rows is visited w times an epoch, as its rows would be; visits that fall into one batch are
    one bag of that weight. Over `_MOST_VISITS` rows, and where rows weigh more or bags are clusters, each visit stands
    for several rows.
    """

    _MOST_VISITS = 4_000_000

    def __init__(self, bags: Bags, classes: int, class_weights: Float32s, smoothing: float) -> None:
        self.classes, self.class_weights, self.smoothing = classes, class_weights, smoothing
        self.pointers, self.label_classes, self.counts = bags.label_counts()
        totals = np.concatenate([[0], np.cumsum(self.counts)])
        self.rows: Int64s = np.diff(totals[self.pointers])
        self.total = int(self.rows.sum())
        share = min(bags.visits, self._MOST_VISITS) / max(self.total, 1)
        self.times: Int64s = np.maximum(1, np.round(self.rows * share)).astype(np.int64)
        self.visits = int(self.times.sum())

    def order(self, rng: np.random.Generator) -> Int32s:
        """(visits,) the bags that an epoch visits, shuffled."""
        order = np.repeat(np.arange(len(self.times), dtype=np.int32), self.times)
        rng.shuffle(order)
        return order

    def batch(self, visits: Int32s) -> tuple[npt.NDArray[np.intp], Float32s, Float32s]:
        """The bags visited (b,), rising, their target (b, classes) and weight (b,): see `visited_bags`."""
        unit = self.visits / max(self.total, 1)
        made: tuple[npt.NDArray[np.intp], Float32s, Float32s] = visited_bags(
            np.sort(visits), self.pointers, self.label_classes, self.counts, self.rows, self.times, self.class_weights,
            self.smoothing, unit,
        )  # fmt: skip
        return made
