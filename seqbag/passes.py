"""What one streaming pass over the data keeps: labels, held-out rows, a row sample, and the counts of a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from seqbag.bagclusters import cluster_bags
from seqbag.bags import Bags, Halves
from seqbag.batch import Int32s, Int64s, LabelColumn, Rows, Source, ragged_take
from seqbag.checkpoint import prefixed, under
from seqbag.codebook import ExactCodebook
from seqbag.errors import DataError
from seqbag.kmeans import KMeans
from seqbag.layer import Maps
from seqbag.network import PADDING, UNKNOWN
from seqbag.patches import Patcher
from seqbag.progress import Progress
from seqbag.recency import STRATA
from seqbag.regions import Regions
from seqbag.spill import Spill

BATCH_ROWS = 8192
_BATCH_SIZE = 1 << 21  # bytes of text, tokens or pixel values that are prepared and counted at once
_MOST_CLASSES = 65_536
Windows: TypeAlias = tuple[npt.NDArray[np.generic], Int64s, tuple[int, ...] | None]  # as `Maps.windows` gives them
_KEPT_ROWS = 2  # of a class that are trained on before one is held out
_SAMPLE_SITES = 1 << 23  # of a sample of rows


def complete(labels: LabelColumn | None, first_row: int) -> LabelColumn:
    """The labels, once none is missing. Raises DataError naming the first row without one."""
    if labels is None:
        raise DataError("the source has no labels: name the column with --label")
    missing = np.flatnonzero(labels.codes < 0)
    if len(missing):
        raise DataError(
            f"row {first_row + int(missing[0]) + 1} has no label ({len(missing)} in this batch): "
            'leave such rows out with --where "LABEL IS NOT NULL"'
        )
    return labels


class ClassIndex:
    """Class numbers of label texts, in the order they are first met; `order` sorts them at the end."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def update(self, labels: LabelColumn | None, first_row: int) -> Int32s:
        """Class numbers (n,) int32. Raises DataError for a null label, or more classes than can be meant."""
        labels = complete(labels, first_row)
        table = np.empty(len(labels.names), np.int32)
        for code, name in enumerate(labels.names):  # a batch's dictionary, not its rows
            table[code] = self.numbers.setdefault(name, len(self.numbers))
        if len(self.numbers) > _MOST_CLASSES:
            raise DataError(f"the label column has over {_MOST_CLASSES} distinct values: is it the right column?")
        return table[labels.codes]

    def order(self) -> tuple[tuple[str, ...], Int32s]:
        """The class texts sorted, and for each number so far its place in them. Raises DataError for fewer than 2."""
        names = tuple(sorted(self.numbers))
        if len(names) < 2:
            found = f"only {names[0]!r}" if names else "no rows"
            raise DataError(f"the label column holds {found}: training needs rows of two classes or more")
        places = {name: place for place, name in enumerate(names)}
        return names, np.array([places[name] for name in self.numbers], np.int32)


