"""Convolutions on bits: windows of signs times filters of -1, 0 and +1, and the counting of what they give.

A site is a row of 64-bit words, a bit a channel: 1 stands for +1, 0 for -1. A filter is as many words of signs and of a
mask that leaves out its zeros, so that a window's sum is popcount(mask) - 2 popcount((x xor sign) and mask) (Rastegari
et al. 2016, arXiv 1603.05279) and `sum > threshold` is `popcount < limit`. Filters stand in panels of 16, one filter a
64-bit lane, and a tile of 4 sites and 16 filters stays in registers while the window's words pass by. Vectors are
emitted as LLVM vectors: processors with narrower registers run the same code in more instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

SITES = 4  # of a tile
PANEL = 16  # filters of a tile
WORD = 64
_LANES = 8
_CHUNK = 32  # sites gathered at once: their words stay in the first-level cache
_MOST = 255  # what a counter of 8 bits holds

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_QUADS = ir.VectorType(I64, _LANES)
BYTES = ir.VectorType(I8, WORD)
_SHORTS = ir.VectorType(ir.IntType(16), WORD)
_BITS = ir.VectorType(ir.IntType(1), WORD)


def address(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """The address of `array[at]`."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def _load(builder: Any, pointer: Any, offset: Any, kind: Any) -> Any:
    """The vector that starts `offset` elements behind `pointer`."""
    return builder.load(builder.bitcast(builder.gep(pointer, [offset]), kind.as_pointer()), align=1)


def _number(value: int) -> Any:
    return ir.Constant(I64, value)


def _splat(builder: Any, value: Any) -> Any:
    first = builder.insert_element(ir.Constant(_QUADS, ir.Undefined), value, ir.Constant(I32, 0))
    return builder.shuffle_vector(
        first, ir.Constant(_QUADS, ir.Undefined), ir.Constant(ir.VectorType(I32, _LANES), None)
    )


