"""seqbag and what users would pick instead, on the same rows: accuracy, CPU seconds, memory, size, speed.

    python -m benchmarks.peers [--data DIR] [--only NAME,...] [--peers LIST] [--threads 1] [--seeds N] [--out CSV]

Each training and each test is a process of its own; CPU seconds and peak memory are those the kernel counted for the
training's whole process, start included. Peers read plain text written beforehand, which is not counted; seqbag reads
the Parquet file. Rows go to the table, in place of those of the same data, peer and seed; the picture is drawn anew.
Without --data everything runs on generated logs. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.datasets import GENERATED, REAL, ROWS, Dataset
from benchmarks.machine import machine
from benchmarks.peer_table import read, table

RESULTS = Path(__file__).parent / "results" / "peers.csv"
SEVERAL = ("seqbag", "packed", "fasttext", "sklearn")  # cheap enough for several seeds
PACKAGES = {
    "seqbag": "seqbag",
    "packed": "seqbag",
    "fasttext": "fasttext-community",
    "fasttext_quantised": "fasttext-community",
    "sklearn": "scikit-learn",
    "lightgbm": "lightgbm",
    "cnn": "torch",
}


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class PeerError(Exception):
    """A peer's process failed; the text is the last line it said."""


@dataclass
class Meter:
    """Runs processes on a number of threads and adds up what they cost. peak: bytes, of the largest of them."""

    threads: int
    cpu: float = 0.0
    wall: float = 0.0
    peak: int = 0

    def __call__(self, command: list[str]) -> str:
        """Run a command; returns the last line on its stdout."""
        environment = os.environ | dict.fromkeys(_THREADS, str(self.threads))
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.wall += time.perf_counter() - start
            self.cpu += usage.ru_utime + usage.ru_stime
            self.peak = max(self.peak, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
            said = [_lines(file) for file in (out, err)]
        if process.returncode:
            raise PeerError(said[1][-1] if said[1] else f"exit code {process.returncode}")
        return said[0][-1] if said[0] else ""


def _lines(file: object) -> list[str]:
    file.seek(0)  # type: ignore[attr-defined]
    return [line for line in file.read().splitlines() if line.strip()]  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Run:
    """One peer on one data set with one seed."""

    peer: str
    dataset: Dataset
    data: Path
    folder: Path
    seed: int
    threads: int

    def measure(self) -> dict[str, object]:
        """Train and test; what it cost and reached."""
        training, testing = Meter(self.threads), Meter(self.threads)
        for command in self._training():
            training(command)
        said = json.loads(testing(self._testing()))
        return {
            "accuracy": round(said["accuracy"], 4),
            "macro_f1": round(said["macro_f1"], 4),
            "cpu_seconds": round(training.cpu, 2),
            "wall_seconds": round(training.wall, 2),
            "peak_mb": round(training.peak / 1e6),
            "model_bytes": self._model().stat().st_size,
            "rows_per_second": round(said["rows_per_second"]),
        }

    def _training(self) -> list[list[str]]:
        if self.peer not in ("seqbag", "packed"):
            return [[*self._peer("train"), *(["--quantise"] if self.peer == "fasttext_quantised" else [])]]
        rows = ["--source", str(self.data / self.dataset.file), "--where", ROWS["train"]]
        options, out = [*self.dataset.options, "--seed", str(self.seed), *self._common()], ["--out", str(self._model())]
        if self.peer == "seqbag":
            return [[_seqbag(), "train", *rows, *options, *out]]
        signs = str(self.folder / "signs")
        kind = ["--weights", "ternary", "--activations", "sign"]
        return [
            [_seqbag(), "train", *rows, *options, "--activation", "sign", "--out", signs],
            [_seqbag(), "export", signs, *kind, *rows, *self.dataset.columns, *self._common(), *out],
        ]

    def _testing(self) -> list[str]:
        if self.peer not in ("seqbag", "packed"):
            return self._peer("predict")
        rows = ["--source", str(self.data / self.dataset.file), "--where", ROWS["test"]]
        return [_seqbag(), "evaluate", str(self._model()), *rows, *self._common()]

    def _common(self) -> list[str]:
        return ["--threads", str(self.threads), "--quiet", "--json"]

    def _peer(self, verb: str) -> list[str]:
        module = f"benchmarks.peer_{self.peer.removesuffix('_quantised')}"
        told = ["--ngrams", str(self.dataset.ngrams), "--seed", str(self.seed), "--threads", str(self.threads)]
        return [sys.executable, "-m", module, verb, str(self.folder), *told]

    def _model(self) -> Path:
        return self.folder / "model"


def _seqbag() -> str:
    return str(Path(sys.executable).parent / "seqbag")


def runs(args: argparse.Namespace, data: Path, datasets: list[Dataset]) -> None:
    """Measure everything asked for, and print it as it comes."""
    print(f"{'data':20}{'peer':20}{'accuracy':>9}{'macro-F1':>9}{'CPU s':>8}{'MB':>7}{'model':>12}{'rows/s':>9}")
    for dataset in datasets:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.datasets", dataset.name, "--data", str(data), "--out", folder]
            subprocess.run(command, check=True)
            for seed in range(args.seeds):
                for peer in args.peers:
                    count = args.seeds if peer in SEVERAL else 1
                    if seed < count:
                        run = Run(peer, dataset, data, Path(folder), seed, args.threads)
                        if row := _measured(run, count):
                            record(args.out, row)


def _measured(run: Run, count: int) -> dict[str, object] | None:
    start = f"{run.dataset.name:20}{run.peer:20}"
    try:
        row = run.measure()
    except PeerError as error:
        print(f"{start}{error}", flush=True)
        return None
    text = "{accuracy:9.4f}{macro_f1:9.4f}{cpu_seconds:8.1f}{peak_mb:7}{model_bytes:12,}{rows_per_second:9,}"
    print(start + text.format(**row), flush=True)
    version = f"{PACKAGES[run.peer]} {metadata.version(PACKAGES[run.peer])}"
    who = {"data": run.dataset.name, "peer": run.peer, "seed": run.seed, "runs": count, "threads": run.threads}
    return who | row | {"version": version} | machine()


def record(file: Path, row: dict[str, object]) -> None:
    """Put the row into the table, in place of an older one of the same data, peer and seed."""
    key = ("data", "peer", "seed")
    rows = [
        other for other in (read(file) if file.exists() else []) if any(other[name] != str(row[name]) for name in key)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as new:
        writer = csv.DictWriter(new, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SEQBAG_DATA"), help="folder of the Parquet files")
    parser.add_argument("--only", type=lambda text: text.split(","), help="names of data sets")
    parser.add_argument("--peers", type=lambda text: text.split(","), default=list(PACKAGES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3, help=f"seeds for {', '.join(SEVERAL)}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="table to add to; the picture goes beside it")
    args = parser.parse_args()
    if unknown := set(args.peers) - set(PACKAGES):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PACKAGES)}")
    known = REAL if args.data else GENERATED
    if unknown := set(args.only or []) - {dataset.name for dataset in known}:
        parser.error(f"no such data: {', '.join(sorted(unknown))}; there are {', '.join(d.name for d in known)}")
    datasets = [dataset for dataset in known if not args.only or dataset.name in args.only]
    with tempfile.TemporaryDirectory() as scratch:
        data = args.data or Path(scratch)
        data = data / "logs" if (data / "logs").is_dir() else data
        if absent := [d.file for d in datasets if args.data and not (data / d.file).exists()]:
            parser.error(f"{data} does not hold {', '.join(absent)}")
        runs(args, data, datasets)
    subprocess.run([sys.executable, "-m", "benchmarks.peer_plot", str(args.out)], check=True)
    print(table(read(args.out)))


if __name__ == "__main__":
    main()
