"""A model file and a source for it: read by the columns the model was trained on, unless told otherwise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqbag.errors import UsageError
from seqbag.predictor import open_model
from seqbag.store import Model

if TYPE_CHECKING:
    from seqbag.batch import Source

_OF_LINES = re.compile(r"\b(line|file|line_number)\b", re.IGNORECASE)  # the columns of a stream
_KINDS = ("text", "tokens", "image")


def load_model(path: Path) -> Model:
    """Read a model file or a packed model. Raises ModelError."""
    return open_model(path)


def open_for(model: Model, uri: str, need_label: bool, threads: int, **options: Any) -> Source:
    """The source a model is run on. options: fields of ReadOptions; None where the model's own columns apply.

    Raises UsageError where the model cannot read what is named, DataError for what cannot be read.
    """
    from seqbag_connectors import open_source

    kind = model.columns["kind"]
    given = [name for name in _KINDS if options.get(name) is not None]
    if given and given != [kind]:
        raise UsageError(
            f"the model was trained with --{kind} and cannot read --{given[0]}: name a column with --{kind}"
        )
    if not given:
        options[kind] = _usual_input(model, uri)
    if "shape" in model.columns and options.get("shape") is None:
        options["shape"] = model.network.shape
    if need_label and options.get("label") is None:
        options["label"] = model.columns["label"]
    return open_source(uri, need_label=need_label, threads=threads, **options)


def _usual_input(model: Model, uri: str) -> str | None:
    """The column or expression of training, None if its source had none to name.

    Lines of a stream have no such column: there it is the line itself, unless an expression speaks of lines.
    """
    kind, column = model.columns["kind"], str(model.columns["input"])
    if uri != "-" or _OF_LINES.search(column):
        return column or None
    if kind != "text":
        raise UsageError(
            f"the model reads {kind} and `-` gives lines: say how to make them, "
            "e.g. --tokens \"string_split(line, ' ')\""
        )
    return None
