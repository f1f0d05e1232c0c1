"""Nearest-centroid search and affine maps at the rate of a matrix product, the reduction fused.

argmin_c |x - c|^2 = argmax_c (x.c - |c|^2 / 2), so a search is a matrix product whose result is never stored: a tile of
ROWS rows by PANEL centroids is summed in vector registers and folded at once into each row's best score (the register
blocking of Goto and van de Geijn 2008, doi 10.1145/1356052.1356053). LLVM vector types are emitted directly, because
the loop vectoriser does not keep a tile of this size in registers; the tile's shape follows the host's vector width.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from seqbag.batch import Float32s, Int32s, Int64s


def _tile_shape() -> tuple[int, int, int]:
    """(rows, vectors, lanes) such that rows * vectors sums, one column of each and a broadcast fit the registers."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 8, 3, 16  # 32 registers of 512 bits
    if features.get("avx"):
        return 4, 3, 8  # 16 registers of 256 bits
    if features.get("neon"):
        return 8, 3, 4  # 32 registers of 128 bits
    return 4, 2, 4


ROWS, VECTORS, LANES = _tile_shape()
PANEL = VECTORS * LANES

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_FLOATS = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(_INT, LANES)
_alloca: Any = cgutils.alloca_once


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """The address of `array[at]`."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def _vector(builder: Any, pointer: Any, offset: int, kind: Any) -> Any:
    """A pointer to the vector that starts `offset` elements behind `pointer`."""
    return builder.bitcast(builder.gep(pointer, [ir.Constant(ir.IntType(64), offset)]), kind.as_pointer())


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(_INT, LANES), None))


def _number(value: int) -> Any:
    return ir.Constant(ir.IntType(64), value)


def _sums(
    builder: Any, starts: list[Any], block: Any, columns: Any, depth: Any, block_step: Any, column_step: Any
) -> list[list[Any]]:
    """Emit starts + the product of a block (depth, ROWS) and columns (depth, PANEL), whose rows are so far apart."""
    fma = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), f"llvm.fmuladd.v{LANES}f32"
    )
    sums = [[_alloca(builder, _FLOATS) for _ in range(VECTORS)] for _ in range(ROWS)]
    for row in sums:
        for start, total in zip(starts, row, strict=True):
            builder.store(start, total)
    with cgutils.for_range(builder, depth) as loop:
        column = builder.gep(columns, [builder.mul(loop.index, column_step)])
        values = builder.gep(block, [builder.mul(loop.index, block_step)])
        parts = [builder.load(_vector(builder, column, v * LANES, _FLOATS), align=4) for v in range(VECTORS)]
        for r in range(ROWS):
            value = _splat(builder, builder.load(builder.gep(values, [_number(r)])), _FLOATS)
            for v in range(VECTORS):
                builder.store(builder.call(fma, [value, parts[v], builder.load(sums[r][v])]), sums[r][v])
    return [[builder.load(total) for total in row] for row in sums]


def _panel_sums(builder: Any, block: Any, panel: Any, dims: Any) -> list[list[Any]]:
    """Emit the product of a block (dims, ROWS) and a panel (1 + dims, PANEL), row 0 of which starts the sums."""
    starts = [builder.load(_vector(builder, panel, v * LANES, _FLOATS), align=4) for v in range(VECTORS)]
    columns = builder.gep(panel, [_number(PANEL)])
    return _sums(builder, starts, block, columns, dims, _number(ROWS), _number(PANEL))


@intrinsic
def _tile_best(
    typing: Any,
    blocks: Any,
    block: Any,
    panels: Any,
    panel: Any,
    dims: Any,
    scores: Any,
    codes: Any,
    at: Any,
    first: Any,
) -> tuple[Any, Callable[..., Any]]:
    """Fold a tile into the running best of its rows: scores[at:], codes[at:] hold (ROWS, LANES) of them."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        block = _pointer(context, builder, kinds[0], args[0], args[1])
        panel = _pointer(context, builder, kinds[2], args[2], args[3])
        scores = _pointer(context, builder, kinds[5], args[5], args[7])
        codes = _pointer(context, builder, kinds[6], args[6], args[7])
        base = _splat(builder, args[8], _INTS)
        lanes = [ir.Constant(_INTS, list(range(v * LANES, (v + 1) * LANES))) for v in range(VECTORS)]
        names = [builder.add(base, lane) for lane in lanes]
        for r, row in enumerate(_panel_sums(builder, block, panel, args[4])):
            score_at = _vector(builder, scores, r * LANES, _FLOATS)
            code_at = _vector(builder, codes, r * LANES, _INTS)
            best, code = builder.load(score_at, align=4), builder.load(code_at, align=4)
            for total, name in zip(row, names, strict=True):
                better = builder.fcmp_ordered(">", total, best)
                best, code = builder.select(better, total, best), builder.select(better, name, code)
            builder.store(best, score_at, align=4)
            builder.store(code, code_at, align=4)
        return context.get_dummy_value()

    int64 = types.int64
    return types.void(blocks, int64, panels, int64, int64, scores, codes, int64, types.int32), codegen


