"""What training gives: the net, its figures, and what is needed to explain it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from seqbag.batch import Int32s, Int64s
from seqbag.codebook import ExactCodebook
from seqbag.fitting import MOST_CONFUSED
from seqbag.layer import embed
from seqbag.network import UNKNOWN, Network
from seqbag.passes import LayerCounts
from seqbag.store import Model
from seqbag.tokens import Vocabulary, mask_texts

_KEPT_WINDOWS = 2000  # the commonest, kept in the model to explain it


@dataclass
class LayerReport:
    """Figures of one layer. Accuracies are on held-out rows: of the counts, and of the real forward pass."""

    patches: int
    distinct: int
    codebook: int
    bags: int
    clusters: int | None
    proxy_accuracy: float
    valid_accuracy: float = float("nan")
    seconds: float = 0.0


@dataclass
class Trained:
    """A net, what it was trained on, and what is needed to explain it.

    windows, window_counts: per group of the first layer, the commonest windows in token ids (m, width), and their
    counts; confusion: (classes, classes), [class, prediction], of the held-out rows, empty of over `MOST_CONFUSED`.
    """

    network: Network
    rows: int
    layers: list[LayerReport]
    valid_accuracy: float
    seconds: float
    vocabulary: Vocabulary | None
    windows: list[Int32s] = field(default_factory=list)
    window_counts: list[Int64s] = field(default_factory=list)
    confusion: Int64s = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    def report(self) -> dict[str, Any]:
        """The figures as JSON values; accuracies are null where nothing was held out."""
        figures: dict[str, Any] = {"rows": self.rows, "classes": len(self.network.classes)}
        figures["layers"] = [{name: _known(value) for name, value in asdict(layer).items()} for layer in self.layers]
        return {**figures, "valid_accuracy": _known(self.valid_accuracy), "seconds": self.seconds}

    def explain(self, counts: LayerCounts) -> None:
        """Keep the commonest windows of a first layer, for `inspect`."""
        for book in counts.codebooks:
            assert isinstance(book, ExactCodebook)
            commonest = np.argsort(-book.counts, kind="stable")[:_KEPT_WINDOWS]
            self.windows.append(book.windows[commonest])
            self.window_counts.append(book.counts[commonest])

    def model(self, columns: dict[str, Any]) -> Model:
        """What `save` writes. columns: `kind`, `input` and `label` of the source, for later sources to be read by.

        Of the report all but the seconds is kept: the same training gives the same file.
        """
        report = self.report()
        for figures in (report, *report["layers"]):
            del figures["seconds"]
        if len(self.network.classes) <= MOST_CONFUSED:
            report["confusion"] = self.confusion.tolist()
        lookup, vocabulary = self.network.lookup, self.vocabulary
        if lookup is None or vocabulary is None:
            return Model(self.network, columns, report)
        words = columns.get("kind") == "text" and self.network.config.tokenizer == "words"
        masks = mask_texts(len(vocabulary)) if words else {}
        texts = [masks.get(token) or vocabulary.decode(token) for token in np.flatnonzero(lookup > UNKNOWN).tolist()]
        windows = [embed(windows, lookup) for windows in self.windows]
        return Model(self.network, columns, report, texts, windows, self.window_counts)


def listed(classes: tuple[str, ...], most: int = 8) -> str:
    """How many classes there are, and the names of the first."""
    more = f" and {len(classes) - most} more" if len(classes) > most else ""
    return f"{len(classes)} classes: {', '.join(classes[:most])}{more}"


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def layer_report(counts: LayerCounts, distinct: int, accuracy: float, seconds: float) -> LayerReport:
    """Figures of a layer trained on counts that held `distinct` bags before any were clustered."""
    return LayerReport(
        counts.patches,
        sum(len(book.counts) for book in counts.codebooks),
        sum(book.capacity if isinstance(book, ExactCodebook) else book.k for book in counts.codebooks),
        distinct,
        counts.bags.size if counts.bags.clustered else None,
        accuracy,
        seconds=seconds,
    )
