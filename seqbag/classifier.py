"""The classifier on pooled features: standardise, one hidden layer (or none), softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s
from seqbag.filters import Gradients, Parameters
from seqbag.kernels.filters import RELU, activation_gradient, add_bias, column_sums
from seqbag.kernels.loss import softmax_loss
from seqbag.kernels.normalise import normalise, normalise_gradient, scales, standardise
from seqbag.spans import Run, joined

_MOMENTUM = 0.1  # of the running mean and variance of the features


@dataclass
class Tape:
    """What the backward pass needs of a forward pass."""

    share: Float32s
    mean: Float32s
    variance: Float32s
    scale: Float32s
    inputs: Float32s
    activity: Float32s


class Classifier:
    """parameters: hidden (d, h), hidden_bias (h,), out (h or d, classes), out_bias (classes,).

    runs: which features the hidden units read; weights of others are nought, and stay so.
    mean, scale: (d,) float32, what features are standardised by: of the batch in training (Ioffe and Szegedy 2015,
    arXiv 1502.03167), running averages of them otherwise (`follow`), until `standardise` sets them from data.
    """

    def __init__(self, features: int, hidden: int, classes: int, rng: np.random.Generator) -> None:
        self.features, self.hidden, self.classes = features, hidden, classes
        self.parameters: Parameters = {}
        self.runs: list[Run] = [(slice(0, features), slice(0, hidden))] if hidden else []
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

    @classmethod
    def voting(cls, features: int, voters: Sequence[tuple[Classifier, int, float]]) -> Classifier:
        """One whose logits are a weighted sum of others': of each the classifier, its first feature and its weight.

        All have hidden layers, or none has; theirs stand side by side. It is yet to be told what to standardise by.
        """
        hidden = sum(voter.hidden for voter, _, _ in voters)
        made = cls(features, hidden, voters[0][0].classes, np.random.default_rng(0))
        for values in made.parameters.values():
            values[:] = 0
        unit, runs = 0, list[Run]()
        for voter, first, weight in voters:
            rows, units = slice(first, first + voter.features), slice(unit, unit + voter.hidden)
            own, share = voter.parameters, np.float32(weight)
            if hidden:
                made.parameters["hidden"][rows, units] = own["hidden"]
                made.parameters["hidden_bias"][units] = own["hidden_bias"]
            made.parameters["out"][units if hidden else rows] += share * own["out"]
            made.parameters["out_bias"] += share * own["out_bias"]
            runs += [(_moved(read, first), _moved(of_voter, unit)) for read, of_voter in voter.runs]
            unit += voter.hidden
        made.runs = joined(runs)
        return made

    @property
    def scale(self) -> Float32s:
        """(d,) float32: one over the standard deviation; 0 for features that do not vary."""
        scale: Float32s = scales(self.variance)
        return scale

    def logits(self, features: Float32s) -> Float32s:
        """(n, d) features to (n, classes) logits."""
        values = np.empty_like(features)
        normalise(features, self.mean, self.scale, values)
        if self.hidden:
            values = self._hidden(values)
        out: Float32s = values @ self.parameters["out"] + self.parameters["out_bias"]
        return out

    def training_pass(self, features: Float32s, weights: Float32s) -> tuple[Float32s, Tape]:
        """Logits with the batch's own statistics, and the tape that `backward` and `follow` read.

        features: (n, d); weights: (n,), the rows each stands for, as the statistics are those of the rows. Changes
        nothing, so that threads may pass the pieces of a batch at once, each standardised by itself.
        """
        share, mean, variance, scale, inputs = standardise(features, weights)
        activity = inputs
        if self.hidden:
            activity = self._hidden(inputs)
        logits = activity @ self.parameters["out"] + self.parameters["out_bias"]
        return logits, Tape(share, mean, variance, scale, inputs, activity)

    def follow(self, tape: Tape) -> None:
        """Let the running averages of the statistics follow those of a batch."""
        momentum = _MOMENTUM if self._started else 1.0
        self.mean = (self.mean * (1 - momentum) + momentum * tape.mean).astype(np.float32)
        self.variance = (self.variance * (1 - momentum) + momentum * tape.variance).astype(np.float32)
        self._started = True

    def backward(self, gradient: Float32s, tape: Tape, into: Gradients) -> Float32s:
        """From the gradient (n, classes) of the logits those of the parameters, which go to `into`.

        Returns the gradient of the sums that features go into: (n, h) of the hidden units', or the logits' without.
        """
        into.values["out"] = tape.activity.T @ gradient
        into.values["out_bias"] = column_sums(gradient, 0, gradient.shape[1])
        if not self.hidden:
            return gradient
        gradient = gradient @ self.parameters["out"].T
        activation_gradient(tape.activity, tape.activity, RELU, gradient)
        into.values["hidden_bias"] = column_sums(gradient, 0, gradient.shape[1])
        if self._read_at_once:
            into.values["hidden"] = tape.inputs.T @ gradient
            return gradient
        into.values["hidden"] = np.zeros_like(self.parameters["hidden"])
        for read, units in self.runs:
            into.values["hidden"][read, units] = tape.inputs[:, read].T @ gradient[:, units]
        return gradient

    def features_gradient(self, gradient: Float32s, tape: Tape) -> Float32s:
        """Gradient (n, d) of the features, from what `backward` returned. Not worked out where no filters need it."""
        if not self.hidden:
            of_features: Float32s = gradient @ self.parameters["out"].T
        elif self._read_at_once:
            of_features = gradient @ self.parameters["hidden"].T
        else:
            of_features = np.zeros_like(tape.inputs)
            for read, units in self.runs:
                of_features[:, read] += gradient[:, units] @ self.parameters["hidden"][read, units].T
        normalise_gradient(of_features, tape.inputs, tape.share, tape.scale)
        return of_features

    @property
    def _read_at_once(self) -> bool:
        """Whether all hidden units read all features."""
        return len(self.runs) == 1 and self.runs[0][0] == slice(0, self.features)

    def _hidden(self, inputs: Float32s) -> Float32s:
        """(n, h) activities of the hidden units."""
        hidden = self.parameters["hidden"]
        values: Float32s = np.empty((len(inputs), self.hidden), np.float32)
        for read, units in self.runs:
            np.matmul(inputs[:, read], hidden[read, units], out=values[:, units])
        add_bias(values, self.parameters["hidden_bias"], True)
        return values

    def standardise(self, mean: npt.NDArray[np.floating], variance: npt.NDArray[np.floating]) -> None:
        """Set the statistics that features are standardised by."""
        self.mean, self.variance = mean.astype(np.float32), variance.astype(np.float32)


def with_vote(below: Classifier | None, own: Classifier, votes: int) -> Classifier:
    """The mean of a classifier that as many as `votes` have voted in already, and one of features beside its own."""
    if below is None:
        return own
    shares = votes / (votes + 1), 1 / (votes + 1)
    return Classifier.voting(below.features + own.features, [(below, 0, shares[0]), (own, below.features, shares[1])])


def _moved(run: slice, by: int) -> slice:
    return slice(run.start + by, run.stop + by)


def softmax(logits: Float32s) -> Float32s:
    """Probabilities (n, classes) of logits (n, classes)."""
    powers: Float32s = np.exp(logits - logits.max(1, keepdims=True))
    powers /= powers.sum(1, keepdims=True)
    return powers


def cross_entropy(logits: Float32s, target: Float32s, weight: Float32s) -> tuple[float, Float32s]:
    """Mean loss, and its gradient in the logits (n, classes).

    target: (n, classes), distributions (times class weights, where those differ); weight: (n,) of each row, near 1.
    """
    gradient = np.empty_like(logits)
    loss = softmax_loss(logits, target, weight, gradient)
    return loss / max(float(weight.sum()), 1e-12), gradient