def hold_out(first_row: int, rows: int, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which rows are kept for validation: by a hash of the row's number, so the same in every pass and batching."""
    return scatter(np.arange(first_row, first_row + rows), seed) < np.uint64(fraction * 2.0**64 * (1 - 2.0**-53))


def drawn(first_row: int, rows: int, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """A uniform draw of rows, by a hash of the row's number other than that of `hold_out`."""
    return hold_out(first_row, rows, fraction, seed + 2) if fraction < 1 else np.ones(rows, np.bool_)


def scatter(numbers: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.uint64]:
    """64 well-mixed bits of each number (SplitMix64: Steele et al. 2014, doi 10.1145/2660193.2660195)."""
    with np.errstate(over="ignore"):
        bits = (numbers.astype(np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = bits ^ (bits >> np.uint64(31))
    return mixed


class RowSample:
    """A uniform sample of rows, those with the smallest hashes of their number: the same in any order or sharding.

    Fewer of them, if they are so long that they have more than `_SAMPLE_SITES` sites.
    """

    def __init__(self, rows: int, seed: int) -> None:
        self.rows, self.seed = rows, seed
        self._kept: list[tuple[npt.NDArray[np.uint64], Maps]] = []
        self._limit = np.uint64(2**64 - 1)
        self._held = self._sites = 0

    def update(self, maps: Maps, first_row: int) -> None:
        """Offer the rows of a batch, numbered from first_row."""
        keys = scatter(np.arange(first_row, first_row + len(maps)), self.seed + 1)
        chosen = np.flatnonzero(keys <= self._limit)
        if len(chosen):
            self._kept.append((keys[chosen], take(maps, chosen)))
            self._held += len(chosen)
            self._sites += len(self._kept[-1][1].values)
        if self._held > 2 * self.rows or self._sites > 2 * _SAMPLE_SITES:
            self._shrink()

    def maps(self) -> Maps:
        """The sampled rows."""
        self._shrink()
        return self._kept[0][1]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state, for a file."""
        if not self._kept:
            return {}
        self._shrink()
        keys, maps = self._kept[0]
        grid = np.array(maps.grid or (), np.int64)
        limit = np.array([self._limit])
        return {"keys": keys, "values": maps.values, "offsets": maps.offsets, "grid": grid, "limit": limit}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take the state that `arrays` gave."""
        if arrays:
            grid = tuple(arrays["grid"].tolist()) or None
            self._kept = [(arrays["keys"], Maps(arrays["values"], arrays["offsets"], grid))]
            self._limit = arrays["limit"][0]
            self._shrink()

    def _shrink(self) -> None:
        keys = np.concatenate([part[0] for part in self._kept])
        order = np.argsort(keys, kind="stable")
        maps = concatenate([part[1] for part in self._kept])
        fit = int(np.searchsorted(np.cumsum(np.diff(maps.offsets)[order]), _SAMPLE_SITES, side="right"))
        most = max(1, min(fit, self.rows))
        kept = order[:most]
        self._kept = [(keys[kept], take(maps, kept))]
        self._held, self._sites = len(kept), len(self._kept[0][1].values)
        if most == self.rows:
            self._limit = keys[kept[-1]]
        elif most < len(order):  # shorter rows with smaller keys than that of the first which does not fit still may
            self._limit = keys[order[most]]


def take(maps: Maps, rows: npt.NDArray[np.intp]) -> Maps:
    """The examples named by rows, in that order."""
    sites, offsets = ragged_take(maps.offsets, rows)
    return Maps(maps.values[sites], offsets, maps.grid)


def concatenate(parts: list[Maps]) -> Maps:
    """The examples of all parts."""
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Maps(np.concatenate([part.values for part in parts]), offsets, parts[0].grid)


class Forwarded(NamedTuple):
    """Some examples (n) as they leave the frozen layers.

    labels: (n,) int32; held: (n,) which are held out; times: (n,) int64 how often each counts, None for once; views: of
    each view, the pooled features and the input of the next layer.
    """

    labels: Int32s
    held: npt.NDArray[np.bool_]
    times: Int64s | None
    views: list[tuple[Halves, Maps]]


@dataclass
class LayerCounts:
    """The statistics of one layer's pass: codebooks, bags to train on, held-out bags.

    budget: bytes that the bags may take before they are moved to files of `spill`, or the held-out ones sampled;
    patches: windows seen in all groups; gathered: bags that were in files; seen: examples some of whose features were
    counted.
    """

    patchers: tuple[Patcher, ...]
    codebooks: Sequence[ExactCodebook | KMeans]
    regions: Regions
    bags: Bags
    held_out: Bags
    budget: int = 1 << 62
    spill: Spill | None = None
    patches: int = 0
    gathered: int = 0
    seen: int = 0

    @classmethod
    def of_features(cls, width: int) -> Self:
        """For features alone."""
        return cls((), [], Regions("whole"), Bags(0, 1, width), Bags(0, 1, width))

    def train_rare(self, classes: int) -> npt.NDArray[np.bool_]:
        """Train on all rows of classes that have fewer than two rows outside those held out. Returns those classes.

        Of labels told apart by stratum.

        A random tenth would take away the only row of some classes, which then could not be learned at all.
        """
        rows = self.bags.label_rows(classes * STRATA).reshape(classes, STRATA).sum(1)
        rare: npt.NDArray[np.bool_] = rows < _KEPT_ROWS
        if self.held_out.size and rare.any():
            same = [np.arange(len(book.counts), dtype=np.int32) for book in self.codebooks]
            self.bags.merge(self.held_out.split(np.repeat(rare, STRATA)), same)
        return rare

    def lookup(self, vocabulary: int) -> Int32s:
        """(vocabulary,) int32: the embedding row of each hashed token id, of those that are trained on."""
        seen = np.zeros(vocabulary, np.bool_)
        for group, book in enumerate(self.codebooks):
            assert isinstance(book, ExactCodebook)
            seen[book.windows[self.bags.used(group, book.size)]] = True
        tokens = np.flatnonzero(seen[1:]) + 1
        lookup = np.full(vocabulary, UNKNOWN, np.int32)
        lookup[0] = PADDING
        lookup[tokens] = np.arange(2, 2 + len(tokens), dtype=np.int32)
        return lookup

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state, for a file."""
        arrays = prefixed("bags", self.bags.arrays()) | prefixed("held_out", self.held_out.arrays())
        for group, codebook in enumerate(self.codebooks):
            arrays |= prefixed(f"codebooks.{group}", codebook.arrays())
        return {**arrays, "patches": np.array([self.patches], np.int64)}

    def restore(self, arrays: dict[str, npt.NDArray[Any]], rng: np.random.Generator) -> None:
        """Take the state that `arrays` gave."""
        self.bags, self.held_out = (Bags.from_arrays(under(name, arrays)) for name in ("bags", "held_out"))
        self.patches = int(arrays["patches"][0])
        restored: list[ExactCodebook | KMeans] = []
        for group in range(len(self.codebooks)):
            parts = under(f"codebooks.{group}", arrays)
            restored.append(ExactCodebook.from_arrays(parts) if "windows" in parts else KMeans.from_arrays(parts, rng))
        self.codebooks = restored

    @property
    def examples(self) -> int:
        """Examples that are counted in one of the bags: all, unless some of those held out had to go."""
        return self.bags.examples + self.held_out.examples

    @property
    def distinct(self) -> int:
        """Bags told apart before any were clustered; those of two files are not compared."""
        return self.gathered or self.bags.size

    def expect(self, rows: int, of: int) -> None:
        """Make room for what `of` rows bring if all are like the first `rows`, as far as the budget goes.

        Room takes no memory until it is filled, but bags that outgrow theirs are copied. They make three times as much
        as they are asked for.
        """
        share = min(of / rows, self.budget / self.bags.nbytes) / 3
        self.bags.reserve(int(share * self.bags.size), int(share * len(self.bags.codes)))

    def relieve(self, rng: np.random.Generator, progress: Progress, task: str) -> None:
        """Move the bags to a file if they are over budget; of the held-out ones, keep a sample."""
        if self.spill is None or not self.codebooks:
            return
        if self.held_out.nbytes > self.budget // 4:
            self.held_out = self.held_out.sample(self.held_out.size // 2, rng)
        if self.bags.nbytes <= self.budget:
            return
        part, self.bags = self.spill.write(self.bags), self.bags.empty()
        progress.note(f"{task}: the bags outgrew their memory, {part.size:,} are in {part.name}")

    def gather(self, rng: np.random.Generator, threads: int, progress: Progress, task: str, strata: int = 1) -> None:
        """Read back what was moved to files, clustered such that all of it takes half the budget.

        strata: labels that a class has.
        """
        if self.spill is None or not self.spill.parts:
            return
        self.spill.write(self.bags)
        self.gathered = sum(part.size for part in self.spill.parts)
        share = self.budget / 2 / sum(part.nbytes for part in self.spill.parts)
        self.bags = self.bags.empty()
        same = [np.arange(len(book.counts), dtype=np.int32) for book in self.codebooks]
        for part in self.spill.parts:
            bags = self.spill.read(part)
            cluster_bags(bags, max(1, int(share * bags.size)), rng, threads, strata)
            self.bags.merge(bags, same)
        progress.note(f"{task}: {self.gathered:,} bags were clustered to {self.bags.size:,}")

    def cluster(self, clusters: int | None, rng: np.random.Generator, threads: int) -> None:
        """Cluster the bags to `clusters`, if that is asked for."""
        if clusters is not None and self.codebooks and self.bags.size > clusters:
            cluster_bags(self.bags, clusters, rng, threads)

    def update(
        self, maps: Maps, labels: Int32s, held: npt.NDArray[np.bool_], dense: Halves, training_only: bool = False,
        times: Int64s | None = None,
    ) -> None:  # fmt: skip
        """Count a batch: its windows into the codebooks, its examples into the bags.

        training_only: leave the examples that are held out, as of images that are mirrored; times: (n,), how often
        each of the examples that are not counts.
        """
        windows = [maps.windows(patcher) for patcher in self.patchers]
        train, held_out = self.counting(windows, labels, held, dense, times)
        train()
        if not training_only:
            held_out()

    def update_features(self, part: Forwarded, every: int) -> None:
        """Count the features of examples as they are: of those held out, and of one in `every` of the others."""
        numbers = self.seen + np.arange(len(part.labels))
        chosen = np.flatnonzero(part.held | (numbers % every == 0))
        features, maps = part.views[0]
        self.update(maps.part(0, 0), part.labels[chosen], part.held[chosen], features[chosen])
        self.seen += len(part.labels)

    def update_views(self, part: Forwarded) -> None:
        """Count examples in each of their views; those held out as they are, in the first alone."""
        for view, (features, outputs) in enumerate(part.views):
            self.update(outputs, part.labels, part.held, features, view > 0, part.times)

    def counting(
        self, windows: list[Windows], labels: Int32s, held: npt.NDArray[np.bool_], dense: Halves,
        times: Int64s | None = None,
    ) -> tuple[Callable[[], None], Callable[[], None]]:  # fmt: skip
        """Count the windows of a batch, as cut for each group, into the codebooks.

        Returns what is left, which two threads may do at once: to count the examples trained on, and those held out.
        """
        offsets, grid = windows[-1][1:] if windows else (np.zeros(len(labels) + 1, np.int64), None)
        codes = []
        for (cut, _, _), codebook in zip(windows, self.codebooks, strict=True):
            codes.append(_codes(codebook, cut))
            self.patches += len(cut)
        segments = self.regions.segments(offsets, grid) if windows else np.empty(0, np.int32)
        table = np.stack(codes) if codes else np.empty((0, len(segments)), np.int32)

        def count(bags: Bags, rows: npt.NDArray[np.intp], times: Int64s | None) -> None:
            many = None if times is None else times[rows]
            bags.update(table, segments, offsets, labels[rows], dense[rows], many, rows)

        train, held_out = np.flatnonzero(~held), np.flatnonzero(held)
        return partial(count, self.bags, train, times), partial(count, self.held_out, held_out, None)


def _codes(codebook: ExactCodebook | KMeans, windows: npt.NDArray[Any]) -> Int32s:
    """Codes of the windows, counted in the codebook."""
    if isinstance(codebook, ExactCodebook):
        return codebook.update(windows)
    codes = codebook.assign(windows.astype(np.float32, copy=False))
    codebook.add(windows.astype(np.float32, copy=False), codes)
    return codes


def stream(source: Source, progress: Progress, task: str) -> Iterator[tuple[int, Rows]]:
    """Batches of a source with the number of their first row, shown as progress. Raises DataError without rows."""
    progress.begin(task, source.rows, "rows")
    first = 0
    for batch in source.batches(BATCH_ROWS if source.kind != "image" else BATCH_ROWS // 16):
        for rows in batch.parts(_BATCH_SIZE):
            yield first, rows
            first += len(rows)
            progress.advance(len(rows))
    progress.end()
    if first == 0:
        raise DataError(f"{source.describe()} has no rows: there is nothing to read")