@intrinsic
def _tile(
    typing: Any, block: Any, at: Any, signs: Any, masks: Any, panel: Any, words: Any, limits: Any, places: Any,
    place: Any, planes: Any, apart: Any, starts: Any, out: Any, byte: Any, stride: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """Some signs of PANEL filters at SITES sites, whose popcounts are compared once for each of `planes`.

    block[at:] (words, SITES) holds the windows, signs[panel:] and masks[panel:] (words, PANEL) the filters, and
    limits[places[place + site] + plane * apart:] (PANEL,) what each popcount has to stay under: two bytes a site, at
    out[byte + starts[plane] + site * stride].
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        block = address(context, builder, kinds[0], args[0], args[1])
        signs = address(context, builder, kinds[2], args[2], args[4])
        masks = address(context, builder, kinds[3], args[3], args[4])
        places = address(context, builder, kinds[7], args[7], args[8])
        popcount = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, ir.FunctionType(_QUADS, [_QUADS]), f"llvm.ctpop.v{_LANES}i64"
        )
        vectors = PANEL // _LANES
        sums = [[cgutils.alloca_once(builder, _QUADS) for _ in range(vectors)] for _ in range(SITES)]  # type: ignore[no-untyped-call]
        for row in sums:
            for total in row:
                builder.store(ir.Constant(_QUADS, None), total)
        with cgutils.for_range(builder, args[5]) as loop:
            column, site = builder.mul(loop.index, _number(PANEL)), builder.mul(loop.index, _number(SITES))
            offsets = [builder.add(column, _number(v * _LANES)) for v in range(vectors)]
            filters = [(_load(builder, signs, o, _QUADS), _load(builder, masks, o, _QUADS)) for o in offsets]
            for r in range(SITES):
                value = _splat(builder, builder.load(builder.gep(block, [builder.add(site, _number(r))])))
                for (sign, mask), total in zip(filters, sums[r], strict=True):
                    differ = builder.and_(builder.xor(value, sign), mask)
                    builder.store(builder.add(builder.load(total), builder.call(popcount, [differ])), total)
        starts = address(context, builder, kinds[11], args[11], _number(0))
        with cgutils.for_range(builder, args[9]) as loop:
            first = builder.add(args[13], builder.load(builder.gep(starts, [loop.index])))
            ahead = builder.mul(loop.index, args[10])
            for r in range(SITES):
                own = builder.add(builder.load(builder.gep(places, [_number(r)])), ahead)
                limit = address(context, builder, kinds[6], args[6], own)
                to = builder.add(first, builder.mul(args[14], _number(r)))
                target = address(context, builder, kinds[12], args[12], to)
                for v in range(vectors):
                    under = builder.icmp_signed(
                        "<", builder.load(sums[r][v]), _load(builder, limit, _number(v * _LANES), _QUADS)
                    )
                    builder.store(builder.bitcast(under, I8), builder.gep(target, [_number(v)]))
        return context.get_dummy_value()

    number = types.int64
    arguments = (
        block, number, signs, masks, number, number, limits, places, number, number, number, starts, out, number, number
    )  # fmt: skip
    return types.void(*arguments), codegen


@intrinsic
def sums_above(
    typing: Any, tables: Any, window: Any, width: Any, step: Any, first: Any, thresholds: Any, at: Any
) -> tuple[Any, Callable[..., Any]]:
    """64 filters at once: a bit each, whether the sum over p < width of a table row is above the filter's threshold.

    tables: flat int16, the row of place p starts at p * step + window[p] + first; thresholds[at:] (64,) int16.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        tables = address(context, builder, kinds[0], args[0], args[4])
        window = address(context, builder, kinds[1], args[1], _number(0))
        total = cgutils.alloca_once(builder, _SHORTS)  # type: ignore[no-untyped-call]
        builder.store(ir.Constant(_SHORTS, None), total)
        with cgutils.for_range(builder, args[2]) as loop:
            row = builder.load(builder.gep(window, [loop.index]))
            row = builder.add(row, builder.mul(loop.index, args[3]))
            builder.store(builder.add(builder.load(total), _load(builder, tables, row, _SHORTS)), total)
        limit = _load(builder, address(context, builder, kinds[5], args[5], args[6]), _number(0), _SHORTS)
        return builder.bitcast(builder.icmp_signed(">", builder.load(total), limit), I64)

    number = types.int64
    return types.uint64(tables, window, number, number, number, thresholds, number), codegen


@intrinsic
def add_bits(typing: Any, counters: Any, at: Any, word: Any) -> tuple[Any, Callable[..., Any]]:
    """Add bit f of the word to counters[at + f], 64 of them, uint8."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.bitcast(address(context, builder, signature.args[0], args[0], args[1]), BYTES.as_pointer())
        bits = builder.zext(builder.bitcast(args[2], _BITS), BYTES)
        builder.store(builder.add(builder.load(pointer, align=1), bits), pointer, align=1)
        return context.get_dummy_value()

    return types.void(counters, types.int64, types.uint64), codegen


@njit(cache=True, nogil=True)
def convolve(
    sites: Any, columns: Any, index: Any, signs: Any, masks: Any, limits: Any, pattern: Any, starts: Any, out: Any
) -> None:
    """Signs of ternary filters over windows of bits, where the popcount of a window is under a limit.

    sites: (n, sites, words) uint64; columns: (read,) which of the words are read; index: (out_sites, window) int32, -1
    for padding, which reads as all zeros; signs, masks: flat uint64, panels of (window * read, PANEL); limits: (planes,
    patterns, panels * PANEL) int64, of each sign of the filters; pattern: (out_sites,) its row for each site; starts:
    (panels, planes) int64, the byte of a site that the first bits of a panel go to; out: (n * out_sites + SITES - 1,
    bytes) uint8, bits in little-endian order; the rows past n * out_sites are scratch.
    """
    rows, window = index.shape
    depth = window * len(columns)
    planes, patterns, filters = limits.shape
    total = len(sites) * rows
    flat_limits, flat_out, stride = limits.reshape(-1), out.reshape(-1), out.shape[1]
    block = np.zeros(_CHUNK * depth, np.uint64)
    places = np.zeros(_CHUNK, np.int64)
    for start in range(0, total, _CHUNK):
        stop = min(total, start + _CHUNK)
        for site in range(start, stop):
            example, row = site // rows, site % rows
            at = (site - start) // SITES * SITES * depth + (site - start) % SITES
            places[site - start] = pattern[row] * filters
            for w in range(window):
                source = index[row, w]
                for column in columns:
                    block[at] = sites[example, source, column] if source >= 0 else np.uint64(0)
                    at += SITES
        for panel in range(len(starts)):
            for r in range(stop - start):
                places[r] += PANEL if panel else 0
            for first in range(0, stop - start, SITES):
                _tile(
                    block, first * depth, signs, masks, panel * depth * PANEL, depth, flat_limits, places, first,
                    planes, patterns * filters, starts[panel], flat_out, (start + first) * stride, stride,
                )  # type: ignore[call-arg]  # fmt: skip


@njit(cache=True, nogil=True)
def pooled_logarithms(
    bits: Any,
    offsets: Any,
    segments: Any,
    regions: int,
    nested: bool,
    runs: Any,
    channels: int,
    logarithms: Any,
    out: Any,
    column: int,
) -> None:
    """Features log(1 + active sites), written to out[:, column:] in the order (region, channel).

    bits: (sites, words) uint64; offsets: (n + 1,) the sites of each example; segments: (sites,) int32 below regions;
    nested: a region holds the segments after it; runs: where the bits of each of the channels are, see `stages.Stage`;
    logarithms: (signs * sites of the longest example + 1,) float32, by how many signs of a channel are on.
    """
    words = bits.shape[1]
    filters = words * WORD
    small = np.zeros(regions * filters, np.uint8)
    counts = np.zeros(regions * filters, np.int32)
    for example in range(len(offsets) - 1):
        counts[:] = 0
        first, last = offsets[example], offsets[example + 1]
        for start in range(first, last, _MOST):
            for site in range(start, min(last, start + _MOST)):
                at = segments[site] * filters
                for k in range(words):
                    add_bits(small, at + k * WORD, bits[site, k])  # type: ignore[call-arg]
            for f in range(len(small)):
                counts[f] += small[f]
                small[f] = 0
        if nested:
            for f in range((regions - 1) * filters - 1, -1, -1):
                counts[f] += counts[f + filters]
        at = column
        for r in range(regions):
            for run in runs:
                step, size, first = run[1], run[2], r * filters + run[3]
                source = counts[first : first + size]
                for more in run[4:]:
                    other = counts[r * filters + more :]
                    for c in range(size):
                        source[c] += other[c]
                features = out[example, at + run[0] :]
                if step == 1:  # as it mostly is, and with vectors
                    for c in range(size):
                        features[c] = logarithms[np.uint32(source[c])]
                else:
                    for c in range(size):
                        features[c * step] = logarithms[np.uint32(source[c])]
            at += channels
