"""A dense layer on whole numbers: standardised features of 16 bits times weights of 8, summed in 32.

Two products and a sum a lane are one instruction on x86-64 (pmaddwd, with an accumulator vpdpwssd); elsewhere LLVM
makes it of what there is. Sums of integers have no order, so that every machine gives the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from seqbag.batch import Float32s


def _tile_shape() -> tuple[int, int, str | None]:
    """(rows, lanes, instruction) such that two vectors of sums a row fit the registers."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512bw"):
        return 8, 16, "llvm.x86.avx512.pmaddw.d.512"
    if features.get("avx2"):
        return 4, 8, "llvm.x86.avx2.pmadd.wd"
    return 4, 4, None


ROWS, LANES, _MULTIPLY_ADD = _tile_shape()
PANEL = 2 * LANES
_INT8 = 127
_DEVIATIONS = 16  # features further from the mean than this are taken as this far

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_SHORTS = ir.VectorType(_I16, 2 * LANES)
INTS = ir.VectorType(_I32, LANES)
_alloca: Any = cgutils.alloca_once


def _pairs(builder: Any, a: Any, b: Any) -> Any:
    """a[2i] * b[2i] + a[2i + 1] * b[2i + 1], of 16 bits each, in each lane i of 32."""
    if _MULTIPLY_ADD is not None:
        function = ir.FunctionType(INTS, [_SHORTS, _SHORTS])
        known = cgutils.get_or_insert_function(builder.module, function, _MULTIPLY_ADD)  # type: ignore[no-untyped-call]
        return builder.call(known, [a, b])
    products = []
    for odd in (0, 1):
        lanes = ir.Constant(ir.VectorType(_I32, LANES), [2 * lane + odd for lane in range(LANES)])
        parts = [
            builder.sext(builder.shuffle_vector(v, ir.Constant(_SHORTS, ir.Undefined), lanes), INTS) for v in (a, b)
        ]
        products.append(builder.mul(*parts))
    return builder.add(*products)


def tile_sums(builder: Any, weights: Any, pairs: Any, values: Callable[[Any, int], Any]) -> list[list[Any]]:
    """Of each of ROWS rows, the addresses of two vectors of sums, PANEL int32, over pairs of values and weights.

    weights: address of (pairs, PANEL, 2) int16, see `interleaved`; values: from the number of a pair, and a row, the
    address of the row's two int16.
    """
    totals = [[_alloca(builder, INTS) for _ in range(2)] for _ in range(ROWS)]
    for row in totals:
        for total in row:
            builder.store(ir.Constant(INTS, None), total)
    with cgutils.for_range(builder, pairs) as loop:
        column = builder.gep(weights, [builder.mul(loop.index, ir.Constant(_I64, 2 * PANEL))])
        parts = [
            builder.load(
                builder.bitcast(builder.gep(column, [ir.Constant(_I64, v * PANEL)]), _SHORTS.as_pointer()), align=2
            )
            for v in range(2)
        ]
        for r in range(ROWS):
            value = builder.load(builder.bitcast(values(loop.index, r), _I32.as_pointer()), align=2)
            first = builder.insert_element(ir.Constant(INTS, ir.Undefined), value, ir.Constant(_I32, 0))
            splat = builder.shuffle_vector(
                first, ir.Constant(INTS, ir.Undefined), ir.Constant(ir.VectorType(_I32, LANES), None)
            )
            pair = builder.bitcast(splat, _SHORTS)
            for part, total in zip(parts, totals[r], strict=True):
                builder.store(builder.add(builder.load(total), _pairs(builder, part, pair)), total)
    return totals


