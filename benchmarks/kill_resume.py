"""Kill a train of two layers at random moments, resume it, and compare the model with that of a train left alone.

    python -m benchmarks.kill_resume [--rows 60000] [--runs 20] [--kills 3] [--seed 1] [--csv FILE]

Every run is the installed command, ended by SIGKILL up to `kills` times and then left to finish with --resume. Prints a
line a run; --csv adds a row of figures to a file.
"""

from __future__ import annotations

import argparse
import csv
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SEQBAG = str(Path(sys.executable).with_name("seqbag"))
GENERATOR = Path(__file__).parents[1] / "examples" / "generate_logs.py"
SETTINGS = (
    "--layers", "2", "--epochs", "1", "--filters", "16", "--threads", "1", "--checkpoint-every", "0", "--recency",
)  # fmt: skip


@dataclass
class Outcome:
    """One model: how often its train was killed, and how often the next one found a checkpoint to go on from."""

    model: bytes
    kills: int
    resumed: int
    left_over: list[str]


def generate(path: Path, rows: int) -> Path:
    subprocess.run([sys.executable, GENERATOR, "--rows", str(rows), "--seed", "3", "--out", path], check=True)
    return path


def train(source: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [SEQBAG, "train", "--source", str(source), "--out", str(out), *SETTINGS, *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill_and_resume(source: Path, folder: Path, moments: list[float]) -> Outcome:
    """Train, killed these many seconds after each start, until a last start is left to finish."""
    folder.mkdir()
    out, kills, resumed = folder / "model.seqbag", 0, 0
    for moment in [*moments, None]:
        with train(source, out, "--resume") as process:
            try:
                told = process.communicate(timeout=moment)[1]
            except subprocess.TimeoutExpired:
                process.kill()
                told = process.communicate()[1]
                kills += 1
        resumed += "resumed at pass" in told
        if process.returncode == 0:
            break
        if moment is None:
            raise SystemExit(f"a resumed train failed: {told}")
    left_over = [path.name for path in folder.iterdir() if path != out]
    return Outcome(out.read_bytes(), kills, resumed, left_over)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 60_000), ("runs", 20), ("kills", 3), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = generate(folder / "logs.parquet", options.rows)
        train(source, folder / "warm.seqbag").communicate()  # compiles and caches the kernels
        started = time.perf_counter()
        reference = kill_and_resume(source, folder / "alone", [])
        alone = time.perf_counter() - started
        print(f"left alone: {alone:.1f} s, {len(reference.model):,} bytes", flush=True)
        outcomes: list[Outcome] = []
        for run in range(options.runs):
            moments = [rng.uniform(0.1, 1) * alone for _ in range(options.kills)]
            outcomes.append(done := kill_and_resume(source, folder / str(run), moments))
            same = "the same model" if done.model == reference.model else "ANOTHER MODEL"
            print(
                f"run {run + 1}: {done.kills} kills, resumed {done.resumed} times: {same}", done.left_over, flush=True
            )
    identical = sum(done.model == reference.model for done in outcomes)
    kills, resumed = sum(done.kills for done in outcomes), sum(done.resumed for done in outcomes)
    clean = sum(not done.left_over for done in outcomes)
    print(
        f"{identical} of {options.runs} models identical after {kills} kills ({resumed} resumes); {clean} left nothing"
    )
    if options.csv is not None:
        _add_row(
            options.csv,
            {
                "rows": options.rows, "runs": options.runs, "kills": kills, "resumes": resumed, "identical": identical,
                "clean": clean, "seconds_alone": round(alone, 1), "seed": options.seed, "commit": _commit(),
                "machine": f"{platform.machine()} {platform.system()}", "python": platform.python_version(),
            },
        )  # fmt: skip
    sys.exit(identical != options.runs)


def _add_row(path: Path, row: dict[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=GENERATOR.parent)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
