"""The README's table of peers: a line a data set, means over seeds, medians of their CPU seconds of training.

python -m benchmarks.peer_table peers.csv
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from statistics import mean, median

from benchmarks.datasets import Dataset, find
from seqbag_cli.options import size_text

NAMES = {
    "seqbag": "seqbag",
    "packed": "seqbag, packed",
    "fasttext": "fastText",
    "fasttext_quantised": "fastText, quantised",
    "sklearn": "scikit-learn",
    "lightgbm": "LightGBM",
    "cnn": "CNN (PyTorch)",
}
_SHALLOW = ("fasttext", "fasttext_quantised", "sklearn", "lightgbm")
_HEAD = """\
| data, columns | seqbag | CPU s | packed | best of fastText, scikit-learn, LightGBM | CPU s | CNN, end to end | CPU s |
|---|---|---|---|---|---|---|---|"""
Rows = list[dict[str, str]]


def table(rows: Rows) -> str:
    """Markdown. Of each line the best is bold."""
    names = dict.fromkeys(row["data"] for row in rows)
    return "\n".join([_HEAD, *(_line(find(name), [row for row in rows if row["data"] == name]) for name in names)])


def read(file: Path) -> Rows:
    with file.open(newline="") as opened:
        return [*csv.DictReader(opened)]


def _line(dataset: Dataset, rows: Rows) -> str:
    of = {peer: own for peer in NAMES if (own := [row for row in rows if row["peer"] == peer])}
    scores = {peer: mean(float(row[dataset.measure]) for row in own) for peer, own in of.items()}
    best = max(scores.values())

    def score(peer: str) -> str:
        text = f"{scores[peer]:.{dataset.decimals}f}"
        return f"**{text}**" if text == f"{best:.{dataset.decimals}f}" else text

    def size(peer: str) -> str:
        return size_text(mean(float(row["model_bytes"]) for row in of[peer]))

    def seconds(peer: str) -> str:
        return f"{median(float(row['cpu_seconds']) for row in of[peer]):.1f}"

    shallow = max((peer for peer in _SHALLOW if peer in scores), key=lambda peer: scores[peer], default=None)
    unit = ", macro-F1" if dataset.measure == "macro_f1" else ""
    cells = [f"{Path(dataset.file).stem} `{' '.join(dataset.options)}`{unit}"]
    cells += [score("seqbag"), seconds("seqbag")] if "seqbag" in of else ["", ""]
    cells += [f"{score('packed')}, {size('packed')}"] if "packed" in of else [""]
    cells += [f"{NAMES[shallow]} {score(shallow)}, {size(shallow)}", seconds(shallow)] if shallow else ["", ""]
    cells += [score("cnn"), seconds("cnn")] if "cnn" in of else ["", ""]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    print(table(read(parser.parse_args().table)))


if __name__ == "__main__":
    main()
