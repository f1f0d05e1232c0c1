"""`seqbag evaluate`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqbag_cli.options import column_options, model_argument, note, output_options, print_json, source_option
from seqbag_cli.progress import show_progress

if TYPE_CHECKING:
    from seqbag.prediction import Evaluation

_MOST_LISTED = 20


@click.command(epilog="Example: seqbag evaluate model.seqbag --source test.parquet")
@model_argument
@source_option()
@column_options(labels=True)
@click.option("--flips", is_flag=True, help="Images are also seen mirrored, and the two answers averaged.")
@output_options
def evaluate(model: Path, source: str, flips: bool, threads: int, as_json: bool, quiet: bool, **options: Any) -> None:
    """Measure a model on labelled rows.

    The columns are those the model was trained on, unless they are named here.
    """
    from seqbag.prediction import evaluate
    from seqbag.process import for_kernels
    from seqbag_cli.models import load_model, open_for

    loaded = load_model(model)
    with for_kernels(), show_progress(quiet) as progress:
        opened = open_for(loaded, source, True, threads, **options)
        progress.note(opened.describe())
        started = time.perf_counter()
        evaluation = evaluate(loaded.network, opened, threads, progress, flips)
        seconds = time.perf_counter() - started
    unknown = evaluation.metrics.unknown
    if unknown:
        named = ", ".join(map(repr, evaluation.unseen))
        note(quiet, f"seqbag: {unknown:,} rows have labels not seen in training ({named}): counted as wrong")
    report = _report(evaluation, seconds)
    if as_json:
        print_json(report)
    else:
        _summary(report)


def _report(evaluation: Evaluation, seconds: float) -> dict[str, Any]:
    metrics = evaluation.metrics
    return {
        "rows": metrics.rows,
        "accuracy": metrics.accuracy,
        "macro_f1": metrics.macro_f1,
        "log_loss": metrics.log_loss if metrics.rows > metrics.unknown else None,
        "unseen_rows": metrics.unknown,
        "per_class": metrics.per_class(),
        "seconds": seconds,
        "rows_per_second": metrics.rows / seconds,
    }


def _summary(report: dict[str, Any]) -> None:
    log_loss = "-" if report["log_loss"] is None else f"{report['log_loss']:.4f}"
    print(
        f"{report['rows']:,} rows: accuracy {report['accuracy']:.4f}, macro-F1 {report['macro_f1']:.4f}, "
        f"log-loss {log_loss} ({report['rows_per_second']:,.0f} rows/s)"
    )
    classes = sorted(report["per_class"].items(), key=lambda item: -item[1]["rows"])
    width = max([5, *(len(name) for name, _ in classes[:_MOST_LISTED])])
    print(f"{'class':<{width}}  {'rows':>9}  precision  recall     f1")
    for name, figures in classes[:_MOST_LISTED]:
        print(
            f"{name:<{width}}  {figures['rows']:>9,}  {figures['precision']:>9.4f}  {figures['recall']:>6.4f} "
            f"{figures['f1']:>6.4f}"
        )
    if len(classes) > _MOST_LISTED:
        print(f"... and {len(classes) - _MOST_LISTED} smaller classes (--json lists all)")
