"""From the counts of a pass to a frozen layer: makes the head, trains it, freezes it. No data is needed here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from seqbag.bags import Bags
from seqbag.batch import Float32s, Int64s
from seqbag.classifier import Classifier
from seqbag.codebook import ExactCodebook
from seqbag.config import TrainConfig
from seqbag.filters import Filters, Standardiser, TokenFilters, VectorFilters, sign_biases
from seqbag.head import EpochReport, Head, Schedule
from seqbag.kmeans import KMeans
from seqbag.layer import Layer, embed
from seqbag.network import UNKNOWN, Network
from seqbag.parallel import Workers
from seqbag.passes import LayerCounts
from seqbag.past import of_last, pasts
from seqbag.progress import Progress, Silent
from seqbag.recency import LEAST, alike, foresight, newer_more, newest, rows_of_strata
from seqbag.regions import Regions
from seqbag.stacking import stacked

MOST_CONFUSED = 100  # classes whose confusion is kept
_PROBE_BAGS = 20_000  # enough to tell whether the ends of sequences matter
# Of the epochs, one in so many. With one in three the choice is the same in four logs, three seeds each; in a fifth,
# helpdesk, held-out rows are right as often either way, and it is chance in both.
_PROBE_SHARE = 6
_CALIBRATION_BAGS = 50_000
_REHEARSED = 256  # bags
_MIXUP = 0.4  # of a classifier over images; see Head.fit
_STACKED = 4096  # held-out bags, at most, that tell what two classifiers weigh
_GENTLY = 5  # part of the rate for features that are trained already: 0.8517 instead of 0.8452 on 50,000 images


class Fitter:
    """Trains heads under one configuration."""

    def __init__(self, config: TrainConfig, rng: np.random.Generator, workers: Workers, progress: Progress) -> None:
        self.confusion: Int64s = np.zeros((0, 0), np.int64)  # of the net as last measured
        self.config, self.rng, self.workers, self.progress = config, rng, workers, progress

    def fit(self, counts: LayerCounts, network: Network, task: str) -> tuple[Layer, Classifier, float]:
        """Train a layer on its counts. Returns it, its classifier and the accuracy on the held-out bags."""
        head = self._head(counts, network)
        schedule = Schedule.for_bags(counts.bags, self.config.epochs)
        if counts.bags.clustered and self.config.epochs is None:
            schedule = schedule.shortened()
        self._run(head, counts, schedule, task, self.progress)
        head.calibrate(counts.bags, _CALIBRATION_BAGS, self.rng)
        accuracy = self._measured(head, counts)
        filters = head.filters
        frozen = [filters.frozen(group) for group in range(len(counts.patchers))]
        embedding = None
        if isinstance(filters, TokenFilters):
            embedding = filters.embedding(np.arange(len(filters.parameters["embedding"])))
        weights, biases = tuple(w for w, _ in frozen), tuple(sign_biases(b, self.config.signs) for _, b in frozen)
        layer = Layer(counts.patchers, weights, biases, self.config.activation, counts.regions, embedding)
        return layer, head.classifier, accuracy

    def rehearsal(self, counts: LayerCounts) -> Callable[[], object]:
        """A training in small, whose outcome is forgotten: it leaves loaded the kernels that `fit` needs.

        Made of what is counted so far, with labels by stratum; to be run while the rest is counted, which lets go of
        the interpreter's lock, as loading a kernel does not.
        """
        bags = counts.bags.sample(_REHEARSED, np.random.default_rng(0))
        bags.weigh(alike())
        small = replace(counts, bags=bags, held_out=bags)
        classes = tuple(map(str, range(int(bags.label_counts()[1].max()) + 1)))
        network = Network(self.config, classes, np.full(self.config.vocabulary, UNKNOWN, np.int32))
        stage = Fitter(self.config, np.random.default_rng(0), Workers(1), Silent())
        head = stage._head(small, network)

        def run() -> None:
            stage._run(head, small, Schedule(1, bags.size, 0.0), "", Silent())
            head.calibrate(bags, bags.size, stage.rng)
            stage._measured(head, small)

        return run

    def choose_past(self, counts: LayerCounts, network: Network) -> tuple[LayerCounts, Int64s]:
        """Weigh the rows counted, all alike or newer ones more, and choose how much of their past is read.

        Unless the settings say which, newer ones weigh more if that predicts the newest rows clearly better. counts:
        with labels by stratum, which are forgotten. Returns the counts, and how often each stratum of rows counts now;
        the network is told.
        """
        newer, last = self._newer_more(counts), self.config.last
        weights = newer_more(rows_of_strata(counts.bags)) if newer else alike()
        if newer and self.config.regions is None and last is None:
            last = self._enough(counts, network)
            if last is not None:
                counts = of_last(counts, last)
                network.lookup = counts.lookup(self.config.vocabulary)
        counts.bags.weigh(weights)
        counts.held_out.weigh(alike())
        network.config = replace(self.config, recency=newer, last=last)
        return counts, weights

    def _newer_more(self, counts: LayerCounts) -> bool:
        if self.config.recency is not None:
            return self.config.recency
        if counts.bags.clustered:
            return False  # rows of a cluster are not equal, and what was before them says less of what comes
        found = foresight(counts.bags)
        if found.clear:
            self.progress.note(
                f"recency: of {found.rows:,} of the newest rows, equal ones before them predict {found.alike:.4f}, "
                f"and {found.newer_more:.4f} if newer ones weigh more, as they do now"
            )
        return found.clear

    def _enough(self, counts: LayerCounts, network: Network) -> int | None:
        """How many of the last tokens predict the newest rows as well as all do, None for all.

        That is within a standard error of the best, by nets trained on the rows before (Breiman et al. 1984,
        Classification and Regression Trees, 3.4.3): of an old process, what came long before misleads.
        """
        choices = [None, *pasts(counts.regions)]  # the longer first
        if len(choices) == 1 or counts.bags.clustered:
            return None
        older = counts.bags.sample(_PROBE_BAGS, self.rng)
        tested = older.split(np.tile(newest(rows_of_strata(older)) > 0, len(network.classes)))
        if min(older.rows, tested.rows) < LEAST:
            return None
        older.weigh(newer_more(rows_of_strata(older)))
        tested.weigh(alike())
        whole = replace(counts, bags=older, held_out=tested)
        scores = [self._probed(of_last(whole, n) if n else whole, network) for n in choices]
        needed = max(scores) - (max(scores) * (1 - max(scores)) / tested.rows) ** 0.5
        chosen = max(place for place, score in enumerate(scores) if score >= needed)
        named = [f"the last {n}" if n else "all tokens" for n in choices]
        told = ", ".join(f"{score:.4f} by {name}" for name, score in zip(named, scores, strict=True))
        self.progress.note(
            f"past: of {tested.rows:,} of the newest rows are predicted {told}; of each row it reads {named[chosen]}"
        )
        return choices[chosen]

    def choose_regions(self, counts: LayerCounts, network: Network) -> LayerCounts:
        """The counts with the ends of sequences apart, or without, whichever predicts held-out rows better."""
        if counts.held_out.size == 0:
            return _whole(counts)
        ends = replace(
            counts,
            bags=counts.bags.sample(_PROBE_BAGS, self.rng),
            held_out=counts.held_out.sample(_PROBE_BAGS, self.rng),
        )
        scores = [self._probed(candidate, network) for candidate in (_whole(copy.deepcopy(ends)), ends)]
        self.progress.note(
            f"regions: {scores[0]:.4f} of the held-out rows right over the whole sequence, "
            f"{scores[1]:.4f} with {counts.regions}"
        )
        return counts if scores[1] > scores[0] else _whole(counts)

    def calibrate(self, classifier: Classifier, counts: LayerCounts, task: str, clustered: bool = False) -> float:
        """Refit a classifier on true features, the dense part of the bags. Returns the accuracy on held-out rows.

        clustered: it was trained on clusters of bags, and has much to learn from the rows themselves.
        """
        head = self._of_features(classifier)
        head.calibrate(counts.bags, counts.bags.size, self.rng)
        schedule = Schedule.for_bags(counts.bags, self.config.epochs)
        if clustered:
            schedule = replace(schedule, epochs=2 * schedule.epochs)
        else:
            schedule = Schedule(max(1, schedule.epochs // 2), schedule.batch, schedule.rate / 4)
        self._run(head, counts, schedule, task, self.progress, *self._gentle())
        head.calibrate(counts.bags, counts.bags.size, self.rng)
        return self._measured(head, counts)

    def measure(self, classifier: Classifier, counts: LayerCounts) -> float:
        """Standardise a classifier by true features, the dense part of the bags. Returns its held-out accuracy."""
        head = self._of_features(classifier)
        head.calibrate(counts.bags, counts.bags.size, self.rng)
        return self._measured(head, counts)

    def classifier(self, counts: LayerCounts, classes: tuple[str, ...], task: str) -> Classifier:
        """A new classifier on true features, the dense part of the bags; `measure` tells how good it is."""
        config = self.config
        made = Classifier(counts.bags.width, config.hidden, len(classes), self.rng)
        head = self._of_features(made)
        schedule = Schedule.for_bags(counts.bags, config.epochs)
        schedule = replace(schedule, epochs=2 * schedule.epochs, rate=schedule.rate / _GENTLY)
        self._run(head, counts, schedule, task, self.progress, *self._gentle())
        return made

    def stack(self, votes: Classifier, whole: Classifier, counts: LayerCounts) -> tuple[Classifier, float]:
        """One of two classifiers of the same true features, each weighing what held-out rows say. votes: as measured.

        Returns it with its accuracy on those rows. (Two weights are all that it knows of them.)
        """
        whole.standardise(votes.mean, votes.variance)
        held = counts.held_out.sample(_STACKED, np.random.default_rng(0))
        pointers, labels, rows = held.label_counts()
        features = held.dense_rows(np.arange(held.size))
        logits = np.stack([voter.logits(features) for voter in (votes, whole)]).astype(np.float64)
        owners = np.repeat(np.arange(held.size), np.diff(pointers))
        weights = stacked(logits[:, owners], labels, rows)
        self.progress.note(f"the layers' votes weigh {weights[0]:.2f}, the classifier of all features {weights[1]:.2f}")
        made = Classifier.voting(votes.features, [(votes, 0, weights[0]), (whole, 0, weights[1])])
        made.standardise(votes.mean, votes.variance)
        return made, self._measured(self._of_features(made), counts)

    def _of_features(self, classifier: Classifier) -> Head:
        """A head without filters: a classifier of the dense part of the bags."""
        return Head([], VectorFilters([], 0, self.rng), classifier, Regions("whole"), "relu", self.workers)

    def _gentle(self) -> tuple[bool, float]:
        """Whether a classifier of true features is moved by Muon, and how images are mixed for it.

        Of images, Muon learns thousands of features that stay by heart: 0.8376 instead of 0.8513 on 50,000. So does
        Adam, if they are not mixed: 0.8551 after five epochs, where mixed ones give 0.8609 after ten.
        """
        return (False, _MIXUP) if self.config.polish else (True, 0.0)

    def _probed(self, counts: LayerCounts, network: Network) -> float:
        """Held-out accuracy after a short training, which is forgotten."""
        schedule = Schedule.for_bags(counts.bags, self.config.epochs)
        head = self._head(counts, network)
        self._run(head, counts, replace(schedule, epochs=max(1, schedule.epochs // _PROBE_SHARE)), "", Silent())
        return head.accuracy(counts.held_out)

    def _measured(self, head: Head, counts: LayerCounts) -> float:
        """Accuracy on the held-out rows, whose confusion is kept if there are few classes."""
        if head.classifier.classes > MOST_CONFUSED:
            return head.accuracy(counts.held_out)
        self.confusion = head.confusion(counts.held_out)
        return float(np.trace(self.confusion)) / counts.held_out.rows if counts.held_out.rows else float("nan")

    def _run(
        self, head: Head, counts: LayerCounts, schedule: Schedule, task: str, progress: Progress, muon: bool = True,
        mixup: float = 0.0,
    ) -> None:  # fmt: skip
        def report(epoch: EpochReport) -> None:
            progress.advance(1, f"loss {epoch.loss:.4f}, held-out accuracy {epoch.accuracy:.4f}")

        progress.begin(task, schedule.epochs, "epochs")
        head.fit(
            counts.bags, counts.held_out, schedule, self.rng, self.class_weights(counts.bags, head.classifier.classes),
            self.config.smoothing_for(counts.bags.visits), self.config.decay, report, muon, mixup,
        )  # fmt: skip
        progress.end()

    def _head(self, counts: LayerCounts, network: Network) -> Head:
        config = self.config
        groups, regions = len(counts.patchers), counts.regions.count(len(counts.patchers[0].window))
        own = config.filters_of(network.depth)
        features = counts.bags.width + regions * (own * groups + 1)
        classifier = Classifier(features, config.hidden, len(network.classes), self.rng)
        quantise = config.activation == "sign"
        windows: list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = []
        inputs: list[Standardiser] = []
        for codebook in counts.codebooks:
            if isinstance(codebook, ExactCodebook):
                assert network.lookup is not None
                windows.append(embed(codebook.windows, network.lookup))
            else:
                inputs.append(_inputs(codebook, quantise))
                windows.append(inputs[-1](codebook.centroids))
        filters: Filters
        if inputs:
            filters = VectorFilters(inputs, own, self.rng, quantise)
        else:
            assert network.lookup is not None
            tokens = max(int(network.lookup.max()), UNKNOWN) + 1
            filters = TokenFilters(tokens, config.dims, config.windows, own, self.rng, quantise)
        return Head(windows, filters, classifier, counts.regions, config.activation, self.workers, config.signs)

    def class_weights(self, bags: Bags, classes: int) -> Float32s:
        """(classes,) weights ~ frequency ** -balance, 1 in the mean over the rows."""
        share = bags.label_rows(classes) / bags.rows
        weights = np.where(share > 0, np.maximum(share, 1e-9) ** -self.config.balance, 1.0)
        mean_one: Float32s = (weights / (weights * share).sum()).astype(np.float32)
        return mean_one


def _whole(counts: LayerCounts) -> LayerCounts:
    """The counts over whole examples; those given are used up."""
    counts.bags.coarsen()
    counts.held_out.coarsen()
    return replace(counts, regions=Regions("whole"))


def _inputs(codebook: KMeans, quantise: bool) -> Standardiser:
    """Signs are taken as they are, so that they stay bits."""
    if quantise:
        return Standardiser.none(codebook.dims)
    return Standardiser.of(codebook.centroids, codebook.counts)
