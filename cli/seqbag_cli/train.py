"""`seqbag train`."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqbag.config import TrainConfig
from seqbag.head import ACTIVATIONS
from seqbag_cli.options import (
    Bytes,
    Function,
    Numbers,
    column_options,
    output_options,
    print_json,
    size_text,
    source_option,
)
from seqbag_cli.progress import show_progress

if TYPE_CHECKING:
    from seqbag.batch import Source
    from seqbag.checkpoint import Checkpoint
    from seqbag.progress import Progress
    from seqbag.trained import Trained

_READING_SHARE = 4  # of --memory, one part in this many is the reader's


def setting(flag: str, name: str, help_text: str, **kind: Any) -> Callable[[Function], Function]:
    """An option that sets one field of TrainConfig, whose default it shows and leaves alone."""
    image, sign = TrainConfig.for_kind("image"), TrainConfig.for_kind("image", activation="sign")
    default, images, signs = _shown(name, TrainConfig()), _shown(name, image), _shown(name, sign)
    known = [default] * bool(default) + [f"for images {images}"] * (images != default)
    known += [f"with signs {signs}"] * (signs != images and name != "activation")
    told = f"  [default: {'; '.join(known)}]" if known else ""
    return click.option(flag, name, help=help_text + told, **kind)


def _shown(name: str, config: TrainConfig) -> str:
    value = getattr(config, name)
    if name == "memory":
        return size_text(value)
    return "" if value is None else ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@click.command(epilog='Example: seqbag train --source "logs/*.parquet" --where "level <> \'DEBUG\'" --out app.seqbag')
@source_option()
@column_options(labels=True)
@setting("--tokenizer", "tokenizer", "How text becomes tokens.", type=click.Choice(["words", "chars", "bytes"]))
@setting("--layers", "layers", "Layers, each trained in one pass.", type=int)
@setting("--window", "windows", "Widths of windows, side by side in a layer.", metavar="W[,W...]", type=Numbers())
@setting("--filters", "filters", "Filters for each width, layer by layer.", metavar="F[,F...]", type=Numbers())
@setting("--codebook", "codebook", "Distinct windows kept for each width.", type=int)
@setting("--regions", "regions", "Pooling: whole, tail:8,2,1 or grid:2; else chosen on held-out rows.", metavar="SPEC")
@setting(
    "--recency/--no-recency", "recency", "Let newer rows weigh more; else chosen by the newest rows.", default=None
)
@setting(
    "--last",
    "last",
    "Read only the last N tokens of a row; else all, or of lists as few as the newest rows need.",
    metavar="N",
    type=int,
)
@setting("--activation", "activation", "Activation; sign is for packed models.", type=click.Choice(list(ACTIVATIONS)))
@setting("--epochs", "epochs", "Epochs over the counts; else chosen by the number of rows.", type=int)
@setting("--polish", "polish", "Images: epochs on real windows after the counts; 0 for counts alone.", type=int)
@setting("--valid-fraction", "valid_fraction", "Rows held out to measure on; else 2,000 images at most.", type=float)
@setting("--memory", "memory", "Memory for the process.", type=Bytes())
@setting("--bag-clusters", "bag_clusters", "Train on this many clusters of examples.", type=int)
@setting("--seed", "seed", "Same seed, same model.", type=int)
@click.option(
    "--out", type=click.Path(path_type=Path), default="model.seqbag", show_default=True, help="Model file to write."
)
@click.option("--resume", is_flag=True, help="Go on where an interrupted run of the same settings was.")
@click.option(
    "--work-dir",
    type=click.Path(path_type=Path),
    help="Folder for checkpoints and examples over --memory.  [default: OUT.work, beside the output]",
)
@click.option("--checkpoint-every", type=float, default=120.0, show_default=True, help="Seconds, inside a pass.")
@output_options
def train(
    source: str, out: Path, resume: bool, work_dir: Path | None, checkpoint_every: float, threads: int, as_json: bool,
    quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Train a net on labelled rows and write a model file.

    A run that was killed goes on with the same command and --resume, and ends with the same model to the byte.

    Without column options the label is the column `label`, and the input is found by type and usual name: lists
    `events` or `tokens`, text `message`, `text` or `line`, images `img` or `image`.
    """
    from seqbag.checkpoint import Checkpoint
    from seqbag.store import check_writable, save

    names = {field.name for field in fields(TrainConfig)}
    settings = {name: options.pop(name) for name in names & set(options)}
    settings = {name: value for name, value in settings.items() if value is not None} | {"threads": threads}
    memory = TrainConfig(**settings).memory
    check_writable(out)
    with show_progress(quiet) as progress:
        from seqbag_connectors import open_source

        opened = open_source(source, threads=threads, memory_bytes=memory // _READING_SHARE, **options)
        config = TrainConfig.for_kind(opened.kind, opened.rows, **settings)
        identity = {**config.to_json(), "source": opened.fingerprint}
        folder = work_dir or out.with_name(f"{out.name}.work")
        with Checkpoint(folder, identity, checkpoint_every, resume) as checkpoint:
            if checkpoint.unfinished and not resume:
                progress.note(f"{folder} holds an interrupted run: --resume would go on with it; starting anew")
            trained = _train(opened, config, progress, checkpoint)
            columns = {
                "kind": opened.kind,
                "input": getattr(opened, "input", ""),
                "label": getattr(opened, "label", None),
            }
            if options["shape"] is not None:
                columns["shape"] = options["shape"]
            model_bytes = save(trained.model(columns), out)
            checkpoint.clear()
    report = {**trained.report(), "model_bytes": model_bytes, "peak_memory_bytes": peak_memory()}
    if as_json:
        print_json(report)
    else:
        _summary(report, out)


def _train(source: Source, config: TrainConfig, progress: Progress, checkpoint: Checkpoint) -> Trained:
    from seqbag.kernels.filters import adam_step
    from seqbag.process import compiled
    from seqbag.trainer import train

    progress.note(source.describe())
    how = f"tokenizer {config.tokenizer}, " if source.kind == "text" else ""
    widths = ", ".join(map(str, config.windows))
    filters = ", ".join(str(config.filters_of(layer)) for layer in range(config.layers))
    progress.note(f"{how}{config.layers} layer{'s' * (config.layers > 1)}, windows of {widths}, {filters} filters each")
    if not compiled(adam_step):
        progress.note("kernels are compiled for this machine, this once, which takes about half a minute")
    trained = train(source, config, progress, checkpoint)
    replaced = getattr(source, "replaced", 0)
    if replaced:
        progress.note(f"{replaced:,} byte sequences that are not UTF-8 were replaced")
    skipped = getattr(source, "skipped_row_groups", 0)
    if skipped:
        progress.note(f"{skipped:,} damaged row groups were left out")
    return trained


def _summary(report: dict[str, Any], out: Path) -> None:
    accuracy = report["valid_accuracy"]
    measured = "nothing was held out to measure on" if accuracy is None else f"accuracy {accuracy:.4f} on held-out rows"
    print(f"{report['rows']:,} rows, {report['classes']} classes: {measured}")
    print(
        f"{out} ({size_text(report['model_bytes'])}) in {report['seconds']:.1f} s, "
        f"peak memory {size_text(report['peak_memory_bytes'])}"
    )


def peak_memory() -> int:
    """The most bytes of memory this process has held.

    Of Linux, what the kernel counts for this program alone: its usage includes that of the one it was started from.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)):
        return int(found.group(1)) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
