"""The classifier on pooled features: standardise, one hidden layer (or none), softmax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s
from seqbag.filters import Gradients, Parameters

_MOMENTUM = 0.1  # of the running mean and variance of the features
_CONSTANT = np.float32(1e-8)  # the variance of a feature that does not vary but for rounding, at most


@dataclass
class _Tape:
    """What the backward pass needs of a forward pass."""

    share: Float32s
    scale: Float32s
    features: Float32s
    inputs: Float32s
    kept: Float32s | None
    hidden: Float32s
    activity: Float32s
    kept_hidden: Float32s | None


class Classifier:
    """parameters: hidden (d, h), hidden_bias (h,), out (h or d, classes), out_bias (classes,).

    mean, scale: (d,) float32, what features are standardised by: of the batch in training (Ioffe and Szegedy 2015,
    arXiv 1502.03167), running averages of them otherwise, until `standardise` sets them from data.
    """

    def __init__(
        self, features: int, hidden: int, classes: int, rng: np.random.Generator, dropout: float = 0.0
    ) -> None:
        self.features, self.hidden, self.classes, self.dropout, self._rng = features, hidden, classes, dropout, rng
        self.parameters: Parameters = {}
        last = features
        if hidden:
            self.parameters["hidden"] = rng.standard_normal((features, hidden), np.float32) * np.float32(
                np.sqrt(2 / features)
            )
            self.parameters["hidden_bias"] = np.zeros(hidden, np.float32)
            last = hidden
        self.parameters["out"] = rng.standard_normal((last, classes), np.float32) / np.float32(np.sqrt(last))
        self.parameters["out_bias"] = np.zeros(classes, np.float32)
        self.mean: Float32s = np.zeros(features, np.float32)
        self.variance: Float32s = np.zeros(features, np.float32)
        self._started = False

    @property
    def scale(self) -> Float32s:
        """(d,) float32: one over the standard deviation; 0 for features that do not vary."""
        return _scale(self.variance)

    def logits(self, features: Float32s) -> Float32s:
        """(n, d) features to (n, classes) logits."""
        values: Float32s = (features - self.mean) * self.scale
        if self.hidden:
            values = np.maximum(values @ self.parameters["hidden"] + self.parameters["hidden_bias"], 0)
        out: Float32s = values @ self.parameters["out"] + self.parameters["out_bias"]
        return out

    def training_pass(self, features: Float32s, weights: Float32s) -> tuple[Float32s, _Tape]:
        """Logits with the batch's own statistics and with dropout, and the tape that `backward` reads.

        features: (n, d); weights: (n,), the rows each stands for, as the statistics are those of the rows.
        """
        share = weights / weights.sum()
        mean = share @ features
        variance = share @ np.square(features - mean)
        momentum = _MOMENTUM if self._started else 1.0
        self.mean = (self.mean * (1 - momentum) + momentum * mean).astype(np.float32)
        self.variance = (self.variance * (1 - momentum) + momentum * variance).astype(np.float32)
        self._started = True
        scale = _scale(variance)
        normal = (features - mean) * scale
        inputs, kept = self._drop(normal)
        activity, hidden, kept_hidden = inputs, inputs, None
        if self.hidden:
            hidden = np.maximum(inputs @ self.parameters["hidden"] + self.parameters["hidden_bias"], 0)
            activity, kept_hidden = self._drop(hidden)
        logits = activity @ self.parameters["out"] + self.parameters["out_bias"]
        return logits, _Tape(share, scale, normal, inputs, kept, hidden, activity, kept_hidden)

    def backward(self, gradient: Float32s, tape: _Tape, into: Gradients) -> Float32s:
        """Gradient (n, classes) of the logits to that of the features (n, d); the parameters' go to `into`."""
        into.values["out"] = tape.activity.T @ gradient
        into.values["out_bias"] = gradient.sum(0)
        gradient = gradient @ self.parameters["out"].T
        if self.hidden:
            if tape.kept_hidden is not None:
                gradient *= tape.kept_hidden
            gradient *= tape.hidden > 0
            into.values["hidden"] = tape.inputs.T @ gradient
            into.values["hidden_bias"] = gradient.sum(0)
            gradient = gradient @ self.parameters["hidden"].T
        if tape.kept is not None:
            gradient *= tape.kept
        through_mean = gradient.sum(0)
        through_variance = np.einsum("nd,nd->d", gradient, tape.features)
        gradient -= tape.share[:, None] * (through_mean + tape.features * through_variance)
        gradient *= tape.scale
        return gradient

    def standardise(self, mean: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]) -> None:
        """Set the statistics that features are standardised by."""
        self.mean, self.variance = mean.astype(np.float32), variance.astype(np.float32)

    def _drop(self, values: Float32s) -> tuple[Float32s, Float32s | None]:
        if not self.dropout:
            return values, None
        kept = (self._rng.random(values.shape, np.float32) >= self.dropout).astype(np.float32)
        kept /= np.float32(1 - self.dropout)
        return values * kept, kept


def _scale(variance: Float32s) -> Float32s:
    """One over the standard deviation, bounded; 0 where rounding alone would be scaled up to the size of a signal."""
    floor = np.float32(1e-6) + np.float32(1e-4) * variance.mean()
    scale: Float32s = np.where(variance > _CONSTANT, 1 / np.sqrt(variance + floor), np.float32(0))
    return scale


def softmax(logits: Float32s) -> Float32s:
    """Probabilities (n, classes) of logits (n, classes)."""
    powers: Float32s = np.exp(logits - logits.max(1, keepdims=True))
    powers /= powers.sum(1, keepdims=True)
    return powers


def cross_entropy(logits: Float32s, target: Float32s, weight: Float32s) -> tuple[float, Float32s]:
    """Mean loss, and its gradient in the logits (n, classes).

    target: (n, classes), distributions (times class weights, where those differ); weight: (n,) of each row, near 1.
    """
    probabilities = softmax(logits)
    loss = -np.log(np.maximum(probabilities, np.float32(1e-12)))
    mean_loss = float((loss * target).sum(1) @ weight / max(float(weight.sum()), 1e-12))
    gradient = probabilities * target.sum(1, keepdims=True) - target
    gradient *= (weight / np.float32(len(logits)))[:, None]
    return mean_loss, gradient
