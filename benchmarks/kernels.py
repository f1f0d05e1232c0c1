"""Each kernel against the limit of the machine, measured in the same run.

    python -m benchmarks.kernels [--only nearest] [--runs 9] [--csv FILE]

A kernel and its limit are timed in turn, so that what else the machine does hits both; shown are medians. To add a
kernel, write a function that prepares it and append to KERNELS.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from seqbag.kernels.assign import Searcher
from seqbag.patches import Patcher, gather


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
]


def seconds(work: Work) -> float:
    start = time.perf_counter()
    work.run()
    return time.perf_counter() - start


def measure(kernel: Kernel, runs: int) -> dict[str, object]:
    """Time a kernel and its limit in turn, `runs` times each after one to warm up."""
    with threadpool_limits(kernel.threads):
        work, limit = kernel.run(), kernel.limit()
        pairs = [(work.amount / seconds(work), limit.amount / seconds(limit)) for _ in range(runs + 1)][1:]
    return {
        "kernel": kernel.name,
        "threads": kernel.threads,
        "unit": f"G{work.unit}/s",
        "rate": round(median(rate for rate, _ in pairs) / 1e9, 2),
        "limit": round(median(rate for _, rate in pairs) / 1e9, 2),
        "ratio": round(median(rate / limit for rate, limit in pairs), 3),
        "bar": kernel.bar or "",
        "runs": runs,
    }


def machine() -> dict[str, object]:
    """When, where and on what code this was measured."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.machine()
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"machine": f"{cpu} x {os.cpu_count()}", "commit": git.stdout.strip() or "unknown", "time": when}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only kernels with this in their name")
    parser.add_argument("--runs", type=int, default=9, help="timings of each (default 9)")
    parser.add_argument("--csv", type=Path, help="append the rows to this file")
    args = parser.parse_args()
    rows = []
    print(f"{'kernel':36}{'threads':>8}{'rate':>9}{'limit':>9}{'ratio':>8}{'bar':>6}  unit")
    for kernel in KERNELS:
        if args.only in kernel.name:
            row = measure(kernel, args.runs)
            rows.append(row | machine())
            text = "{kernel:36}{threads:>8}{rate:>9}{limit:>9}{ratio:>8}{bar:>6}  {unit}"
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
