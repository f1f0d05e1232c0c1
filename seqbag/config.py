"""What a user may choose: one frozen record, validated, printed, and saved with the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from numbers import Integral
from typing import Any, Self

from seqbag.batch import InputKind
from seqbag.errors import ModelError, UsageError
from seqbag.head import ACTIVATIONS, Activation
from seqbag.regions import Regions
from seqbag.tokens import TOKENIZERS, Tokenizer

_IMAGE_DEFAULTS: dict[str, Any] = {
    "layers": 4,
    "windows": (3,),
    "filters": (384, 384, 384, 512),
    "regions": "grid:3",
    "hidden": 256,
    "project": 96,
    "polish": 40,
    "readout": 256,
    "views": 4,
    "shift": 1,
    "samples": 16,
    "smoothing": 0.1,
    "memory": 75 * 10**8,
}
# Signs are not projected: a filter that reads one channel in four costs what one over 96 axes does.
# They learn slower behind readouts. Three layers of 384 filters are as good after 36 epochs.
_SIGN_DEFAULTS: dict[str, Any] = {
    **_IMAGE_DEFAULTS, "layers": 3, "filters": (384, 512, 640), "polish": 28, "channel_groups": 4, "signs": 2,
    "readout": 0,
}  # fmt: skip
SIGNS = (1, 2, 4)  # of a filter: their means are floats without rounding
_HELD_IMAGES = 2000  # an accuracy of 0.87 is measured to 0.0075 by them


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run. Defaults were chosen on held-out rows of the training data of eight log data sets.

    windows: widths side by side in a layer; filters: per width, layer by layer, the last for all that follow; codebook:
    distinct windows kept (exact, first layer) and centroids (k-means, later layers), None for the defaults; regions:
    None to choose on held-out rows; epochs: None to choose by the number of rows; memory: bytes; dims: of a token's
    embedding; signs: of each filter, at thresholds evenly apart, where the activation is sign; hidden: units in each
    classifier; smoothing: of labels, None for 5 % on few rows, falling to nothing on many; balance: classes weigh
    frequency ** -balance; recency: whether newer rows weigh more, None to choose by what predicts the newest rows
    better; last: tokens that are read of each row, its last, None for all, or for one or two of lists if newer rows
    weigh more and these predict the newest as well; bag_clusters: clusters of bags to train on, None for the bags
    themselves as long as they fit the memory.

    For images: project: channels that a layer's maps are projected to for the next one, 0 for all; signs stay as they
    are. polish: epochs on real windows, 0 to train on counts alone; samples: windows of an example a step;
    channel_groups: from the second layer on, each filter reads one in so many of the channels below, if that divides
    them and the filters evenly (of signs, one in 4 at most, see `Levels.readers`); readout: filters of the first two
    polished layers' readouts (see `Layer`), 0 for none;
    views: in which each is seen (see `augment`), 1 as it is; shift: sites its maps are moved by, an eighth at most.
    """

    tokenizer: Tokenizer = "words"
    vocabulary: int = 2**15
    dims: int = 64
    layers: int = 1
    windows: tuple[int, ...] = (1, 3)
    filters: tuple[int, ...] = (96,)
    codebook: int | None = None
    regions: str | None = None
    activation: Activation = "relu"
    signs: int = 1
    hidden: int = 128
    epochs: int | None = None
    smoothing: float | None = None
    decay: float = 0.0
    balance: float = 0.0
    recency: bool | None = None
    last: int | None = None
    project: int = 0
    polish: int = 0
    samples: int = 32
    channel_groups: int = 1
    readout: int = 0
    views: int = 1
    shift: int = 0
    valid_fraction: float = 0.1
    bag_clusters: int | None = None
    memory: int = 2 * 10**9
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in ("int", "int | None") and not (
                isinstance(value, Integral) or (value is None and "None" in field.type)
            ):
                raise UsageError(f"{field.name} is {value!r}: it must be a whole number")
        if self.tokenizer not in TOKENIZERS:
            raise UsageError(f"tokenizer {self.tokenizer!r} is not known: choose from {', '.join(TOKENIZERS)}")
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation {self.activation!r} is not known: choose from {', '.join(ACTIVATIONS)}")
        if not self.windows or not all(1 <= width <= 31 for width in self.windows):
            raise UsageError(f"windows {self.windows} do not work: give one or more widths from 1 to 31")
        if self.regions is not None and Regions.parse(self.regions).kind == "none":
            raise UsageError("regions none leave nothing to learn from: use whole, tail:8,2,1 or grid:2")
        if not self.filters or min(self.filters) < 1:
            raise UsageError(f"filters {self.filters} do not work: give one or more numbers from 1 on")
        if self.signs not in SIGNS:
            raise UsageError(f"signs is {self.signs}: it must be 1, 2 or 4")
        if self.signs > 1 and self.activation != "sign":
            raise UsageError(f"signs is {self.signs} and the activation {self.activation}: give --activation sign")
        for name in ("layers", "dims", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("epochs", "codebook", "last", "bag_clusters"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        for name, least in {
            "hidden": 0, "seed": 0, "vocabulary": 2, "project": 0, "polish": 0, "samples": 1, "views": 1, "shift": 0,
            "channel_groups": 1, "readout": 0,
        }.items():  # fmt: skip
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be {least} or more")
        if self.vocabulary > 2**24:
            raise UsageError(f"vocabulary is {self.vocabulary}: it must be {2**24} or less")
        for name in ("smoothing", "valid_fraction"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise UsageError(f"{option} is {getattr(self, name)}: it must be at least 0 and below 1")
        if self.memory < 600 * 10**6:
            raise UsageError(f"memory is {self.memory / 1e6:.0f} MB: the process alone takes 600 MB")

    @classmethod
    def for_kind(cls, kind: InputKind, rows: int | None = None, **chosen: Any) -> Self:
        """The defaults for a kind of input, with what was chosen instead. Raises UsageError.

        rows: how many there are, if that is known. Images are few and each is learned from, so that of many no more are
        held out than it takes to measure. Signs over images have defaults of their own.
        """
        if kind != "image":
            return cls(**chosen)
        held = min(cls.valid_fraction, _HELD_IMAGES / max(rows or 1, 1))
        defaults = _SIGN_DEFAULTS if chosen.get("activation") == "sign" else _IMAGE_DEFAULTS
        return cls(**{**defaults, "valid_fraction": held, **chosen})

    def check(self, kind: InputKind) -> None:
        """Raise UsageError if a setting does not fit a kind of input."""
        if self.polish and kind != "image":
            raise UsageError(f"polish is {self.polish}: only images are polished, leave it out")
        if self.last is not None and kind == "image":
            raise UsageError(f"last is {self.last}: images have no last tokens, leave it out")
        if kind == "image" and self.regions is not None and Regions.parse(self.regions).kind == "tail":
            raise UsageError(f"regions {self.regions} are the ends of sequences: of images use whole or grid:2")

    def filters_of(self, layer: int) -> int:
        """Filters of each width in a layer, counted from 0."""
        return self.filters[min(layer, len(self.filters) - 1)]

    def smoothing_for(self, rows: int) -> float:
        """Label smoothing for a number of rows: it keeps classes of one or two rows from being learned by heart."""
        return min(0.05, 1000 / max(rows, 1)) if self.smoothing is None else self.smoothing

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Back from `to_json`. Raises ModelError if a setting is not known or out of range."""
        known = {field.name for field in fields(cls)}
        if isinstance(values, dict) and "flips" in values:  # what views were when there were two at most
            values = {
                **{name: value for name, value in values.items() if name != "flips"},
                "views": 1 + bool(values["flips"]),
            }
        if not isinstance(values, dict) or set(values) - known:
            raise ModelError("the model's settings are not of this version: train it again")
        try:
            return cls(**{**values, "windows": tuple(values["windows"]), "filters": tuple(values["filters"])})
        except (TypeError, KeyError, UsageError) as error:
            raise ModelError(f"the model's settings are damaged ({error}): train it again") from error
