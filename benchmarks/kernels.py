"""Each kernel against the limit of the machine, measured in the same run.

    python -m benchmarks.kernels [--only nearest] [--data DIR] [--runs 9] [--csv FILE]

A kernel and its limit are timed in turn, so that what else the machine does hits both; shown are medians. To add a
kernel, write a function that prepares it and append to KERNELS.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.extending import intrinsic
from threadpoolctl import threadpool_limits

from benchmarks.datasets import generate
from benchmarks.machine import machine
from seqbag.bags import Bags
from seqbag.batch import TextColumn
from seqbag.classifier import Classifier
from seqbag.codebook import ExactCodebook
from seqbag.filters import TokenFilters
from seqbag.head import Head, Schedule
from seqbag.kernels.assign import Searcher
from seqbag.kernels.dense import PANEL, ROWS, tile
from seqbag.kernels.filters import sum_rows
from seqbag.layer import Layer, Maps
from seqbag.packed import pack_bits
from seqbag.parallel import Workers
from seqbag.passes import LayerCounts
from seqbag.patches import Patcher, gather
from seqbag.regions import Regions
from seqbag.stages import BitStage
from seqbag.sums import PixelStage
from seqbag.tokens import Encoder
from seqbag_connectors import open_source

FILTERS, CODES, BAGS, ENTRIES = 96, 200_000, 20_000, 40  # of the sums: rows of 77 MB, so that memory is the limit
SIDE, CHANNELS = 16, 256  # of the convolution of bits
WIDTHS, TOKENS, EXAMPLES, HIDDEN = (1, 3), 40, 50_000, 128  # of the head; its examples are 12 letters long

_REST = 0.3  # seconds


class Work(NamedTuple):
    """Something to time, and how much it does: `amount` in `unit`."""

    run: Callable[[], object]
    amount: float
    unit: str


class Kernel(NamedTuple):
    """A line of the table. bar: the least ratio of its rate to that of its limit; None where none is set."""

    name: str
    run: Callable[[], Work]
    limit: Callable[[], Work]
    threads: int = 1
    bar: float | None = None


def blas() -> Work:
    """A 2048-cubed float32 product."""
    a, b = np.random.default_rng(0).random((2, 2048, 2048), dtype=np.float32)
    out = np.empty_like(a)
    return Work(lambda: np.matmul(a, b, out=out), 2 * 2048**3, "FLOP")


def memcpy(size: int) -> Work:
    """A copy of `size` bytes to a fresh array."""
    source = np.ones(size, np.uint8)
    return Work(source.copy, size, "byte")


def nearest(dims: int, k: int, threads: int) -> Work:
    """Search for the nearest of k centroids, of as many vectors as make the product about 2e10 FLOP."""
    rng = np.random.default_rng(0)
    n = int(1e10 / (dims * k))
    x, centroids = rng.random((n, dims), dtype=np.float32), rng.random((k, dims), dtype=np.float32)
    search = Searcher(centroids)
    return Work(lambda: search(x, threads), 2 * n * dims * k, "FLOP")


def gather_tokens() -> Work:
    """Windows of 3 token ids over 200,000 lines of 20."""
    index, _ = Patcher((3,), (1,), "same").ragged_index(np.arange(0, 4_000_001, 20))
    tokens = np.random.default_rng(0).integers(0, 1 << 15, 4_000_000).astype(np.int32)
    return Work(lambda: gather(tokens, index), index.size * 4, "byte")


def gather_images(side: int, channels: int, dtype: npt.DTypeLike) -> Work:
    """3 x 3 windows over square images."""
    images: npt.NDArray[Any] = np.ones((50_000_000 // (side * side * channels * 9), side * side, channels), dtype)
    index = Patcher((3, 3), (1, 1), "same").grid_index((side, side))
    return Work(lambda: gather(images, index), images.nbytes * 9, "byte")


def pooled_sums(forward: bool) -> Work:
    """Sums of rows of 96 filters: segments from codes met at random, or codes from segments. Counted: rows read."""
    rng = np.random.default_rng(0)
    sources, sums = (CODES, BAGS) if forward else (BAGS, CODES)
    entries = BAGS * ENTRIES
    pointers = np.linspace(0, entries, sums + 1).astype(np.int32)
    indexes, weights = rng.integers(0, sources, entries).astype(np.int32), np.ones(entries, np.float32)
    rows, out = np.ones((sources, FILTERS), np.float32), np.empty((sums, FILTERS), np.float32)
    return Work(lambda: sum_rows(pointers, indexes, weights, rows, 0, out, 0), entries * FILTERS * 4, "byte")


def bit_convolution() -> Work:
    """3 x 3 windows of 256 signs, 256 ternary filters, 16 x 16 sites. Counted: words xor-ed, masked, counted, added."""
    rng = np.random.default_rng(0)
    weights = rng.choice([-1, 0, 1], (9 * CHANNELS, CHANNELS)).astype(np.float32)
    layer = Layer((Patcher((3, 3), (1, 1), "same"),), (weights,), (np.full(CHANNELS, 0.5, np.float32),), "sign",
                  Regions("whole"))  # fmt: skip
    values = rng.choice([-1, 1], (SIDE * SIDE, CHANNELS)).astype(np.float32)
    stage = BitStage(layer, np.array([[0, 1, CHANNELS, 0]]))
    bits = Maps(pack_bits(values > 0).view(np.uint64), np.array([0, SIDE * SIDE]), (SIDE, SIDE))
    return Work(lambda: stage(bits), SIDE * SIDE * CHANNELS * 9 * CHANNELS / 64, "word")


@intrinsic  # type: ignore[untyped-decorator]
def _ones(typing: Any, word: Any) -> Any:
    return types.uint64(types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _count(words: Any, times: int) -> Any:
    total = np.uint64(0)
    for turn in range(times):
        mask = np.uint64(turn)
        for i in range(len(words)):
            total += _ones(words[i] ^ mask)
    return total


def bit_counts() -> Work:
    """The instruction alone: words in the first cache xor-ed with one in a register, counted, added."""
    words = np.arange(2048, dtype=np.uint64)
    return Work(lambda: _count(words, 10_000), 2048 * 10_000, "word")


def pixel_convolution() -> Work:
    """3 x 3 windows of 64 colour images of 32 x 32, 128 filters of 16 bits. Counted: products and their sums."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-1000, 1000, (27, 128)).astype(np.float32)
    layer = Layer((Patcher((3, 3), (1, 1), "same"),), (weights,), (np.full(128, 0.5, np.float32),), "sign",
                  Regions("none"))  # fmt: skip
    stage, sites = PixelStage(layer), 32 * 32
    maps = Maps(rng.integers(0, 256, (64 * sites, 3)).astype(np.uint8), np.arange(65) * sites, (32, 32))
    return Work(lambda: stage(maps), 64 * sites * 27 * 128 * 2, "op")


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _tiles(block: Any, weights: Any, pairs: int, sums: Any, times: int) -> None:
    for _ in range(times):
        tile(block, weights, 0, pairs, sums)  # type: ignore[call-arg]


