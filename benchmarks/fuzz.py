"""Feed seqbag bad input by the thousand: text, Parquet bytes, model files (float and packed), checkpoints.

    python -m benchmarks.fuzz [--cases 100000] [--kind text --kind models ...] [--seed 1] [--csv FILE]

Each worker is a process that takes a stretch of case numbers; a case is made from its number alone, so that one can be
run again. An input must be worked on or refused by an error of ours in one line. Counted are tracebacks (any other
exception), crashes (a worker that died) and hangs (no sign of life for a minute); each is printed with its number.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from threading import Timer

import numpy as np
import pyarrow as pa

from benchmarks.fuzz_cases import KINDS
from seqbag.errors import SeqbagError
from seqbag_connectors.arrow import label_column

SHARES = {"text": 0.4, "parquet": 0.1, "models": 0.2, "packed": 0.2, "checkpoints": 0.1}
STRETCH = 20_000  # cases of a worker before a new one starts
PATIENCE = 60.0  # seconds for a case
START = 300.0  # seconds for a worker to make its material, kernels compiled


def worker(kind: str, first: int, count: int, seed: int) -> None:
    """Run cases in this process; on stdout, a line for each stretch of numbers, and what went wrong as JSON."""
    label_column(pa.array(["a"]))  # whatever is imported late is imported now
    with tempfile.TemporaryDirectory(prefix="seqbag-fuzz-") as folder:
        run = KINDS[kind](Path(folder))
        for number in range(first, first + count):
            print(number, flush=True)
            try:
                run(np.random.default_rng((seed, list(KINDS).index(kind), number)))
            except SeqbagError as error:
                if "\n" not in str(error):
                    print("refused", flush=True)
                    continue
                print(json.dumps(f"an error of several lines: {error}"), flush=True)
            except BaseException:
                print(json.dumps(traceback.format_exc()), flush=True)


def stretch(kind: str, first: int, count: int, seed: int, figures: dict[str, int]) -> None:
    """Run cases in workers of their own; one that dies or hangs is counted and the next one goes on behind it."""
    end = first + count
    while first < end:
        command = [sys.executable, "-m", "benchmarks.fuzz", "--worker", kind, str(first), str(end - first), str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            number, hung = None, False
            assert process.stdout is not None
            assert process.stderr is not None

            def stop(process: subprocess.Popen[str] = process) -> None:
                nonlocal hung
                hung = True
                process.kill()

            timer = Timer(START, stop)
            timer.start()
            for line in process.stdout:
                timer.cancel()
                if line.startswith('"'):
                    figures["tracebacks"] += 1
                    print(f"{kind} {number}: {json.loads(line)}", flush=True)
                elif line == "refused\n":
                    figures["refused"] += 1
                else:
                    number = int(line)
                    figures["cases"] += 1
                timer = Timer(PATIENCE, stop)
                timer.start()
            timer.cancel()
            told = process.stderr.read()
        if process.returncode == 0:
            return
        if number is None:
            raise SystemExit(f"the worker for {kind} did not start: {told}")
        figures["hangs" if hung else "crashes"] += 1
        print(f"{kind} {number}: {'hung' if hung else f'died ({process.returncode})'}\n{told[-2000:]}", flush=True)
        first = number + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        kind, *numbers = options.worker
        worker(kind, *map(int, numbers))
        return
    kinds = options.kind or list(KINDS)
    total = sum(SHARES[kind] for kind in kinds)
    table = []
    for kind in kinds:
        figures = dict.fromkeys(("cases", "refused", "tracebacks", "crashes", "hangs"), 0)
        wanted = round(options.cases * SHARES[kind] / total)
        for first in range(0, wanted, STRETCH):
            stretch(kind, first, min(STRETCH, wanted - first), options.seed, figures)
        table.append({"kind": kind, **figures, "seed": options.seed})
        print("  ".join(f"{name} {value}" for name, value in table[-1].items()), flush=True)
    if options.csv is not None:
        new = not options.csv.exists()
        with options.csv.open("a", newline="") as file:
            out = csv.DictWriter(file, list(table[0]), lineterminator="\n")
            if new:
                out.writeheader()
            out.writerows(table)
    sys.exit(any(row[name] for row in table for name in ("tracebacks", "crashes", "hangs")))


if __name__ == "__main__":
    main()
