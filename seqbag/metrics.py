"""How good predictions are: rows right of each class and log-loss, as a statistic that merges."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from seqbag.batch import Float32s, Int32s, Int64s

_SCALE = 2.0**32  # log-losses are summed as integers of this fraction of a nat, so that merging is exact


class Metrics:
    """Counts of rows by class, and of rows whose label the model does not know, which always count as wrong.

    labelled, predicted, right: (classes,) int64, rows of a class, rows said to be of it, and rows of it that are; the
    first has one more, for the labels that are not known. (A matrix of confusions would be 34 GB for 65,536 classes.)
    """

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.labelled: Int64s = np.zeros(len(classes) + 1, np.int64)
        self.predicted: Int64s = np.zeros(len(classes), np.int64)
        self.right: Int64s = np.zeros(len(classes), np.int64)
        self.log_loss_units = 0

    def update(self, labels: Int32s, probabilities: Float32s) -> None:
        """Count rows. labels: (n,) class numbers, -1 for unknown; probabilities: (n, classes)."""
        if len(labels) == 0:
            return
        classes, predicted = len(self.classes), probabilities.argmax(1)
        true = np.where(labels < 0, classes, labels)
        self.labelled += np.bincount(true, minlength=classes + 1)
        self.predicted += np.bincount(predicted, minlength=classes)
        self.right += np.bincount(true[true == predicted], minlength=classes)
        known = np.flatnonzero(labels >= 0)
        likelihood = np.maximum(probabilities[known, labels[known]].astype(np.float64), 1e-15)
        self.log_loss_units += int(np.round(-np.log(likelihood) * _SCALE).astype(np.int64).sum())

    def merge(self, other: Self) -> None:
        """Add what `other` counted."""
        self.labelled += other.labelled
        self.predicted += other.predicted
        self.right += other.right
        self.log_loss_units += other.log_loss_units

    def empty(self) -> Self:
        """Metrics of no rows."""
        return type(self)(self.classes)

    @property
    def rows(self) -> int:
        return int(self.labelled.sum())

    @property
    def unknown(self) -> int:
        """Rows whose label the model has never seen."""
        return int(self.labelled[-1])

    @property
    def accuracy(self) -> float:
        return float(self.right.sum() / max(self.rows, 1))

    @property
    def log_loss(self) -> float:
        """Mean negative log probability of the true class, in nats, over rows with a known label."""
        return self.log_loss_units / _SCALE / max(self.rows - self.unknown, 1)

    def per_class(self) -> dict[str, dict[str, Any]]:
        """Precision, recall, F1 and rows of each class that occurs or is predicted."""
        right, rows, predicted = self.right, self.labelled[:-1], self.predicted
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
