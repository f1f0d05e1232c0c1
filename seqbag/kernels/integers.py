"""Convolutions of small integers, summed in 32 bits and compared with a threshold each: bits come out.

The input is laid out with its padding, so that a window is runs of neighbouring numbers and no copy of it is needed:
the tile of `dense` takes its pairs straight from there. A run of odd length is read one number further, times zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from seqbag.kernels.dense import INTS, LANES, PANEL, ROWS, tile_sums

_I64, _BITS = ir.IntType(64), ir.IntType(PANEL)
_BOTH = ir.Constant(ir.VectorType(ir.IntType(32), PANEL), list(range(PANEL)))


@intrinsic
def _tile(
    typing: Any, values: Any, starts: Any, first: Any, places: Any, weights: Any, panel: Any, thresholds: Any, at: Any,
    out: Any, byte: Any, stride: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """The bits of ROWS windows under PANEL filters: PANEL / 8 bytes a window, at out[byte + window * stride].

    Pair p of window r is at values[starts[first + r] + places[p]:], its weights in weights[panel:] (pairs, PANEL, 2);
    a bit is set where the sum is above thresholds[at:] (PANEL,).
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def array(number: int) -> Any:
            return context.make_array(signature.args[number])(context, builder, args[number])

        def number(value: int) -> Any:
            return ir.Constant(_I64, value)

        starts = [builder.add(args[2], number(r)) for r in range(ROWS)]
        starts = [builder.load(builder.gep(array(1).data, [start])) for start in starts]
        windows = [builder.gep(array(0).data, [start]) for start in starts]
        places, weights = array(3), builder.gep(array(4).data, [args[5]])
        pairs = builder.extract_value(places.shape, 0)

        def pair(p: Any, row: int) -> Any:
            return builder.gep(windows[row], [builder.load(builder.gep(places.data, [p]))])

        totals = tile_sums(builder, weights, pairs, pair)
        limits = builder.gep(array(6).data, [args[7]])
        for r, row in enumerate(totals):
            above = [
                builder.icmp_signed(
                    ">",
                    builder.load(total),
                    builder.load(builder.bitcast(builder.gep(limits, [number(v * LANES)]), INTS.as_pointer()), align=4),
                )
                for v, total in enumerate(row)
            ]
            bits = builder.bitcast(builder.shuffle_vector(*above, _BOTH), _BITS)
            target = builder.gep(array(8).data, [builder.add(args[9], builder.mul(args[10], number(r)))])
            builder.store(bits, builder.bitcast(target, _BITS.as_pointer()), align=1)
        return context.get_dummy_value()

    number = types.int64
    arguments = (values, starts, number, places, weights, number, thresholds, number, out, number, number)
    return types.void(*arguments), codegen


@njit(cache=True, nogil=True)
def convolve(values: Any, starts: Any, places: Any, weights: Any, thresholds: Any, out: Any, example: int) -> None:
    """Bits of an example's windows, whether each sum is above the filter's threshold.

    values: flat int16, padding included, one more number than the last window takes; starts: (out_sites rounded up to
    ROWS,) int64, where each window begins in it; places: (pairs,) int64, where each pair of a window's numbers is from
    there; weights: as `dense.interleaved` lays out (2 * pairs, filters) int16; thresholds: (filters,) int32, filters a
    multiple of PANEL; out: (sites, filters / 8) uint8, bits in little-endian order, from row `example` on; those past
    the last window's are scratch.
    """
    step = 2 * len(places) * PANEL
    flat, stride = out.reshape(-1), out.shape[1]
    for first in range(0, len(starts), ROWS):
        for panel in range(len(thresholds) // PANEL):
            byte = (example + first) * stride + panel * (PANEL // 8)
            _tile(
                values, starts, first, places, weights, panel * step, thresholds, panel * PANEL, flat, byte, stride
            )  # type: ignore[call-arg]  # fmt: skip


@njit(cache=True, nogil=True)
def convolve_grids(
    grids: Any, lines: Any, size: int, sites: int, starts: Any, places: Any, weights: Any, thresholds: Any, out: Any
) -> None:
    """As `convolve`, of every one of grids (n, lines, numbers) of integers; `sites` windows each.

    lines: (lines,) int64, where each of an example's lines goes among the `size` numbers with padding; out:
    (n * sites + ROWS - 1, filters / 8).
    """
    padded = np.zeros(size, np.int16)
    for example in range(len(grids)):
        for i in range(len(lines)):
            line, target = grids[example, i], padded[lines[i] :]
            for j in range(len(line)):
                target[j] = line[j]
        convolve(padded, starts, places, weights, thresholds, out, example * sites)
