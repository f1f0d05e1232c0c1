"""The logarithm of pooled activations, as vectors: numpy's log1p takes ten times as long, and a third of a head's step.

log(1 + x) is taken of 1 + x in float32, split into a power of two and a mantissa from sqrt(1/2) to sqrt(2), whose
logarithm is a polynomial (Moshier's Cephes, logf): to 2e-7 of it, or of 1 where that is more, on any processor alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_HALF_ROOT = 0x3F3504F3  # the bits of sqrt(1/2)
_LOG2 = np.float32(0.6931471805599453)


def _power(builder: Any, bits: Any) -> Any:
    """The power of two (int32) that leaves a mantissa from sqrt(1/2) on."""
    word = ir.IntType(32)
    return builder.ashr(builder.sub(bits, ir.Constant(word, _HALF_ROOT)), ir.Constant(word, 23))


@intrinsic
def _exponent(typing: Any, value: Any) -> tuple[Any, Callable[..., Any]]:
    """The power of two of a positive float32, as a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sitofp(_power(builder, builder.bitcast(args[0], ir.IntType(32))), ir.FloatType())

    return types.float32(types.float32), codegen


@intrinsic
def _mantissa(typing: Any, value: Any) -> tuple[Any, Callable[..., Any]]:
    """What is left of a positive float32 without its power of two."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        bits = builder.bitcast(args[0], word)
        power = builder.shl(_power(builder, bits), ir.Constant(word, 23))
        return builder.bitcast(builder.sub(bits, power), ir.FloatType())

    return types.float32(types.float32), codegen


@njit(inline="always")
def _log(value: Any) -> Any:
    """The natural logarithm of a float32 of at least 1."""
    exponent: Any = _exponent(value)  # type: ignore[call-arg]
    r = _mantissa(value) - np.float32(1)
    square = r * r
    tail = np.float32(7.0376836292e-2)
    tail = tail * r - np.float32(1.1514610310e-1)
    tail = tail * r + np.float32(1.1676998740e-1)
    tail = tail * r - np.float32(1.2420140846e-1)
    tail = tail * r + np.float32(1.4249322787e-1)
    tail = tail * r - np.float32(1.6668057665e-1)
    tail = tail * r + np.float32(2.0000714765e-1)
    tail = tail * r - np.float32(2.4999993993e-1)
    tail = tail * r + np.float32(3.3333331174e-1)
    return tail * r * square - np.float32(0.5) * square + r + exponent * _LOG2


@njit(cache=True, nogil=True, fastmath={"contract"})
def log_features(sums: Any, lengths: Any, out: Any) -> None:
    """Fill out (n, m + r): sign(x) log(1 + |x|) of sums (n, m), and log(1 + x) of lengths (n, r); all float32."""
    for row in range(len(sums)):
        own, pooled, sites = out[row], sums[row], lengths[row]
        for j in range(len(pooled)):
            own[j] = np.copysign(_log(np.float32(1) + abs(pooled[j])), pooled[j])
        for j in range(len(sites)):
            own[len(pooled) + j] = _log(np.float32(1) + sites[j])


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")  # else division branches
def log_gradient(gradient: Any, first: int, sums: Any, out: Any) -> None:
    """Adjoint of `log_features` in the sums: out (n, m) = gradient / (1 + |sums|).

    gradient: (n, at least first + m) float32, of which the columns from `first` on are read.
    """
    for row in range(len(sums)):
        own, pooled = out[row], sums[row]
        more = gradient[row, first : first + len(own)]
        for j in range(len(own)):
            own[j] = more[j] / (np.float32(1) + abs(pooled[j]))
