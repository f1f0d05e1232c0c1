"""How good predictions are: confusion counts and log-loss, as a statistic that merges."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s, Int32s

_SCALE = 2.0**32  # log-losses are summed as integers of this fraction of a nat, so that merging is exact


class Metrics:
    """Confusion counts over the classes of a model, and one more row for labels the model does not know.

    confusion: (classes + 1, classes) int64, [true, predicted], the last row for unknown labels, which always count as
    wrong.
    """

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.confusion: npt.NDArray[np.int64] = np.zeros((len(classes) + 1, len(classes)), np.int64)
        self.log_loss_units = 0

    def update(self, labels: Int32s, probabilities: Float32s) -> None:
        """Count rows. labels: (n,) class numbers, -1 for unknown; probabilities: (n, classes)."""
        if len(labels) == 0:
            return
        predicted = probabilities.argmax(1)
        true = np.where(labels < 0, len(self.classes), labels)
        np.add.at(self.confusion, (true, predicted), 1)
        known = np.flatnonzero(labels >= 0)
        right = np.maximum(probabilities[known, labels[known]].astype(np.float64), 1e-15)
        self.log_loss_units += int(np.round(-np.log(right) * _SCALE).astype(np.int64).sum())

    def merge(self, other: Self) -> None:
        """Add what `other` counted."""
        self.confusion += other.confusion
        self.log_loss_units += other.log_loss_units

    def empty(self) -> Self:
        """Metrics of no rows."""
        return type(self)(self.classes)

    @property
    def rows(self) -> int:
        return int(self.confusion.sum())

    @property
    def unknown(self) -> int:
        """Rows whose label the model has never seen."""
        return int(self.confusion[-1].sum())

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion[:-1]) / max(self.rows, 1))

    @property
    def log_loss(self) -> float:
        """Mean negative log probability of the true class, in nats, over rows with a known label."""
        return self.log_loss_units / _SCALE / max(self.rows - self.unknown, 1)

    def per_class(self) -> dict[str, dict[str, Any]]:
        """Precision, recall, F1 and rows of each class that occurs or is predicted."""
        right = np.diag(self.confusion[:-1])
        rows, predicted = self.confusion[:-1].sum(1), self.confusion.sum(0)
        return {
            name: {
                "precision": float(right[c] / max(predicted[c], 1)),
                "recall": float(right[c] / max(rows[c], 1)),
                "f1": float(2 * right[c] / max(rows[c] + predicted[c], 1)),
                "rows": int(rows[c]),
            }
            for c, name in enumerate(self.classes)
            if rows[c] or predicted[c]
        }

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur or are predicted; unknown labels count as one more class of F1 0."""
        scores = [values["f1"] for values in self.per_class().values()]
        if self.unknown:
            scores.append(0.0)
        return float(np.mean(scores)) if scores else 0.0
