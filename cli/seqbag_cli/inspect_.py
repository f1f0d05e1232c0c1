"""`seqbag inspect`."""

from __future__ import annotations

from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqbag_cli.options import model_argument, print_json, quiet_and_json, size_text

if TYPE_CHECKING:
    from seqbag.explain import Explanation, Fragment
    from seqbag.store import Model

_CLASSES_SHOWN = 12
_WIDEST = 60  # characters of a fragment; --json has it whole
_HEADINGS = ("pulls towards", "pulls away")


@click.command("inspect", epilog="Example: seqbag inspect model.seqbag")
@model_argument
@click.option("--most", type=click.IntRange(1), default=8, show_default=True, help="Fragments a class and side.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Also draw what was learned, as a PNG.")
@quiet_and_json
def inspect(model: Path, most: int, plot: Path | None, as_json: bool, quiet: bool) -> None:
    """Show what a model is made of and what it looks for.

    For each class, the fragments of the input that pull towards it and away from it most. The pull is what one more
    occurrence adds to the class's logit in the average example; beside it stands how often the fragment occurs in the
    rows trained on. `^` is the start of an example, `$` its end; `>` stands between the events of a list.
    """
    from seqbag.explain import explain
    from seqbag_cli.models import load_model

    loaded = load_model(model)
    if plot is not None:
        from seqbag_cli.plot import draw

        draw(loaded, plot)
    explanations = explain(loaded, most)
    figures = _figures(loaded, model.stat().st_size)
    if as_json:
        print_json({**figures, "explanations": {name: asdict(value) for name, value in explanations.items()}})
    elif not quiet:
        _summary(model, figures)
        _fragments(explanations)


def _figures(model: Model, model_bytes: int) -> dict[str, Any]:
    network = model.network
    return {
        "model_bytes": model_bytes,
        "columns": model.columns,
        "tokenizer": network.config.tokenizer if model.columns.get("kind") == "text" else None,
        "classes": list(network.classes),
        "tokens": len(model.texts),
        "layers": [
            {
                "windows": [list(patcher.window) for patcher in layer.patchers],
                "filters": layer.filters,
                "regions": str(layer.regions),
                "activation": layer.activation,
                "signs": layer.signs,
                "channel_groups": layer.channel_groups,
                "weights": sum(weights.size for weights in layer.weights),
                "outputs": layer.outputs,
                "readout": 0 if layer.readout is None else layer.readout.channels,
            }
            for layer in network.layers
        ],
        "training": model.report,
        "config": network.config.to_json(),
    }


def _summary(path: Path, figures: dict[str, Any]) -> None:
    columns, training = figures["columns"], figures["training"]
    tokenizer = f", tokenizer {figures['tokenizer']}" if figures["tokenizer"] else ""
    tokens = "" if columns.get("kind") == "image" else f"{tokenizer}, {figures['tokens']:,} distinct tokens"
    last = figures["config"]["last"]
    tokens += "" if last is None else ", of each row the last one" if last == 1 else f", of each row the last {last}"
    print(f"{path} ({size_text(figures['model_bytes'])})")
    print(f"input   {columns.get('kind')} from `{columns.get('input')}`{tokens}")
    print(f"label   `{columns.get('label')}`, {len(figures['classes'])} classes")
    accuracy = training.get("valid_accuracy")
    measured = f", accuracy {accuracy:.4f} on held-out rows" if accuracy is not None else ""
    weighed = ", of which newer ones weigh more" if figures["config"]["recency"] else ""
    print(f"trained on {training.get('rows', 0):,} rows{weighed}{measured}")
    for layer in figures["layers"]:
        if layer["regions"] == "none":
            windows = "x".join(map(str, layer["windows"][0]))
            print(f"whitening  windows of {windows}; {sum(layer['filters'])} filters, {layer['activation']}")
    trained = [layer for layer in figures["layers"] if layer["regions"] != "none"]
    for number, (layer, report) in enumerate(zip(trained, training.get("layers", []), strict=False), 1):
        groups = layer["channel_groups"]
        widths = ", ".join("x".join(map(str, window)) for window in layer["windows"][::groups])
        widths += f" in {groups} channel groups" if groups > 1 else ""
        axes = f"{layer['outputs']} principal axes; " if layer["outputs"] < sum(layer["filters"]) else ""
        axes += f"read out by {layer['readout']}; " if layer["readout"] else ""
        activation = layer["activation"] if layer["signs"] == 1 else f"{layer['signs']} signs each"
        counted = ""
        if report["patches"]:  # else the layer was polished alone
            counted = (
                f"; {report['patches']:,} windows, {report['distinct']:,} distinct; {report['bags']:,} distinct bags"
            )
        print(
            f"layer {number}  windows of {widths}; {sum(layer['filters'])} filters, {activation}; {axes}"
            f"regions {layer['regions']}{counted}"
        )


def _fragments(explanations: dict[str, Explanation]) -> None:
    for name, explanation in list(explanations.items())[:_CLASSES_SHOWN]:
        sides = [[_cell(fragment) for fragment in side] for side in (explanation.towards, explanation.away)]
        width = max([len(_HEADINGS[0]), *map(len, sides[0])])
        print(f"\n{name}\n  {_HEADINGS[0]:<{width}}    {_HEADINGS[1]}")
        for towards, away in zip_longest(*sides, fillvalue=""):
            print(f"  {towards:<{width}}    {away}".rstrip())
    if len(explanations) > _CLASSES_SHOWN:
        print(f"\n... and {len(explanations) - _CLASSES_SHOWN} more classes (--json lists all)")


def _cell(fragment: Fragment) -> str:
    text = fragment.text if len(fragment.text) <= _WIDEST else f"{fragment.text[: _WIDEST - 3]}..."
    return f"{fragment.pull:>+6.2f} {fragment.count:>9,}x  {text}"
