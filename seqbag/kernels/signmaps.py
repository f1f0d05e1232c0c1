"""Kept maps of signs as words of bits, and back: what a frozen layer reads and makes while others are trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from seqbag.kernels.bitops import BYTES, I8, I32, I64, WORD, add_bits, address


@intrinsic
def _over(typing: Any, values: Any, at: Any, limit: Any) -> tuple[Any, Callable[..., Any]]:
    """64 bits: whether values[at + i], uint8, is over the limit."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.bitcast(address(context, builder, signature.args[0], args[0], args[1]), BYTES.as_pointer())
        none = ir.Constant(BYTES, ir.Undefined)
        first = builder.insert_element(none, builder.trunc(args[2], I8), ir.Constant(I32, 0))
        limits = builder.shuffle_vector(first, none, ir.Constant(ir.VectorType(I32, WORD), None))
        over = builder.icmp_unsigned(">", builder.load(pointer, align=1), limits)
        return builder.bitcast(over, I64)

    return types.uint64(values, types.int64, types.int64), codegen


_signs_over: Any = _over  # numba gives an intrinsic's context by itself


@njit(cache=True, nogil=True)
def levels_to_words(codes: Any, channels: int, bits: int, runs: Any, out: Any) -> None:
    """Fill out (n, words) uint64, zeros, with the signs behind codes of `Levels`, (n, site_bytes) uint8.

    Of a code k the first k signs are on. runs: where the signs of each channel go, see `stages.Stage`.
    """
    places, mask = codes.shape[1], np.uint8((1 << bits) - 1)
    planes = runs.shape[1] - 3
    values = np.zeros(8 // bits * places, np.uint8)
    ordered = np.zeros(channels + WORD, np.uint8)
    for row in range(len(codes)):
        own, words = codes[row], out[row]
        for plane in range(8 // bits):
            shift, part = np.uint8(plane * bits), values[plane * places : (plane + 1) * places]
            for j in range(places):
                part[j] = (own[j] >> shift) & mask
        for run in runs:
            first, step, size = run[0], run[1], run[2]
            apart = values[first::step]
            for i in range(size):
                ordered[i] = apart[i]
            for plane in range(planes):
                for start in range(0, size, WORD):
                    word = _signs_over(ordered, start, plane)
                    if size - start < WORD:
                        word &= (np.uint64(1) << np.uint64(size - start)) - np.uint64(1)
                    at = run[3 + plane] + start
                    left = at % WORD
                    words[at // WORD] |= word << np.uint64(left)
                    if left + min(size - start, WORD) > WORD:
                        words[at // WORD + 1] |= word >> np.uint64(WORD - left)


@njit(cache=True, nogil=True)
def words_to_levels(words: Any, index: Any, runs: Any, bits: int, out: Any) -> None:
    """Fill out (n, out_sites, site_bytes) uint8 with codes of `Levels`: how many signs of a channel are on in a block.

    words: (n, sites, words) uint64; index: (out_sites, block) int32; runs: as above.
    """
    width, places = words.shape[2], out.shape[2]
    planes = runs.shape[1] - 3
    counters = np.zeros(width * WORD, np.uint8)
    values = np.zeros(8 // bits * places, np.uint8)
    for example in range(len(words)):
        for site in range(len(index)):
            counters[:] = 0
            for source in index[site]:
                for k in range(width):
                    add_bits(counters, k * WORD, words[example, source, k])  # type: ignore[call-arg]
            for run in runs:
                first, step, size = run[0], run[1], run[2]
                total = counters[run[3] : run[3] + size]
                for plane in range(1, planes):
                    more = counters[run[3 + plane] : run[3 + plane] + size]
                    for i in range(size):
                        total[i] += more[i]
                apart = values[first::step]
                for i in range(size):
                    apart[i] = total[i]
            own = out[example, site]
            own[:] = 0
            for plane in range(8 // bits):
                part = values[plane * places : (plane + 1) * places]
                for j in range(places):
                    own[j] |= part[j] << np.uint8(plane * bits)