def multiply_adds() -> Work:
    """The instruction alone: products of pairs of 16 bits and their sums in 32, all in the first cache."""
    pairs, times = 128, 2000
    block, weights = np.ones(pairs * ROWS * 2, np.int16), np.ones(pairs * PANEL * 2, np.int16)
    sums = np.empty(ROWS * PANEL, np.int32)
    return Work(lambda: _tiles(block, weights, pairs, sums, times), times * pairs * ROWS * PANEL * 4, "op")


def tokenise(file: Path | None = None) -> Work:
    """Text of the column `message` to ids of `words`, of a file or 100,000 generated log lines."""
    with tempfile.TemporaryDirectory() as folder:
        if file is None:
            generate(Path(folder), 100_000)
        label = "label" if file is None else "system"
        source = open_source(str(file or f"{folder}/lines.parquet"), text="message", label=label)
        columns = [rows.input for rows in source.batches(8192)]
    encoder = Encoder("words", 1 << 15)
    assert all(isinstance(column, TextColumn) for column in columns)
    size = sum(int(column.offsets[-1] - column.offsets[0]) for column in columns)  # type: ignore[union-attr]
    return Work(lambda: [encoder.encode(column) for column in columns], size, "byte")  # type: ignore[arg-type]


def head_epoch() -> Work:
    """An epoch of a head of 96 filters a width on 50,000 examples of 12 letters, windows of 1 and 3."""
    rng, offsets = np.random.default_rng(0), np.arange(0, 12 * EXAMPLES + 1, 12)
    maps = Maps(rng.integers(2, TOKENS, 12 * EXAMPLES).astype(np.int32), offsets)
    patchers = tuple(Patcher((width,), (1,), "same") for width in WIDTHS)
    books, whole = [ExactCodebook(width, 1 << 17) for width in WIDTHS], Regions("whole")
    counts = LayerCounts(patchers, books, whole, Bags(2, 1), Bags(2, 1))
    labels = rng.integers(0, 10, EXAMPLES).astype(np.int32)
    counts.update(maps, labels, np.zeros(EXAMPLES, np.bool_), np.empty((EXAMPLES, 0), np.float16))
    workers = Workers(1)
    filters = TokenFilters(TOKENS, 32, WIDTHS, FILTERS, rng)
    classifier = Classifier(2 * FILTERS + 1, HIDDEN, 10, rng)
    head = Head([book.windows for book in books], filters, classifier, whole, "relu", workers)
    even, schedule = np.ones(10, np.float32), Schedule(1, 2048, 0.01)
    return Work(lambda: head.fit(counts.bags, counts.held_out, schedule, rng, even, 0.0, 0.0), EXAMPLES, "example")