@intrinsic
def _tile_store(
    typing: Any, blocks: Any, block: Any, panels: Any, panel: Any, dims: Any, out: Any, at: Any
) -> tuple[Any, Callable[..., Any]]:
    """Store a tile as out[at:], (ROWS, PANEL)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        block = _pointer(context, builder, kinds[0], args[0], args[1])
        panel = _pointer(context, builder, kinds[2], args[2], args[3])
        out = _pointer(context, builder, kinds[5], args[5], args[6])
        for r, row in enumerate(_panel_sums(builder, block, panel, args[4])):
            for v, total in enumerate(row):
                builder.store(total, _vector(builder, out, r * PANEL + v * LANES, _FLOATS), align=4)
        return context.get_dummy_value()

    int64 = types.int64
    return types.void(blocks, int64, panels, int64, int64, out, int64), codegen


@intrinsic
def tile_product(
    typing: Any, left: Any, left_at: Any, left_step: Any, right: Any, right_at: Any, right_step: Any, depth: Any,
    out: Any, out_at: Any, out_step: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """out (ROWS, PANEL) = left (depth, ROWS).T @ right (depth, PANEL), each at a place in a flat array.

    The steps are from a row of theirs to the next.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        block = _pointer(context, builder, kinds[0], args[0], args[1])
        columns = _pointer(context, builder, kinds[3], args[3], args[4])
        out = _pointer(context, builder, kinds[7], args[7], args[8])
        starts = [ir.Constant(_FLOATS, None)] * VECTORS
        for r, row in enumerate(_sums(builder, starts, block, columns, args[6], args[2], args[5])):
            to = builder.gep(out, [builder.mul(args[9], _number(r))])
            for v, total in enumerate(row):
                builder.store(total, _vector(builder, to, v * LANES, _FLOATS), align=4)
        return context.get_dummy_value()

    number = types.int64
    return types.void(left, number, number, right, number, number, number, out, number, number), codegen


@njit(cache=True, nogil=True)
def _transpose(x: Float32s, start: int, stop: int, blocks: Float32s) -> None:
    """Lay rows start..stop of x (n, D) out as blocks (D, ROWS), so that a tile reads one stream; the last is padded."""
    dims = x.shape[1]
    for row in range(start, stop):
        at = (row - start) // ROWS * ROWS * dims + (row - start) % ROWS
        for d in range(dims):
            blocks[at + d * ROWS] = x[row, d]


