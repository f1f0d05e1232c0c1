"""The inference engine: its convolution against BLAS, and a packed model's rows a second and latency, on one thread.

    python -m benchmarks.engine [--model PACKED --source ROWS [--where EXPR] [--fasttext MODEL.bin]]

The convolution, 3 x 3 on 256 channels at 16 x 16 to 256 filters, is timed in turn with the float32 product of the same
shape, its windows gathered first. Rows are read beforehand; then text to class is timed, tokenising included, in CPU
seconds, as is fastText's `predict` on the same rows (characters apart for a model of characters).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

import seqbag
from seqbag.batch import Rows, TextColumn
from seqbag.layer import Layer, Maps
from seqbag.packed import pack_bits
from seqbag.patches import Patcher, gather
from seqbag.predictor import Predictor
from seqbag.regions import Regions
from seqbag.stages import BitStage

SIDE, CHANNELS = 16, 256
LINES = 20_000


def convolution(runs: int) -> tuple[float, float]:
    """Median milliseconds of the packed binary convolution, and of the float32 one."""
    rng = np.random.default_rng(0)
    patcher = Patcher((3, 3), (1, 1), "same")
    weights = rng.choice([-1, 1], (9 * CHANNELS, CHANNELS)).astype(np.float32)
    layer = Layer((patcher,), (weights,), (np.full(CHANNELS, 0.5, np.float32),), "sign", Regions("whole"))
    values = rng.choice([-1, 1], (SIDE * SIDE, CHANNELS)).astype(np.float32)
    offsets = np.array([0, SIDE * SIDE])
    bits = Maps(pack_bits(values > 0).view(np.uint64), offsets, (SIDE, SIDE))
    stage = BitStage(layer, np.array([[0, 1, CHANNELS, 0]]))
    index, image = patcher.grid_index((SIDE, SIDE)), values[None]
    times = [(seconds(lambda: stage(bits)), seconds(lambda: gather(image, index) @ weights)) for _ in range(runs + 3)][
        3:
    ]
    return median(t for t, _ in times) * 1e3, median(t for _, t in times) * 1e3


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rate(rows: int, work: Callable[[], object], runs: int) -> float:
    """Rows a CPU second, the best of some runs: others only ever take away."""
    best = float("inf")
    for _ in range(runs):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return rows / best


def lines_of(batches: list[Rows]) -> list[str]:
    """The first texts of a source."""
    lines: list[str] = []
    for rows in batches:
        assert isinstance(rows.input, TextColumn)
        data, offsets = rows.input.data.tobytes(), rows.input.offsets
        lines += [data[a:b].decode("utf-8", "replace") for a, b in pairwise(offsets)]
    return lines


def latency(model: Predictor, lines: list[str]) -> tuple[float, float]:
    """Microseconds of one line through `predict_one`: the 50th and the 99th percentile."""
    for line in lines[:1000]:
        model.predict_one(line)
    times = [seconds(lambda line=line: model.predict_one(line)) * 1e6 for line in lines[:LINES]]  # type: ignore[misc]
    middle, high = np.percentile(times, [50, 99])
    return float(middle), float(high)


def fasttext_rate(path: Path, lines: list[str], apart: bool, runs: int) -> float:
    """Rows a CPU second of fastText's `predict` on a list of texts."""
    import fasttext

    model = fasttext.load_model(str(path))
    texts = [(" ".join(line) if apart else line).replace("\n", " ") for line in lines]
    return rate(len(texts), lambda: model.predict(texts), runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model file or a packed model")
    parser.add_argument("--source", help="rows to classify")
    parser.add_argument("--where", help="which rows")
    parser.add_argument("--fasttext", type=Path, help="a fastText model to time on the same rows")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    with threadpool_limits(1):
        packed, dense = convolution(100)
        print(
            f"3 x 3 convolution of 256 channels at 16 x 16: bits {packed:.3f} ms, float32 {dense:.3f} ms, "
            f"{dense / packed:.1f}x"
        )
        if args.model and args.source:
            from seqbag_connectors import open_source

            model = seqbag.load(args.model)
            columns = {model.columns["kind"]: model.columns["input"]}
            source = open_source(args.source, need_label=False, where=args.where, **columns)
            batches = list(source.batches(4096))
            n = sum(map(len, batches))
            ours = rate(n, lambda: [model.model.network.logits(rows.input).argmax(1) for rows in batches], args.runs)
            print(f"{args.model}: {args.model.stat().st_size:,} bytes, {ours:,.0f} rows/s on {n:,} rows")
            if model.columns["kind"] == "text":
                lines = lines_of(batches)
                middle, high = latency(model, lines)
                print(f"one line: p50 {middle:.0f} us, p99 {high:.0f} us")
                if args.fasttext:
                    apart = model.model.network.config.tokenizer == "chars"
                    theirs = fasttext_rate(args.fasttext, lines, apart, args.runs)
                    print(f"fastText: {theirs:,.0f} rows/s; {ours / theirs:.1f}x")


if __name__ == "__main__":
    main()