def interleaved(table: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Weights (2 * pairs, panels * PANEL) in the flat order of the tiles: (panels, pairs, PANEL, 2)."""
    order = table.reshape(len(table) // 2, 2, -1, PANEL).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(order).reshape(-1)


@intrinsic
def tile(typing: Any, block: Any, weights: Any, panel: Any, pairs: Any, sums: Any) -> tuple[Any, Callable[..., Any]]:
    """sums (ROWS, PANEL) int32 of block (pairs, ROWS, 2) int16 times weights[panel:] (pairs, PANEL, 2) int16."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def data(number: int) -> Any:
            return context.make_array(signature.args[number])(context, builder, args[number]).data

        def values(pair: Any, row: int) -> Any:
            at = builder.add(builder.mul(pair, ir.Constant(_I64, 2 * ROWS)), ir.Constant(_I64, 2 * row))
            return builder.gep(block, [at])

        block, weights, sums = data(0), builder.gep(data(1), [args[2]]), data(4)
        for r, row in enumerate(tile_sums(builder, weights, args[3], values)):
            for v, total in enumerate(row):
                target = builder.gep(sums, [ir.Constant(_I64, r * PANEL + v * LANES)])
                builder.store(builder.load(total), builder.bitcast(target, INTS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(block, weights, types.int64, types.int64, sums), codegen


@njit(cache=True, nogil=True)
def _round(values: Any, mean: Any, scale: Any, limit: Any, out: Any) -> None:
    """out (d,) int16 = (values - mean) * scale, rounded, within the limit."""
    for d in range(len(mean)):
        value = (values[d] - mean[d]) * scale[d]
        value = value if value < limit else limit
        value = value if value > -limit else -limit
        out[d] = np.int16(np.int32(np.rint(value)))


@njit(cache=True, nogil=True)
def _scaled(sums: Any, scale: Any, bias: Any, floor: Any, out: Any) -> None:
    """out (k,) = sums * scale + bias, not below the floor."""
    for c in range(len(bias)):
        value = np.float32(sums[c]) * scale[c] + bias[c]
        out[c] = value if value > floor else floor


@njit(cache=True, nogil=True)
def _dense(
    features: Any, mean: Any, scale: Any, limit: Any, weights: Any, out_scale: Any, bias: Any, floor: Any, out: Any
) -> None:
    """out (n, k) = the whole-number product, scaled, plus bias, not below the floor. See `Dense`."""
    n, dims = features.shape
    pairs = (dims + 1) // 2
    panels = len(weights) // (2 * pairs * PANEL)
    line = np.zeros(2 * pairs, np.int16)
    line_pairs = line.view(np.int32)
    block = np.zeros(pairs * ROWS, np.int32)
    halves = block.view(np.int16)
    part = np.zeros(ROWS * PANEL, np.int32)
    sums = np.zeros((ROWS, panels * PANEL), np.int32)
    for start in range(0, n, ROWS):
        stop = min(n, start + ROWS)
        for row in range(start, stop):
            _round(features[row], mean, scale, limit, line)
            turned = block[row - start :]
            for pair in range(pairs):
                turned[pair * ROWS] = line_pairs[pair]
        for panel in range(panels):
            tile(halves, weights, panel * pairs * PANEL * 2, pairs, part)  # type: ignore[call-arg]
            for r in range(ROWS):
                for column in range(PANEL):
                    sums[r, panel * PANEL + column] = part[r * PANEL + column]
        for row in range(start, stop):
            _scaled(sums[row - start], out_scale, bias, floor, out[row])


class Dense:
    """((x - mean) * scale) @ weights + bias with the weights rounded to 8 bits a column and the inputs to 16."""

    def __init__(self, mean: Float32s, scale: Float32s, weights: Float32s, bias: Float32s, rectify: bool) -> None:
        """mean, scale: (d,); weights: (d, k), exact if each column is a multiple of its largest / 127; bias: (k,).

        rectify: results below zero become zero.
        """
        dims, columns = weights.shape
        most = min(32767, (2**31 - 1) // (_INT8 * dims))  # so that no sum overflows
        step = np.float32(2.0 ** np.floor(np.log2(most / _DEVIATIONS)))
        self._limit = np.float32(most)
        self._mean, self._scale, self._bias = mean, (scale * step).astype(np.float32), bias
        self._floor = np.float32(0 if rectify else -np.inf)
        unit = np.abs(weights).max(0) / np.float32(_INT8)
        self._out_scale = (unit / step).astype(np.float32)
        panels, pairs = -(-columns // PANEL), -(-dims // 2)
        table: npt.NDArray[np.int16] = np.zeros((2 * pairs, panels * PANEL), np.int16)
        table[:dims, :columns] = np.rint(weights / np.where(unit > 0, unit, 1))
        self._weights = interleaved(table)

    def __call__(self, features: Float32s) -> Float32s:
        """(n, k) float32 from features (n, d) float32. A row's result does not depend on the rows beside it."""
        out = np.empty((len(features), len(self._bias)), np.float32)
        arguments = (self._mean, self._scale, self._limit, self._weights, self._out_scale, self._bias, self._floor)
        _dense(features, *arguments, out)
        return out
