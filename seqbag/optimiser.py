"""Adam with a one-cycle learning rate."""

from __future__ import annotations

import numpy as np

from seqbag.batch import Float32s
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
            state = (self.parameters[name], self._means[name], self._squares[name])
            decay = rate * self.decay if gradient.ndim == 2 and name != "embedding" else 0.0
            rows = gradients.rows.get(name)
            if rows is None or len(rows) == len(state[0]):
                _move(*state, gradient, corrected, decay)
            else:
                values, mean, square = (array[rows] for array in state)
                _move(values, mean, square, gradient, corrected, decay)
                for array, moved in zip(state, (values, mean, square), strict=True):
                    array[rows] = moved


def _move(values: Float32s, mean: Float32s, square: Float32s, gradient: Float32s, rate: float, decay: float) -> None:
    flat = np.ascontiguousarray(gradient, np.float32).reshape(-1)
    adam_step(values.reshape(-1), flat, mean.reshape(-1), square.reshape(-1), rate, _BETA1, _BETA2, decay)