@njit(cache=True, nogil=True)
def _chunk(n: int, dims: int) -> int:
    """How many rows to take at once, so that they stay in L2 while every panel passes over them."""
    return min(max(8, 4096 // (dims + 1)), max(1, (n + ROWS - 1) // ROWS)) * ROWS


@njit(cache=True, nogil=True)
def _nearest(x: Float32s, panels: Float32s, codes: Int32s, scores: Float32s) -> None:
    """Write to codes (n,) the best packed centroid of each row of x (n, D), and its x.c - |c|^2 / 2 to scores (n,)."""
    n, dims = x.shape
    size = (dims + 1) * PANEL
    chunk = _chunk(n, dims)
    blocks = np.zeros(chunk * dims, np.float32)
    best = np.empty(chunk * LANES, np.float32)
    names = np.empty(chunk * LANES, np.int32)
    for start in range(0, n, chunk):
        stop = min(n, start + chunk)
        _transpose(x, start, stop, blocks)
        best[:] = -np.inf
        names[:] = 0
        for p in range(len(panels) // size):
            for row in range(0, stop - start, ROWS):
                first = np.int32(p * PANEL)
                _tile_best(blocks, row * dims, panels, p * size, dims, best, names, row * LANES, first)  # type: ignore[call-arg]
        for row in range(stop - start):
            score, code = best[row * LANES], names[row * LANES]
            for at in range(row * LANES + 1, (row + 1) * LANES):
                if best[at] > score or (best[at] == score and names[at] < code):
                    score, code = best[at], names[at]
            codes[start + row] = code
            scores[start + row] = score


@njit(cache=True, nogil=True)
def _affine(x: Float32s, panels: Float32s, out: Float32s) -> None:
    """Write to out (n, k) each row of x (n, D) times the packed columns, plus each column's start."""
    n, dims = x.shape
    columns = out.shape[1]
    size = (dims + 1) * PANEL
    chunk = _chunk(n, dims)
    blocks = np.zeros(chunk * dims, np.float32)
    tile = np.empty(ROWS * PANEL, np.float32)
    for start in range(0, n, chunk):
        stop = min(n, start + chunk)
        _transpose(x, start, stop, blocks)
        for p in range(len(panels) // size):
            width = min(PANEL, columns - p * PANEL)
            for first in range(start, stop, ROWS):
                _tile_store(blocks, (first - start) * dims, panels, p * size, dims, tile, 0)  # type: ignore[call-arg]
                for row in range(first, min(stop, first + ROWS)):
                    for column in range(width):
                        out[row, p * PANEL + column] = tile[(row - first) * PANEL + column]


@njit(cache=True, nogil=True)
def sum_by_code(x: np.ndarray, codes: Int32s, sums: np.ndarray, counts: Int64s) -> None:
    """Add each row of x (n, D) to sums[its code] (k, D) int64 or float64, and 1 to counts[its code] (k,)."""
    for row in range(len(x)):
        code = codes[row]
        counts[code] += 1
        for d in range(x.shape[1]):
            sums[code, d] += x[row, d]


def _panels(columns: Float32s, start: Float32s, pad: float) -> Float32s:
    """The columns of a (D, k) matrix as flat panels of (1 + D, PANEL), on a cache line; row 0 of each is `start`."""
    dims, k = columns.shape
    count = -(-k // PANEL)
    table = np.zeros((1 + dims, count * PANEL), np.float32)
    table[0] = pad
    table[0, :k] = start
    table[1:, :k] = columns
    room = np.empty(table.size + 16, np.float32)
    at = -room.ctypes.data % 64 // 4
    panels = room[at : at + table.size]
    panels[:] = table.reshape(1 + dims, count, PANEL).transpose(1, 0, 2).reshape(-1)
    return panels


def _split(rows: int, threads: int, work: Callable[[int, int], None]) -> None:
    """Run work(start, stop) over equal shares of the rows, one a thread; few rows are not worth a thread."""
    shares = max(1, min(threads, rows // 256))
    edges = [rows * share // shares for share in range(shares + 1)]
    if shares == 1:
        work(0, rows)
        return
    with ThreadPoolExecutor(shares) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))


class Searcher:
    """Finds the nearest of k centroids. Ties go to the lowest index; the number of threads changes no result."""

    def __init__(self, centroids: Float32s) -> None:
        """centroids: (k, D) float32. One with a NaN in it stands for none, and is never found."""
        missing = np.isnan(centroids).any(axis=1)
        columns = np.where(missing, 0, centroids.T)
        half_norms = np.square(columns, dtype=np.float64).sum(axis=0) / 2
        self._packed = _panels(columns, np.where(missing, -np.inf, -half_norms).astype(np.float32), -np.inf)

    def __call__(self, x: Float32s, threads: int = 1) -> tuple[Int32s, Float32s]:
        """For x (n, D) float32, finite: the nearest centroid (n,) int32, and x.c - |c|^2 / 2 of it (n,) float32."""
        x = np.ascontiguousarray(x)
        codes, scores = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
        _split(len(x), threads, lambda a, b: _nearest(x[a:b], self._packed, codes[a:b], scores[a:b]))
        return codes, scores


class Affine:
    """x @ matrix + bias, where a row's result does not depend on the other rows, nor on the number of threads."""

    def __init__(self, matrix: Float32s, bias: Float32s) -> None:
        """matrix: (D, k) float32; bias: (k,) float32."""
        self._width = matrix.shape[1]
        self._packed = _panels(matrix, bias, 0.0)

    def __call__(self, x: Float32s, threads: int = 1) -> Float32s:
        """(n, k) float32 from x (n, D) float32."""
        x = np.ascontiguousarray(x)
        out = np.empty((len(x), self._width), np.float32)
        _split(len(x), threads, lambda a, b: _affine(x[a:b], self._packed, out[a:b]))
        return out
