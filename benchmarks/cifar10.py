"""CIFAR-10 from pixels to test accuracy: what each layer reaches and what it costs.

    python benchmarks/cifar10.py --data DIR [--out cifar10.csv] [--polish 16] [--activation sign] ...

DIR holds train.parquet and test.parquet (the hub layout), or the published binary or Python batches in `train` and
`test`. Each seed adds a row to the CSV: settings, test accuracy with and without mirrored images, held-out accuracy and
core-seconds after each layer, peak memory, floating-point operations counted, commit and machine; and a PNG beside it
draws accuracy against core-seconds. Settings were never chosen on the test images.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from seqbag.config import TrainConfig
from seqbag.network import Network
from seqbag.prediction import evaluate
from seqbag.trainer import train
from seqbag_cli.plot import Line, chart
from seqbag_connectors import open_source


@dataclass
class Meter:
    """Notes the core-seconds when a layer is trained, the last one with its classifier; says on stderr what goes on."""

    started: float = field(default_factory=time.process_time)
    layers: dict[str, float] = field(default_factory=dict)
    task: str = ""

    def begin(self, task: str, total: int | None, unit: str) -> None:
        self.task = task

    def advance(self, amount: int, note: str = "") -> None:
        if note:
            print(f"{time.process_time() - self.started:8.0f} core-s  {self.task}: {note}", file=sys.stderr, flush=True)

    def end(self) -> None:
        spent = time.process_time() - self.started
        print(f"{spent:8.0f} core-s  {self.task}: done", file=sys.stderr, flush=True)
        layer, _, work = self.task.partition(": ")
        if work in ("polishing", "calibrating"):
            self.layers[layer] = spent

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def operations(network: Network, config: TrainConfig, rows: int) -> float:
    """Floating-point operations of convolutions: sampled and whole ones; a product and a sum count as two."""
    grid, total = network.shape[:-1], 0.0
    views = config.views
    for number, layer in enumerate(network.layers):
        weights = sum(block.size for part in (layer, layer.readout) if part for block in part.weights)
        grid = layer.patchers[0].out_shape(grid)
        sites = prod(grid)
        total += 2.0 * rows * views * sites * weights
        if number:
            total += 4.0 * rows * (1 - config.valid_fraction) * config.polish * min(config.samples, sites) * weights
        grid = tuple(size // by for size, by in zip(grid, layer.pooling or (1,) * len(grid), strict=True))
        if layer.projection is not None:
            total += 2.0 * rows * views * prod(grid) * layer.projection.size
    return total


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return done.stdout.strip() or "unknown"


def run(data: Path, threads: int, chosen: dict[str, Any]) -> dict[str, object]:
    """One training run with the default settings but for those chosen; the row of the table."""
    meter, started = Meter(), time.perf_counter()
    source = open_source(_found(data, "train"), threads=threads)
    config = TrainConfig.for_kind("image", source.rows, threads=threads, **chosen)
    trained = train(source, config, meter)
    seconds, core_seconds = time.perf_counter() - started, time.process_time() - meter.started
    test = open_source(_found(data, "test"), threads=config.threads)
    plain, mirrored = (evaluate(trained.network, test, config.threads, flips=f).metrics.accuracy for f in (False, True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "commit": commit(),
        "machine": f"{platform.machine()} {os.cpu_count()} cores",
        "rows": trained.rows,
        "test_accuracy": round(plain, 4),
        "test_accuracy_flips": round(mirrored, 4),
        "valid_accuracy_by_layer": " ".join(f"{layer.valid_accuracy:.4f}" for layer in trained.layers),
        "core_seconds_by_layer": " ".join(f"{spent:.0f}" for spent in meter.layers.values()),
        "core_seconds": round(core_seconds),
        "seconds": round(seconds),
        "peak_memory_gb": round(peak / 1e9, 2),
        "tera_operations": round(operations(trained.network, config, trained.rows) / 1e12, 1),
        **{k: v for k, v in asdict(config).items() if k not in ("tokenizer", "vocabulary", "dims", "balance")},
    }


def _found(data: Path, split: str) -> str:
    for place in (data / f"{split}.parquet", data / split):
        if place.exists():
            return str(place)
    sys.exit(f"{data} holds neither {split}.parquet nor a folder {split}: give the folder of CIFAR-10 with --data")


def write(rows: list[dict[str, object]], out: Path) -> None:
    """Add the rows to the table and draw all of it, faintly what is not the newest of its kind and seed."""
    known: list[dict[str, object]] = []
    if out.exists():
        with out.open(newline="") as file:
            known.extend(csv.DictReader(file))
    known += rows
    settings = list(dict.fromkeys(name for row in reversed(known) for name in row))  # which rows of before may lack
    with out.open("w", newline="") as file:
        table = csv.DictWriter(file, settings, lineterminator="\n")
        table.writeheader()
        table.writerows(known)
    lines = []
    newest = {(row["activation"], str(row["polish"]) == "0", str(row["seed"])): row for row in known}
    for row in known:
        spent = [float(value) for value in str(row["core_seconds_by_layer"]).split()]
        reached = [float(value) for value in str(row["valid_accuracy_by_layer"]).split()]
        name = f"{row['commit']}: {row['activation']}, {row['polish']} epochs, seed {row['seed']}"
        lines.append(Line(name, list(zip(spent, reached, strict=True)), not any(row is own for own in newest.values())))
    chart(lines, "core-seconds", "held-out accuracy", out.with_suffix(".png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("SEQBAG_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) / "cifar10" if data else None, required=data is None)
    parser.add_argument("--out", type=Path, default=Path("cifar10.csv"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--filters", type=lambda text: tuple(map(int, text.split(","))))
    parser.add_argument("--threads", type=int, default=1)
    for name in ("layers", "polish", "samples", "views", "shift", "codebook", "epochs", "channel-groups", "signs"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--valid-fraction", type=float)
    parser.add_argument("--regions")
    parser.add_argument("--activation", choices=["relu", "tanh", "sign"])
    given = vars(parser.parse_args())
    folder, out, seeds, threads = (given.pop(name) for name in ("data", "out", "seeds", "threads"))
    chosen = {name: value for name, value in given.items() if value is not None}
    with threadpool_limits(1):
        rows = [run(folder, threads, {**chosen, "seed": seed}) for seed in seeds]
    write(rows, out)
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
