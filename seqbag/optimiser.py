"""Muon for the matrices that features pass through, Adam for all else, both under a one-cycle learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from seqbag.batch import Float32s
from seqbag.filters import Gradients, Parameters
from seqbag.kernels.filters import adam_step
from seqbag.kernels.muon import muon_step
from seqbag.parallel import Workers

FILTERS, MATRICES = ("filters.",), ("filters.", "hidden")  # parts of the names of parameters
_BETA1, _BETA2 = 0.9, 0.99
_MOMENTUM = np.float32(0.9)
_MUON = 6.0  # spectral norm of Muon's step, in rates of Adam
_ROUNDS = 2  # as good as three and five on held-out rows of six logs, and of small nets they were a third of a step
_SIGN_ROUNDS = 3  # of filters that are rounded to -1, 0 and +1: 0.962 of DGA domains, with two or four 0.961
POLYNOMIALS: Float32s = np.array(
    # a x + b x^3 + c x^5, each the best for what the one before leaves of 0.01 to 1, as by Amsel et al. 2025 (Polar
    # Express, arXiv 2505.16932). Singular values of so much of the norm are 0.29 to 1.71 after two rounds, 0.73 to 1.27
    # after three.
    [
        (8.09336872422546, -23.62043159671304, 17.446152805676924),
        (3.636585571455038, -2.721926780478246, 0.5365462962939042),
        (2.6613000210320994, -1.9771545670104775, 0.45261641814624054),
    ],
    np.float32,
)
_SMALL = 1 << 12  # values: parameters of no more are not worth a thread each
_WARM_UP = 0.15  # of the steps


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Learning rate of a step: a linear rise to `peak`, then half a cosine to nought (Smith 2018, arXiv 1803.09820)."""
    done = (step + 1) / (steps + 1)
    if done < _WARM_UP:
        return peak * done / _WARM_UP
    return peak * 0.5 * (1 + float(np.cos(np.pi * (done - _WARM_UP) / (1 - _WARM_UP))))


class Optimiser:
    """Moves a set of parameters against their gradients.

    Filters and hidden layers are moved by Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): along the
    momentum with all its singular values set to about one, so that directions in which inputs vary little are learned
    as fast as the others. Embeddings, biases and outputs are moved by Adam (Kingma and Ba 2015, arXiv 1412.6980); a
    gradient that names rows moves those rows alone. Weight decay is decoupled, on matrices but for embeddings.
    """

    def __init__(
        self, parameters: Parameters, decay: float, workers: Workers, muon: Sequence[str] = MATRICES,
        quantised: bool = False,
    ) -> None:  # fmt: skip
        """muon: parts of the names of what Muon moves; quantised: the filters are, where they are applied."""
        self.parameters, self.decay, self.workers = parameters, decay, workers
        self._polynomials = POLYNOMIALS[: _SIGN_ROUNDS if quantised else _ROUNDS]
        self._matrices = {
            name for name, value in parameters.items() if value.ndim == 2 and any(part in name for part in muon)
        }
        self.steps = 0
        self._means = {name: np.zeros_like(value) for name, value in parameters.items()}
        self._squares = {name: np.zeros_like(value) for name, value in parameters.items() if name not in self._matrices}

    def step(self, parts: Sequence[Gradients], rate: float) -> None:
        """One step along the sum of parts, each of which may speak of some of the parameters. They are used up."""
        self.start(parts, rate)()

    def start(self, parts: Sequence[Gradients], rate: float) -> Callable[[], object]:
        """A step that threads that are free begin with, and that is done once the function returned has been called."""
        self.steps += 1
        names = [name for name in self.parameters if any(name in part.values for part in parts)]
        large = sorted((n for n in names if self.parameters[n].size > _SMALL), key=lambda n: -self.parameters[n].size)

        def move(some: list[str]) -> None:
            for name in some:
                self._move(name, Gradients.sum(parts, name), rate)

        small = [name for name in names if name not in large]
        return self.workers.start([*([name] for name in large), small], move)

    def _move(self, name: str, gradients: Gradients, rate: float) -> None:
        gradient = np.ascontiguousarray(gradients.values[name], np.float32)
        decay = rate * self.decay if gradient.ndim == 2 and name != "embedding" else 0.0
        if name in self._matrices:
            mean, values = self._means[name], self.parameters[name]
            shares = _MOMENTUM, np.float32(1 - decay), np.float32(_MUON * rate)
            muon_step(values, mean, gradient, *shares, self._polynomials)
            return
        shape = gradient.shape if gradient.ndim == 2 else (1, gradient.size)
        values, mean, square = (
            state[name].reshape(-1, shape[1]) for state in (self.parameters, self._means, self._squares)
        )
        rows = gradients.rows.get(name, np.arange(shape[0]))
        corrected = rate * np.sqrt(1 - _BETA2**self.steps) / (1 - _BETA1**self.steps)
        adam_step(values, rows, gradient.reshape(shape), mean, square, corrected, _BETA1, _BETA2, decay)