def head_products() -> Work:
    """The matrix products of that epoch's hidden layer alone: forward, and backward to weights and features."""
    x, w = np.ones((2048, 2 * FILTERS + 1), np.float32), np.ones((2 * FILTERS + 1, HIDDEN), np.float32)
    g = np.ones((2048, HIDDEN), np.float32)
    return Work(lambda: [(x @ w, x.T @ g, g @ w.T) for _ in range(20)], 20 * 2048, "example")


KERNELS = [
    *(
        Kernel(f"nearest {dims} dims {k} centroids", partial(nearest, dims, k, threads), blas, threads, bar)
        for threads in (1, 2)
        for dims, bar in ((27, 0.5), (64, 0.7), (128, 0.7), (256, 0.7))
        for k in (1024, 2048, 4096, 8192)
    ),
    Kernel("gather token ids, window 3", gather_tokens, partial(memcpy, 48_000_000)),
    Kernel("gather 32 x 32 x 3 uint8", partial(gather_images, 32, 3, np.uint8), partial(memcpy, 50_000_000)),
    Kernel("gather 16 x 16 x 64 float32", partial(gather_images, 16, 64, np.float32), partial(memcpy, 200_000_000)),
    Kernel("count-weighted sums, forward", partial(pooled_sums, True), partial(memcpy, 300_000_000)),
    Kernel("count-weighted sums, backward", partial(pooled_sums, False), partial(memcpy, 300_000_000)),
    Kernel("convolution of bits", bit_convolution, bit_counts),
    Kernel("convolution of pixels", pixel_convolution, multiply_adds),
    Kernel("tokeniser words, 0.1 GB/s asked for", tokenise, partial(memcpy, 10_000_000)),
    Kernel("head epoch against its products", head_epoch, head_products),
]


def seconds(work: Work, threads: int) -> float:
    """CPU seconds on one thread, so that what else the machine does takes none; else seconds.

    On more than one, after a rest: the threads of a BLAS wait for more to do in a loop, and would take a core from
    what comes after them.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    if threads > 1:
        time.sleep(_REST)
    start = clock()
    work.run()
    return clock() - start


def measure(kernel: Kernel, runs: int) -> dict[str, object]:
    """Time a kernel and its limit in turn, `runs` times each after one to warm up."""
    with threadpool_limits(kernel.threads):
        work, limit = kernel.run(), kernel.limit()
        pairs = [
            (work.amount / seconds(work, kernel.threads), limit.amount / seconds(limit, kernel.threads))
            for _ in range(runs + 1)
        ][1:]
    return {
        "kernel": kernel.name,
        "threads": kernel.threads,
        "unit": f"G{work.unit}/s",
        "rate": round(median(rate for rate, _ in pairs) / 1e9, 5),
        "limit": round(median(rate for _, rate in pairs) / 1e9, 5),
        "ratio": round(median(rate / limit for rate, limit in pairs), 3),
        "bar": kernel.bar or "",
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only kernels with this in their name")
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("SEQBAG_DATA"),
        help="folder with loghub_2k.parquet, to tokenise it too",
    )
    parser.add_argument("--runs", type=int, default=9, help="timings of each (default 9)")
    parser.add_argument("--csv", type=Path, help="append the rows to this file")
    args = parser.parse_args()
    kernels = list(KERNELS)
    if args.data:
        lines = next((file for file in args.data.glob("**/loghub_2k.parquet")), None)
        if lines is None:
            parser.error(f"{args.data} does not hold loghub_2k.parquet")
        kernels.append(Kernel("tokeniser words, LogHub's lines", partial(tokenise, lines), partial(memcpy, 10_000_000)))
    rows = []
    print(f"{'kernel':36}{'threads':>8}{'rate':>9}{'limit':>9}{'ratio':>8}{'bar':>6}  unit")
    for kernel in kernels:
        if args.only in kernel.name:
            row = measure(kernel, args.runs)
            rows.append(row | machine())
            text = "{kernel:36}{threads:>8}{rate:>9.4g}{limit:>9.4g}{ratio:>8}{bar:>6}  {unit}"
            print(text.format(**row), flush=True)
    if args.csv and rows:
        fresh = not args.csv.exists()
        with args.csv.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            if fresh:
                writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
