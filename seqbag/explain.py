"""What a net looks for: how far each common window of the first layer pulls towards each class.

The pull of a window towards a class is the change of the class's logit, above the mean change over all classes, when
that window is added once to the average example. Only the first layer's features move: the others stay at their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqbag.batch import Float32s, Int32s
from seqbag.features import pooled_features
from seqbag.network import PADDING, UNKNOWN, Network
from seqbag.store import Model

_BLOCK = 512  # windows at a time


@dataclass(frozen=True)
class Fragment:
    """A piece of input. text: its tokens; count: how often it occurs in the training rows; pull: in logits."""

    text: str
    count: int
    pull: float


@dataclass(frozen=True)
class Explanation:
    """Of one class: the fragments that pull towards it most, and away from it most, strongest first."""

    towards: list[Fragment]
    away: list[Fragment]


def explain(model: Model, most: int = 8) -> dict[str, Explanation]:
    """For each class its `most` strongest fragments either way, from windows that occur often enough to be believed.

    A fragment is left out where a stronger one holds all of it, or is held in it. Empty for images.
    """
    network, groups = model.network, range(len(model.windows))
    if not model.windows:
        return {}
    least = max(3, int(model.report.get("rows") or 0) // 500)
    kept = [np.flatnonzero((model.windows[g] > UNKNOWN).any(1) & (model.window_counts[g] >= least)) for g in groups]
    pulls = np.concatenate([pull(network, g, model.windows[g][kept[g]]) for g in groups])
    counts = np.concatenate([model.window_counts[g][kept[g]] for g in groups])
    separator = _separator(model)
    texts = [decode(window, model.texts, separator) for g in groups for window in model.windows[g][kept[g]]]
    explanations = {}
    for number, name in enumerate(network.classes):
        order = np.argsort(-pulls[:, number], kind="stable")
        sides = [
            [Fragment(texts[i], int(counts[i]), float(pulls[i, number])) for i in side if pulls[i, number] * sign > 0]
            for side, sign in ((order, 1), (order[::-1], -1))
        ]
        explanations[name] = Explanation(_distinct(sides[0], most), _distinct(sides[1], most))
    return explanations


def pull(network: Network, group: int, windows: Int32s) -> Float32s:
    """Pull of each window (m, width) of the first layer's `group` towards each class: (m, classes) float32."""
    layer, classifier = network.layers[0], network.classifier
    assert classifier is not None
    regions = layer.regions.count()
    channels = slice(*np.cumsum([0, *layer.filters])[group : group + 2])
    size = layer.features()
    average = classifier.mean[:size]
    base = classifier.logits(classifier.mean[None])
    sums = np.copysign(np.expm1(np.abs(average[:-regions])), average[:-regions]).reshape(regions, layer.channels)
    pulls = np.empty((len(windows), classifier.classes), np.float32)
    for start in range(0, len(windows), _BLOCK):
        added = layer.activations(group, windows[start : start + _BLOCK])
        moved = np.repeat(sums[None], len(added), 0)
        moved[:, :, channels] += added[:, None]  # as the newest part of a sequence it lies in every region
        features = np.repeat(classifier.mean[None], len(added), 0)
        features[:, : size - regions] = pooled_features(moved, np.zeros((len(added), regions), np.float32))[
            :, :-regions
        ]
        change = classifier.logits(features) - base
        pulls[start : start + _BLOCK] = change - change.mean(1, keepdims=True)
    return pulls


def decode(window: Int32s, texts: list[str], separator: str) -> str:
    """A window's tokens as text: `^` is an example's start and `$` its end, `?` a token not in the training rows."""
    words = [texts[row - 2] if row > UNKNOWN else "?" for row in window]
    inside = np.flatnonzero(window != PADDING)
    first, last = (int(inside[0]), int(inside[-1])) if len(inside) else (len(window), len(window))
    for place in range(len(window)):
        if window[place] == PADDING:
            words[place] = "^" if place < first else "$" if place > last else ""
    return separator.join(words)


def _separator(model: Model) -> str:
    """What stands between tokens: nothing between characters, a space between words, ` > ` between events."""
    if model.columns.get("kind") == "tokens":
        return " > "
    return " " if model.network.config.tokenizer == "words" else ""


def _distinct(fragments: list[Fragment], most: int) -> list[Fragment]:
    """The first `most` fragments that neither hold nor are held in one before them."""
    kept: list[Fragment] = []
    for fragment in fragments:
        if len(kept) == most:
            break
        if not any(fragment.text in other.text or other.text in fragment.text for other in kept):
            kept.append(fragment)
    return kept
