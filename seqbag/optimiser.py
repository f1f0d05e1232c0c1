"""Adam with a one-cycle learning rate."""

from __future__ import annotations

import numpy as np

from seqbag.filters import Gradients, Parameters
from seqbag.kernels.filters import adam_step

_BETA1, _BETA2 = 0.9, 0.99
_WARM_UP = 0.15  # of the steps


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Learning rate of a step: a linear rise to `peak`, then half a cosine to nought (Smith 2018, arXiv 1803.09820)."""
    done = (step + 1) / (steps + 1)
    if done < _WARM_UP:
        return peak * done / _WARM_UP
    return peak * 0.5 * (1 + float(np.cos(np.pi * (done - _WARM_UP) / (1 - _WARM_UP))))


class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) with decoupled weight decay on matrices, over a set of parameters.

    A gradient that names rows moves those rows alone.
    """

    def __init__(self, parameters: Parameters, decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.steps = 0
        self._means = {name: np.zeros_like(value) for name, value in parameters.items()}
        self._squares = {name: np.zeros_like(value) for name, value in parameters.items()}

    def step(self, gradients: Gradients, rate: float) -> None:
        """Move the parameters against their gradients."""
        self.steps += 1
        corrected = rate * np.sqrt(1 - _BETA2**self.steps) / (1 - _BETA1**self.steps)
        for name, gradient in gradients.values.items():
            shape = gradient.shape if gradient.ndim == 2 else (1, gradient.size)
            values, mean, square = (
                state[name].reshape(-1, shape[1]) for state in (self.parameters, self._means, self._squares)
            )
            rows = gradients.rows.get(name, np.arange(shape[0]))
            decay = rate * self.decay if gradient.ndim == 2 and name != "embedding" else 0.0
            flat = np.ascontiguousarray(gradient, np.float32).reshape(shape)
            adam_step(values, rows, flat, mean, square, corrected, _BETA1, _BETA2, decay)
