"""`seqbag export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqbag.errors import ModelError, UsageError
from seqbag_cli.options import (
    column_options,
    model_argument,
    note,
    output_options,
    print_json,
    size_text,
    source_option,
)
from seqbag_cli.progress import show_progress

_MUCH = 0.005  # of accuracy

if TYPE_CHECKING:
    from seqbag.export import Exported
    from seqbag.quantise import Activations, Weights


@click.command(epilog="Example: seqbag export model.seqbag --weights ternary --source logs.parquet --out small.seqbag")
@model_argument
@click.option("--weights", type=click.Choice(["ternary", "binary", "float"]), default="ternary", show_default=True)
@click.option("--activations", type=click.Choice(["sign", "float"]), help="Default: as trained.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option(
    "--format", "form", type=click.Choice(["seqbag", "onnx"]), default="seqbag", show_default=True, help="Kind of file."
)
@source_option(required=False)
@column_options(labels=True)
@output_options
def export(
    model: Path,
    weights: Weights,
    activations: Activations | None,
    out: Path,
    form: str,
    source: str | None,
    threads: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Write a model as a small, fast file: bits for weights and activations.

    With labelled rows (--source) the classifier is refitted to the quantised layers, and the accuracy before and after
    is measured on rows that neither training nor refitting looks at (of a model that held none out, on a tenth that
    refitting does not look at). With signs and ternary or binary weights, a packed model works in integers up to the
    classifier, otherwise in floats. Packed models are for `seqbag predict`, `evaluate` and `inspect`, and for
    `seqbag.load` in Python; ONNX files are for onnxruntime.
    """
    from seqbag.export import export as pack
    from seqbag.packed import KEY
    from seqbag.quantise import Kind
    from seqbag.store import check_writable, holds, load, write_atomically
    from seqbag_cli.models import open_for

    _refuse_stray(source, options)
    check_writable(out)
    if holds(model, KEY):
        raise ModelError(f"{model} is packed already: export the model it was made of")
    loaded = load(model)
    trained = loaded.network.config.activation
    kind = Kind(weights, activations or ("sign" if trained == "sign" else "float"))
    with show_progress(quiet) as progress:
        opened = None if source is None else open_for(loaded, source, True, threads, **options)
        exported = pack(loaded, kind, opened, threads, progress)
    data = exported.data
    if form == "onnx":
        from seqbag_cli.onnx_export import to_onnx

        data = to_onnx(exported.model)
    write_atomically(out, data)
    if exported.accuracy and kind.activations == "sign" and trained != "sign":
        lost = exported.accuracy.before - exported.accuracy.after
        if lost > _MUCH:
            note(
                quiet, f"seqbag: signs cost {100 * lost:.1f} points: a model trained with --activation sign loses less"
            )
    report = _report(exported, kind.weights, kind.activations, form, len(data), model.stat().st_size)
    if as_json:
        print_json(report)
    elif not quiet:
        _summary(report, out)


def _refuse_stray(source: str | None, options: dict[str, Any]) -> None:
    """Column options speak of the source, so without one they are a mistake."""
    stray = sorted(name for name, value in options.items() if value)
    if source is None and stray:
        raise UsageError(f"--{stray[0].replace('_', '-')} is about a source and there is none: give one with --source")


def _report(
    exported: Exported, weights: str, activations: str, form: str, size: int, model_bytes: int
) -> dict[str, Any]:
    accuracy = exported.accuracy
    return {
        "format": form,
        "weights": weights,
        "activations": activations,
        "bytes": size,
        "model_bytes": model_bytes,
        "rows": accuracy.rows if accuracy else None,
        "accuracy_before": accuracy.before if accuracy else None,
        "accuracy_after": accuracy.after if accuracy else None,
        "refitted": accuracy.refitted if accuracy else False,
    }


def _summary(report: dict[str, Any], out: Path) -> None:
    print(
        f"{out}: {size_text(report['bytes'])} ({size_text(report['model_bytes'])} before), "
        f"{report['weights']} weights, {report['activations']} activations"
    )
    if report["rows"]:
        how = "refitted" if report["refitted"] else "not refitted, as that was no better"
        print(
            f"accuracy {report['accuracy_before']:.4f} before, {report['accuracy_after']:.4f} after "
            f"on {report['rows']:,} held-out rows (classifier {how})"
        )
