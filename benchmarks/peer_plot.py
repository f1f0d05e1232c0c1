"""Draw a table of peers: accuracy against CPU seconds of training, a panel a data set, bubbles as large as the models.

python -m benchmarks.peer_plot peers.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.datasets import find
from benchmarks.peer_table import NAMES, Rows, read

COLOURS = dict(zip(NAMES, ("#d62728", "#ff9896", "#1f77b4", "#9ecae1", "#2ca02c", "#9467bd", "#7f7f7f"), strict=True))


def draw(rows: Rows, out: Path) -> None:
    """Means over seeds. The area of a bubble goes with the square root of the model's bytes."""
    datasets = list(dict.fromkeys(row["data"] for row in rows))
    columns = min(3, len(datasets))
    lines = -(-len(datasets) // columns)
    figure, panels = plt.subplots(lines, columns, figsize=(4 * columns, 3.1 * lines), squeeze=False)
    for panel in panels.flat[len(datasets) :]:
        panel.set_axis_off()
    for panel, dataset in zip(panels.flat, datasets, strict=False):
        measure = find(dataset).measure
        bubbles = []
        for peer in NAMES:
            of = [row for row in rows if row["data"] == dataset and row["peer"] == peer]
            if of:
                size, x, y = (mean(float(row[name]) for row in of) for name in ("model_bytes", "cpu_seconds", measure))
                bubbles.append((size, x, y, peer))
        for size, x, y, peer in sorted(bubbles, reverse=True):  # the small ones in front
            panel.scatter(x, y, 8 + size**0.5 / 12, COLOURS[peer], alpha=0.8, edgecolors="white", zorder=3)
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.margins(0.2)
        panel.set_title(dataset, fontsize=10)
        panel.set_ylabel("macro-F1" if measure == "macro_f1" else "accuracy", fontsize=8)
        panel.set_xlabel("CPU seconds of training", fontsize=8)
        panel.tick_params(labelsize=7, which="both")
        panel.grid(alpha=0.3)
    shown = [name for name in NAMES if any(row["peer"] == name for row in rows)]
    handles = [plt.Line2D([], [], marker="o", ls="", color=COLOURS[name], label=NAMES[name]) for name in shown]
    figure.legend(handles=handles, loc="lower center", ncols=len(shown), fontsize=8, frameon=False)
    figure.suptitle("Area of a bubble: square root of the bytes of the model", fontsize=9)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    table = parser.parse_args().table
    draw(read(table), table.with_suffix(".png"))


if __name__ == "__main__":
    main()
