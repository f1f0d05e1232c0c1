"""Muon's step as one kernel: products of a small matrix with itself, in tiles that stay in registers.

Symmetric products are worked out on one side of the diagonal alone, and nothing in between asks for the interpreter's
lock, which two threads that each call a dozen products wait for longer than they take.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from seqbag.kernels.assign import PANEL, ROWS, tile_product

_LINE = 16  # floats of a cache line
_MARGIN = np.float32(1.01)  # the polynomials grow fast beyond one
_LEAST = np.float32(1e-20)


@njit(cache=True, nogil=True)
def _zeros(rows: int, step: int) -> Any:
    """(rows, step) float32 zeros, on a cache line."""
    room = np.zeros(rows * step + _LINE, np.float32)
    at = -np.int64(room.ctypes.data) % 64 // 4
    return room[at : at + rows * step].reshape(rows, step)


@njit(cache=True, nogil=True)
def _whole(size: int) -> int:
    """As many rows as whole tiles have."""
    return (size + ROWS - 1) // ROWS * ROWS


@njit(cache=True, nogil=True)
def _room(size: int) -> int:
    """As many columns as whole tiles have, either way round."""
    return _whole((size + PANEL - 1) // PANEL * PANEL)


@njit(cache=True, nogil=True)
def _product(left: Any, right: Any, depth: int, rows: int, columns: int, symmetric: bool, out: Any) -> None:
    """out[:rows, :columns] = left[:depth, :rows].T @ right[:depth, :columns]; if symmetric, mirrored at the diagonal.

    All have room, zeros on the left, up to whole tiles.
    """
    flat_left, flat_right, flat_out = left.reshape(-1), right.reshape(-1), out.reshape(-1)
    steps = left.shape[1], right.shape[1], out.shape[1]
    for start in range(0, columns, PANEL):
        for first in range(0, min(rows, start + PANEL) if symmetric else rows, ROWS):
            tile_product(
                flat_left, first, steps[0], flat_right, start, steps[1], depth,
                flat_out, first * steps[2] + start, steps[2],
            )  # type: ignore[call-arg]  # fmt: skip
    if symmetric:
        for i in range(rows):
            for j in range(i):
                out[i, j] = out[j, i]


@njit(cache=True, nogil=True, error_model="numpy")
def _orthogonal(tall: Any, turned: Any, rows: int, size: int, polynomials: Any, out: Any) -> None:
    """Fill out[:rows, :size] with tall[:rows, :size], its singular values brought nearer one; nought stays nought.

    turned: tall.T; polynomials: (rounds, 3), the factors of x, x^3 and x^5. All are applied in one small Gram matrix,
    so that the large one is multiplied twice and no more.
    """
    room, step = _whole(size), tall.shape[1]
    gram, inner, factor, product = _zeros(room, step), _zeros(room, step), _zeros(room, step), _zeros(room, step)
    _product(tall, tall, rows, size, size, True, gram)
    norm = np.float32(0)
    for i in range(size):
        norm += gram[i, i]
    share = np.float32(1) / (_MARGIN * np.sqrt(norm) + _LEAST)
    for i in range(size):
        for j in range(size):
            gram[i, j] = gram[i, j] * share * share
    for done in range(len(polynomials)):
        for i in range(size):
            for j in range(size):
                inner[i, j] = polynomials[done, 2] * gram[i, j]
            inner[i, i] += polynomials[done, 1]
        _product(gram, inner, size, size, size, True, factor)
        for i in range(size):
            factor[i, i] += polynomials[done, 0]
        if done == 0:
            for i in range(size):
                for j in range(size):
                    product[i, j] = factor[i, j] * share
        else:
            _product(factor, product, size, size, size, True, inner)
            product, inner = inner, product
        if done + 1 < len(polynomials):
            _product(factor, gram, size, size, size, True, inner)
            _product(inner, factor, size, size, size, True, gram)
    _product(turned, product, size, rows, size, False, out)


@njit(cache=True, nogil=True)
def muon_step(values: Any, mean: Any, gradient: Any, momentum: Any, keep: Any, rate: Any, polynomials: Any) -> None:
    """mean = momentum * mean + gradient, values = keep * values - rate * orthogonal(gradient + momentum * mean).

    All (n, k) float32, of either shape. polynomials: see `seqbag.optimiser`.
    """
    wide = values.shape[0] < values.shape[1]
    rows, size = max(values.shape), min(values.shape)
    tall, turned = _zeros(_whole(rows), _room(size)), _zeros(_whole(size), _room(rows))
    along, across = (turned, tall) if wide else (tall, turned)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            mean[i, j] = momentum * mean[i, j] + gradient[i, j]
            along[i, j] = gradient[i, j] + momentum * mean[i, j]
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            across[j, i] = along[i, j]
    step = np.empty_like(tall)
    _orthogonal(tall, turned, rows, size, polynomials, step)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            values[i, j] = keep * values[i, j] - rate * (step[j, i] if wide else step[i, j])
