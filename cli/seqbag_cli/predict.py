"""`seqbag predict`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqbag.errors import UsageError
from seqbag_cli.options import column_options, model_argument, note, output_options, print_json, source_option
from seqbag_cli.progress import show_progress

if TYPE_CHECKING:
    from seqbag_cli.predictions import Format

STREAM = "-"


@click.command(
    epilog="Example: seqbag predict model.seqbag --source new.parquet --out predictions.parquet\n\n"
    "Example: tail -f app.log | seqbag predict model.seqbag -"
)
@model_argument
@click.argument("stream", type=click.Choice([STREAM]), required=False, metavar="[-]")
@source_option(required=False)
@column_options(labels=False)
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="File to write instead of stdout.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["parquet", "csv", "jsonl"]),
    help="Default: by the suffix of --out, else jsonl.",
)
@click.option(
    "--probabilities/--no-probabilities",
    "every",
    default=None,
    help="Write the probabilities of all classes.  [default: up to 50 classes]",
)
@output_options
def predict(
    model: Path,
    stream: str | None,
    source: str | None,
    out: Path | None,
    kind: Format | None,
    every: bool | None,
    threads: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Classify rows, or the lines of a stream as they come.

    Writes `row` (from 0), `class`, its `probability`, and the probabilities of all classes: as columns `p_CLASS`, or in
    JSON lines as an object `probabilities`. Lines of a stream (`-`) are answered at once, each with its `line`. --json
    prints figures of the run; without --out the predictions themselves are the JSON.
    """
    from seqbag.prediction import predict
    from seqbag.process import for_kernels
    from seqbag_cli.models import load_model, open_for
    from seqbag_cli.predictions import MOST_PROBABILITIES, choose_format, open_writer

    uri = _one_source(stream, source)
    chosen = choose_format(kind, out)
    if as_json and out is None and chosen != "jsonl":
        raise UsageError(f"--json and --format {chosen} exclude each other on standard output: give --out")
    loaded = load_model(model)
    classes = loaded.network.classes
    if every is None:
        every = len(classes) <= MOST_PROBABILITIES
    opened = open_for(loaded, uri, False, threads, **options)
    live = uri == STREAM
    done, started = 0, time.perf_counter()
    with (
        for_kernels(),
        show_progress(quiet or out is None) as progress,
        open_writer(out, chosen, classes, every, lines=live) as writer,
    ):
        progress.begin("predicting", opened.rows, "rows")
        for rows, probabilities in predict(loaded.network, opened, 1 if live else threads):
            writer.write(done, rows, probabilities)
            done += len(rows)
            progress.advance(len(rows))
        progress.end()
    seconds = time.perf_counter() - started
    if out is None:
        return
    if as_json:
        print_json({"rows": done, "seconds": seconds, "rows_per_second": done / seconds, "out": str(out)})
    else:
        note(quiet, f"{done:,} predictions in {out} ({done / seconds:,.0f} rows/s)")


def _one_source(stream: str | None, source: str | None) -> str:
    if stream is not None and source is not None:
        raise UsageError("- and --source exclude each other: give one")
    chosen = stream or source
    if chosen is None:
        raise UsageError("nothing to read: give --source URI, or - for standard input")
    return chosen
