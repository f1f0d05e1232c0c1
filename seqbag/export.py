"""From a trained model to a packed one: quantise, refit the classifier where there is data, and say what it cost."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np

from seqbag import packed
from seqbag.batch import Int32s, LabelColumn, Source
from seqbag.classifier import softmax
from seqbag.errors import DataError, UsageError
from seqbag.fitting import Fitter
from seqbag.metrics import Metrics
from seqbag.network import Network
from seqbag.parallel import Workers
from seqbag.passes import LayerCounts, hold_out, stream, take
from seqbag.progress import Progress, Silent
from seqbag.quantise import Kind, quantise
from seqbag.recency import alike, by_stratum, newer_more, rows_of_strata
from seqbag.store import Model

_FEATURE_BYTES = 2
_SHARE = 4  # of the memory, one part in this many holds features
_HELD_OUT = 0.1  # of the rows, from a net that was trained on all


@dataclass(frozen=True)
class Accuracy:
    """On rows of the source that neither training nor refitting looked at: of the model, and of its packed form.

    If training held none out, on a tenth that refitting does not look at.

    rows: measured on; refitted: whether the classifier was fitted again, which is kept where it is better.
    """

    rows: int
    before: float
    after: float
    refitted: bool


@dataclass(frozen=True)
class Exported:
    """A packed model, its file, and the accuracy, if there was a source to measure on."""

    model: Model
    data: bytes
    accuracy: Accuracy | None


def export(
    model: Model, kind: Kind, source: Source | None = None, threads: int = 1, progress: Progress | None = None
) -> Exported:
    """Pack a model. With a source of labelled rows, its classifier is refitted on what the quantised layers give.

    Raises UsageError for a net that cannot be packed so, DataError for a source that does not fit the model.
    """
    progress = progress or Silent()
    network = quantise(model.network, kind, model.windows, model.window_counts)
    new_signs = kind.activations == "sign" and model.network.config.activation != "sign"
    if source is None and new_signs:
        raise UsageError(
            f"a net trained with {model.network.config.activation} needs its classifier refitted to signs: "
            "give labelled rows with --source, or export it with --activations float"
        )
    if source is None:
        return Exported(*_packed(model, network, kind), None)
    with Workers(threads) as workers:
        return _Exporter(model, kind, source, workers, progress).run(network, kind != Kind("float", "float"))


def _packed(model: Model, network: Network, kind: Kind) -> tuple[Model, bytes]:
    """The model as a reader of the file will have it, and the file."""
    slim = replace(model, network=network, texts=[], windows=[], window_counts=[])
    return packed.from_parts(*packed.to_parts(slim, kind)), packed.to_bytes(slim, kind)


class _Exporter:
    def __init__(self, model: Model, kind: Kind, source: Source, workers: Workers, progress: Progress) -> None:
        self.model, self.kind, self.source, self.workers, self.progress = model, kind, source, workers, progress
        self.config = model.network.config
        self.numbers = {name: number for number, name in enumerate(model.network.classes)}

    def run(self, network: Network, changed: bool) -> Exported:
        plain, data = _packed(self.model, network, self.kind)
        counts, (before, after) = self._pass(plain.network, [self.model.network, plain.network], collect=changed)
        if not changed:
            return Exported(plain, data, Accuracy(before.rows, before.accuracy, after.accuracy, False))
        fitter = Fitter(self.config, np.random.default_rng(self.config.seed), self.workers, self.progress)
        classifier = copy.deepcopy(network.classifier)
        assert classifier is not None
        if not counts.bags.size:
            raise DataError(f"{self.source.describe()}: no row has a label of the model: there is nothing to refit on")
        fitter.calibrate(classifier, counts, "refitting the classifier", True)
        other, other_data = _packed(self.model, replace(network, classifier=classifier), self.kind)
        _, (refitted,) = self._pass(other.network, [other.network], collect=False)
        if before.rows and refitted.accuracy <= after.accuracy:
            return Exported(plain, data, Accuracy(before.rows, before.accuracy, after.accuracy, False))
        return Exported(other, other_data, Accuracy(before.rows, before.accuracy, refitted.accuracy, True))

    def _pass(self, network: Network, judged: list[Network], collect: bool) -> tuple[LayerCounts, list[Metrics]]:
        """Metrics of the judged nets on held-out rows, and on `collect` the features that `network` makes of all."""
        counts = LayerCounts.of_features(sum(network.widths()))
        bags, held_bags = counts.bags, counts.held_out
        metrics = [Metrics(network.classes) for _ in judged]
        fraction = self.config.valid_fraction or _HELD_OUT
        most = self.config.memory // _SHARE // (_FEATURE_BYTES * bags.width)
        share = 1.0 if self.source.rows is None else min(1.0, most / max(self.source.rows, 1))
        for first, rows in stream(self.source, self.progress, "measuring"):
            labels = self._labels(rows.labels)
            held = hold_out(first, len(rows), fraction, self.config.seed)
            maps = network.encode(rows.input)
            chosen = np.flatnonzero(held)
            for measured, net in zip(metrics, judged, strict=True):
                measured.update(labels[chosen], softmax(net.logits_of(take(maps, chosen))))
            if collect and bags.size < most:
                kept = np.flatnonzero(hold_out(first, len(rows), share, self.config.seed + 1) & (labels >= 0))
                part, named = take(maps, kept), by_stratum(labels, first)[kept]
                counts.update(part, named, held[kept], network.features(part).astype(np.float16))
        bags.weigh(newer_more(rows_of_strata(bags)) if self.config.recency else alike())
        held_bags.weigh(alike())
        return counts, metrics

    def _labels(self, labels: LabelColumn | None) -> Int32s:
        """Class numbers (n,), -1 for a null or a label the model does not know."""
        if labels is None:
            raise DataError("the source has no labels: name the column with --label")
        table = np.array([self.numbers.get(name, -1) for name in labels.names] + [-1], np.int32)
        return table[labels.codes]
