"""What the two kinds of model files have in common: their tensors, checked as they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s
from seqbag.classifier import Classifier
from seqbag.config import SIGNS
from seqbag.spans import Run, narrowed, runs_of, spans_of, widened

MOST_SITES = 2**16  # of an image's axis, a stride or a pooling, so that indexes can count them
Arrays = dict[str, npt.NDArray[Any]]


def checked(
    arrays: Arrays, name: str, dtype: npt.DTypeLike, axes: int, shape: tuple[int, ...] | None = None
) -> npt.NDArray[Any]:
    """An array of the file, once it is what the layout says. Raises KeyError or ValueError."""
    array = arrays[name]
    if array.dtype != dtype or array.ndim != axes or (shape is not None and array.shape != shape):
        raise ValueError(f"{name} is {array.dtype} {array.shape}")
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite")
    return array


def read_width(number: int, values: dict[str, Any], inputs: int | None) -> int:
    """Filters of a layer's readout, 0 without one. inputs: as for `read_channel_groups`. Raises ValueError."""
    width: int = values.get("readout", 0)  # until format 5, a layer's own activations were pooled
    if type(width) is not int or not 0 <= width < (MOST_SITES if number and inputs else 1):
        raise ValueError(f"the readout of layer {number + 1} has {width!r} filters")
    return width


def read_channel_groups(number: int, values: dict[str, Any], inputs: int | None) -> int:
    """See `Layer`. inputs: channels that the layer is given, None for tokens. Raises ValueError."""
    channel_groups = values.get("channel_groups", 1)  # until format 5, a layer read all channels
    if type(channel_groups) is not int or not 1 <= channel_groups <= (inputs if number and inputs else 1):
        raise ValueError(f"layer {number + 1} has {channel_groups!r} channel groups")
    return channel_groups


def read_biases(arrays: Arrays, name: str, dtype: npt.DTypeLike, filters: int, signs: bool) -> npt.NDArray[Any]:
    """Biases, or thresholds, of a group: (filters,), or (signs, filters) of several signs a filter. Raises ValueError.

    signs: whether that is what the filters give.
    """
    count = arrays[name].shape[0] if arrays[name].ndim == 2 else 1
    if count == 1:
        return checked(arrays, name, dtype, 1, (filters,))
    if not signs or count not in SIGNS:
        raise ValueError(f"{name} is of {count} signs")
    return checked(arrays, name, dtype, 2, (count, filters))


def check_signs(number: int, biases: list[Float32s]) -> None:
    """Raise ValueError unless the groups of a layer have as many signs a filter."""
    if len({bias.shape[:-1] for bias in biases}) != 1:
        raise ValueError(f"the filters of layer {number + 1} have different numbers of signs")


def read_projection(arrays: Arrays, number: int, channels: int) -> Float32s | None:
    """What the output of a layer is multiplied by for the next one, if anything. Raises ValueError."""
    name = f"layers.{number}.projection"
    if name not in arrays:
        return None
    projection: Float32s = checked(arrays, name, np.float32, 2)
    if len(projection) != channels or not projection.shape[1]:
        raise ValueError(f"the projection of layer {number + 1} does not fit its filters")
    return projection


def narrow(arrays: Arrays, runs: Sequence[Run]) -> None:
    """Keep of a vote's hidden units what they read."""
    if len(runs) > 1:
        arrays["classifier.spans"] = spans_of(runs)
        arrays["classifier.hidden"] = narrowed(arrays["classifier.hidden"], arrays["classifier.spans"])


def widen(arrays: Arrays, classifier: Classifier) -> None:
    """Hidden units of a file as they were before `narrow`; tells the classifier what they read. Raises ValueError."""
    if "classifier.spans" in arrays:
        spans = checked(arrays, "classifier.spans", np.int32, 2, (classifier.hidden, 2))
        arrays["classifier.hidden"] = widened(arrays["classifier.hidden"], spans, classifier.features)
        classifier.runs = runs_of(spans)
