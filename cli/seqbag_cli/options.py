"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?$", re.IGNORECASE)


class Bytes(click.ParamType[int]):
    """A size such as 2GB, 512MiB or 300000000, as bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.match(str(value).strip())
        if match is None or match.group(2).lower() not in _UNITS:
            self.fail(f"{value!r} is not a size: write it like 2GB, 512MiB or 300000000", param, ctx)
        return int(float(match.group(1)) * _UNITS[match.group(2).lower()])


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers separated by commas, such as 1,3."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers: write it like 1,3", param, ctx)


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def source_option(required: bool = True) -> Callable[[Function], Function]:
    """--source."""
    return click.option(
        "--source",
        metavar="URI",
        required=required,
        help="Parquet, CSV, JSON or log files (a file, folder or glob), or a DuckDB database.",
    )


def column_options(labels: bool) -> Callable[[Function], Function]:
    """Which rows and columns are read: --sql, --where, --text, --tokens, --image, --shape and, asked for, --label."""
    options = [
        click.option("--sql", metavar="QUERY", help="Read this query instead; the source is its table `source`."),
        click.option("--where", metavar="EXPR", help="Read only rows that match this DuckDB expression."),
        click.option("--text", metavar="COL", help="Text column, or an expression."),
        click.option("--tokens", metavar="COL", help="List column, or an expression that gives one."),
        click.option("--image", metavar="COL", help="Column of PNG or JPEG bytes, or of pixels with --shape."),
        click.option("--shape", metavar="H,W,C", type=Numbers(), help="Shape of images given as lists of pixels."),
        click.option("--skip-bad", is_flag=True, help="Leave out damaged Parquet row groups instead of stopping."),
    ]
    if labels:
        options.insert(4, click.option("--label", metavar="COL", help="Label column, or an expression."))
    return _all(options)


def quiet_and_json(function: Function) -> Function:
    """--json and --quiet."""
    options = [
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout."),
        click.option("--quiet", is_flag=True, help="No progress and no notes on stderr."),
    ]
    return _all(options)(function)


def output_options(function: Function) -> Function:
    """--threads, --json and --quiet."""
    threads = click.option(
        "--threads",
        type=click.IntRange(1),
        default=available_cores,
        show_default="all cores",
        help="Threads to compute with.",
    )
    return threads(quiet_and_json(function))


model_argument = click.argument("model", type=click.Path(path_type=Path))


def print_json(values: dict[str, Any]) -> None:
    """One JSON object on one line; figures that do not exist (NaN) are null."""
    print(json.dumps(plain(values), ensure_ascii=False))


def plain(value: Any) -> Any:
    """The value with NaN as None, all the way down."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def note(quiet: bool, text: str) -> None:
    """A line on stderr, unless --quiet."""
    if not quiet:
        tell(sys.stderr, text)


def tell(out: TextIO, text: str) -> None:
    """A line on stderr. If nobody reads it any more (`2>&1 | head`), the work goes on in silence."""
    try:
        print(text, file=out, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def size_text(size: float) -> str:
    """Bytes for people: 1.2 MB."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _all(options: list[Callable[[Any], Any]]) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
