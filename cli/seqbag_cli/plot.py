"""Pictures of what a model learned, drawn with Pillow alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from seqbag.errors import DataError
from seqbag.layer import Layer
from seqbag.store import Model

Pixels = npt.NDArray[np.uint8]
_CELL = 36  # pixels a filter is drawn in, about
_ACROSS = 18  # filters in a row
_MARGIN = 12
_TITLE = 24
_LEGEND = 18  # a line of it
_INK, _PAPER, _FAINT = (20, 20, 20), (255, 255, 255), (215, 215, 215)
_LINES = (
    (31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (140, 86, 75), (255, 127, 14), (23, 160, 180),
    (90, 90, 90), (200, 80, 160),
)  # fmt: skip
_MOST_CLASSES = 40  # of a confusion matrix


@dataclass(frozen=True)
class Line:
    """A line of a chart: its name and its points (x, y); a faint one stands behind the others, without its values."""

    name: str
    points: list[tuple[float, float]]
    faint: bool = False


def draw(model: Model, path: Path) -> None:
    """Draw a model: filters of images; accuracy per layer and the confusion matrix. Raises DataError if it cannot."""
    network = model.network
    panels: list[Image.Image] = []
    if network.layers[0].embedding is None:
        panels.append(_titled("Whitening filters", _tiles(whitening_pictures(network.layers[0]))))
        if len(network.layers) > 1:
            seen = seen_by(network.layers[0], network.layers[1])
            panels.append(_titled("First trained layer: filters, as the pixels they stand for", _tiles(seen)))
    layers = [layer.get("valid_accuracy") for layer in model.report.get("layers", [])]
    known = [(float(number), float(value)) for number, value in enumerate(layers, 1) if value is not None]
    if len(known) > 1:
        panels.append(_titled("Accuracy on held-out rows by layer", _plotted([Line("", known)], "layer", "accuracy")))
    confusion = model.report.get("confusion")
    if confusion:
        panels.append(
            _titled("Held-out rows: class (down) and prediction (across)", _matrix(confusion, network.classes))
        )
    _save(_stacked(panels or [_titled("Nothing to draw", Image.new("RGB", (300, 20), _PAPER))]), path)


def chart(lines: list[Line], x: str, y: str, path: Path) -> None:
    """Draw lines over two axes. Raises DataError if the file cannot be written."""
    _save(_plotted(lines, x, y), path)


def whitening_pictures(layer: Layer) -> list[Pixels]:
    """Of each whitening filter (the half of one sign) its weights as a picture (height, width, 3)."""
    weights = layer.weights[0]
    bank = np.unique(np.round(weights, 7), axis=1, return_index=True)[1] if weights.shape[1] > 1 else np.array([0])
    kept: list[int] = []
    for column in np.sort(bank):  # of a filter and its opposite, the first
        if not any(np.allclose(weights[:, column], -weights[:, other], atol=1e-6) for other in kept):
            kept.append(int(column))
    return [_picture(weights[:, column], layer.patchers[0].window) for column in kept]


def seen_by(first: Layer, second: Layer, most: int = 90) -> list[Pixels]:
    """Filters of a trained layer as the pixels they stand for.

    A whitening filter's weights are mostly fine noise that its answer is not: each is drawn as the patch that it alone
    answers to (the pseudo-inverse of the bank), spread over the pixels that are pooled, times its weight in the filter.
    """
    window, inner = second.patchers[0].window[-2:], first.patchers[0].window[-2:]
    pooling = (first.pooling or (1,) * len(first.patchers[0].window))[-2:]
    channels = len(first.weights[0]) // int(np.prod(first.patchers[0].window))
    sites = int(np.prod(second.patchers[0].window))
    if len(second.patchers[0].window) != 2:
        return []
    height, width = (w * p + i - 1 for w, p, i in zip(window, pooling, inner, strict=True))
    kernel = np.linalg.pinv(first.weights[0].T.astype(np.float64)).reshape(*inner, channels, -1)  # (i, j, c, a)
    strength = np.linalg.norm(second.weights[0], axis=0)
    chosen = np.argsort(-strength, kind="stable")[:most]
    filters = second.weights[0].reshape(sites, -1, second.weights[0].shape[1])[:, :, chosen]
    canvas = np.zeros((height, width, channels, len(chosen)))
    for site in range(sites):
        part = np.tensordot(kernel, filters[site], axes=([3], [0])) / np.prod(pooling)  # (i, j, c, chosen)
        top, left = site // window[1] * pooling[0], site % window[1] * pooling[1]
        for dy in range(pooling[0]):
            for dx in range(pooling[1]):
                canvas[top + dy : top + dy + inner[0], left + dx : left + dx + inner[1]] += part
    return [_scaled(canvas[..., number]) for number in range(len(chosen))]


def _picture(weights: npt.NDArray[Any], window: tuple[int, ...]) -> Pixels:
    """Weights (window * channels,) as a picture; of more than two axes, the first places of the others."""
    values = weights.reshape(*window, -1)
    while values.ndim > 3:
        values = values[0]
    return _scaled(values if values.ndim == 3 else values[None])


def _scaled(values: npt.NDArray[Any]) -> Pixels:
    """Values (height, width, channels) as colours: nought is grey, the largest magnitude full contrast."""
    most = max(float(np.abs(values).max()), 1e-12)
    bytes_: Pixels = np.round(127.5 + 127.5 * values / most).astype(np.uint8)
    return bytes_ if bytes_.shape[-1] == 3 else np.repeat(bytes_[..., :1], 3, axis=-1)


def _tiles(pictures: list[Pixels]) -> Image.Image:
    rows = max(1, -(-len(pictures) // _ACROSS))
    across = min(_ACROSS, max(1, len(pictures)))
    sheet = Image.new("RGB", (across * (_CELL + 4), rows * (_CELL + 4)), _PAPER)
    for number, picture in enumerate(pictures):
        times = max(1, _CELL // max(picture.shape[:2]))
        tile = Image.fromarray(np.kron(picture, np.ones((times, times, 1), np.uint8)))
        sheet.paste(tile, (number % _ACROSS * (_CELL + 4), number // _ACROSS * (_CELL + 4)))
    return sheet


def _plotted(lines: list[Line], x: str, y: str, width: int = 720, height: int = 380) -> Image.Image:
    clear = [line for line in lines if not line.faint]
    named = [line for line in clear if line.name]
    picture = Image.new("RGB", (width, height + _LEGEND * len(named)), _PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    left, right, top, bottom = 70, width - 20, 36, height - 50
    xs, ys = ([point[axis] for line in lines for point in line.points] for axis in (0, 1))
    x_ticks, y_ticks = ticks(xs), ticks(ys)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = (point[0] - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (point[1] - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    for value in y_ticks:
        _, up = place((x_ticks[0], value))
        pen.line([(left, up), (right, up)], _FAINT)
        pen.text((left - 8, up), f"{value:g}", _INK, font, anchor="rm")
    for value in x_ticks:
        pen.text((place((value, y_ticks[0]))[0], bottom + 8), f"{value:g}", _INK, font, anchor="mt")
    pen.line([(left, top), (left, bottom), (right, bottom)], _INK)
    pen.text(((left + right) / 2, height - 8), x, _INK, font, anchor="mb")
    pen.text((8, 4), y, _INK, font)
    for number, line in enumerate(sorted(lines, key=lambda line: not line.faint), len(clear) - len(lines)):
        colour, size = (_FAINT, 2) if line.faint else (_LINES[number % len(_LINES)], 4)
        points = [place(point) for point in line.points]
        if len(points) > 1:
            pen.line(points, colour, size // 2)
        for point, (_, value) in zip(points, line.points, strict=True):
            pen.ellipse([point[0] - size, point[1] - size, point[0] + size, point[1] + size], colour)
            if not line.faint:
                pen.text((point[0], point[1] - 8), f"{value:.3f}", _INK, font, anchor="mb")
    for number, line in enumerate(named):
        colour, up = _LINES[clear.index(line) % len(_LINES)], height + _LEGEND * number
        pen.line([(left, up), (left + 24, up)], colour, 2)
        pen.text((left + 32, up), line.name, colour, font, anchor="lm")
    return picture


def ticks(values: list[float]) -> list[float]:
    """Two to seven round numbers, evenly apart, from one under all values to one over them; whole ones for whole."""
    low, high = min(values), max(values)
    least = ((high - low) or max(abs(high) * 0.1, 1e-3)) / 4
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= least)
    if all(float(value).is_integer() for value in values):
        step = max(step, 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def _matrix(confusion: list[list[int]], classes: tuple[str, ...]) -> Image.Image:
    """Rows are shares of a class; darker is more."""
    counts = np.array(confusion, np.float64)
    largest = np.sort(np.argsort(-counts.sum(1), kind="stable")[:_MOST_CLASSES])
    counts = counts[np.ix_(largest, largest)]
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cell, names = 26 if len(largest) <= 20 else 15, [classes[c][:16] for c in largest]
    font = ImageFont.load_default(11)
    label = max(int(font.getlength(name)) for name in names) + 10
    picture = Image.new("RGB", (label + cell * len(names), label + cell * len(names)), _PAPER)
    pen = ImageDraw.Draw(picture)
    for row, name in enumerate(names):
        pen.text((label - 6, label + cell * (row + 0.5)), name, _INK, font, anchor="rm")
        turned = Image.new("RGB", (label, cell), _PAPER)
        ImageDraw.Draw(turned).text((6, cell / 2), name, _INK, font, anchor="lm")
        picture.paste(turned.rotate(90, expand=True), (label + cell * row, 0))
        for column in range(len(names)):
            value = share[row, column]
            colour = tuple(round(255 - (255 - c) * value**0.5) for c in (8, 48, 107))
            corner = (label + cell * column, label + cell * row)
            pen.rectangle([corner, (corner[0] + cell - 2, corner[1] + cell - 2)], colour, _FAINT)
            if cell > 20 and value >= 0.005:
                ink = _PAPER if value > 0.35 else _INK
                pen.text(
                    (corner[0] + cell / 2 - 1, corner[1] + cell / 2 - 1), f"{100 * value:.0f}", ink, font, anchor="mm"
                )
    return picture


def _titled(title: str, body: Image.Image) -> Image.Image:
    font = ImageFont.load_default(15)
    panel = Image.new("RGB", (max(body.width, int(font.getlength(title)) + 4), body.height + _TITLE), _PAPER)
    ImageDraw.Draw(panel).text((0, 2), title, _INK, font)
    panel.paste(body, (0, _TITLE))
    return panel


def _stacked(panels: list[Image.Image]) -> Image.Image:
    width = max(panel.width for panel in panels) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, sum(panel.height + _MARGIN for panel in panels) + _MARGIN), _PAPER)
    at = _MARGIN
    for panel in panels:
        sheet.paste(panel, (_MARGIN, at))
        at += panel.height + _MARGIN
    return sheet


def _save(picture: Image.Image, path: Path) -> None:
    try:
        picture.save(path, "PNG")
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}): choose another place with --plot"
        ) from error
