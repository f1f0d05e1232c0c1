"""Bags: what a layer trains on. An example becomes its counts of codes per group and region; equal ones are merged.

One group is one window width with its own codebook. The entries of a bag are sorted by (group, segment, code), so that
two examples are the same bag exactly if their entries agree, and the order of sites inside a segment does not matter.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from seqbag.batch import Float32s, Int32s, Int64s, cuts
from seqbag.errors import UsageError
from seqbag.kernels.bagmath import join_regions, mark_codes, select_bags
from seqbag.kernels.counting import add_examples, add_labels, list_labels, rehash
from seqbag.kernels.halves import mixed_rows

Halves = npt.NDArray[np.float16]
_STRETCH = 1 << 15  # bags merged at once, at most
_SITES = 1 << 22  # of bags merged at once


class Bags:
    """Distinct bags with the labels counted under each.

    pointers: (size * spans + 1,) int64, where span (bag * groups + group) * regions + segment holds the entries
    pointers[span] .. pointers[span + 1] of codes (int32) and counts (int32). dense: (size, d) float16, the features of
    the layers below, which belong to a bag's identity.
    """

    def __init__(self, groups: int, regions: int, dense: int = 0) -> None:
        self.groups, self.regions, self.width = groups, regions, dense
        self.clustered = False  # whether rows of unlike bags were merged
        self.size = 0
        self.rows = 0  # each as often as it counts
        self.examples = 0  # each once
        self._pointers: Int64s = np.zeros(1, np.int64)
        self._codes: Int32s = np.empty(0, np.int32)
        self._counts: Int32s = np.empty(0, np.int32)
        self._dense: npt.NDArray[np.uint16] = np.empty((0, dense), np.uint16)
        self._hashes: npt.NDArray[np.uint64] = np.empty(0, np.uint64)
        self._slots: Int32s = np.full(16, -1, np.int32)
        self._heads: Int32s = np.empty(0, np.int32)
        self._nodes = 0
        self._classes: Int32s = np.empty(0, np.int32)
        self._label_counts: Int64s = np.empty(0, np.int64)
        self._following: Int32s = np.empty(0, np.int32)

    @property
    def spans(self) -> int:
        """Spans of entries a bag has: one for each group and segment."""
        return self.groups * self.regions

    @property
    def pointers(self) -> Int64s:
        return self._pointers[: self.size * self.spans + 1]

    @property
    def codes(self) -> Int32s:
        return self._codes[: self.pointers[-1]]

    @property
    def counts(self) -> Int32s:
        return self._counts[: self.pointers[-1]]

    @property
    def dense(self) -> Halves:
        return self._dense[: self.size].view(np.float16)

    def dense_rows(self, chosen: npt.NDArray[np.intp], share: float = 1.0) -> Float32s:
        """(b, d) float32: of the features of the bags chosen (b,) a share each, the rest of the one before.

        Before the first comes the last.
        """
        rows: Float32s = np.empty((len(chosen), self.width), np.float32)
        if rows.size:  # else the kernel is not even loaded
            mixed_rows(self._dense, chosen, np.float32(share), np.float32(1 - share), rows)
        return rows

    @property
    def visits(self) -> int:
        """Examples that an epoch is to see, however much they weigh; or the bags where they are clusters of rows."""
        return self.size if self.clustered else self.examples

    @property
    def nbytes(self) -> int:
        """Bytes that what is counted takes, without the room kept for more."""
        per_bag = 8 * self.spans + 2 * self.width + 8 + 4 + 16  # pointers, features, hash, labels, table
        return int(8 * self.pointers[-1] + per_bag * self.size + 16 * self._nodes)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy without the room that is kept for more."""
        part, size, nodes = copy.copy(self), self.size, self._nodes
        part._pointers, part._codes, part._counts = self.pointers.copy(), self.codes.copy(), self.counts.copy()
        part._dense, part._hashes, part._slots = (
            self._dense[:size].copy(),
            self._hashes[:size].copy(),
            self._slots.copy(),
        )
        part._heads, part._following = self._heads[:size].copy(), self._following[:nodes].copy()
        part._classes, part._label_counts = self._classes[:nodes].copy(), self._label_counts[:nodes].copy()
        return part

    def update(
        self, codes: Int32s, segments: Int32s, offsets: Int64s, labels: Int32s, dense: Halves | None = None,
        times: Int64s | None = None, rows: npt.NDArray[np.intp] | None = None,
    ) -> None:  # fmt: skip
        """Count n examples.

        codes: (groups, sites); segments: (sites,) in 0 .. regions - 1; offsets: of the sites of each example; labels:
        (n,) class indexes; dense: (n, d) float16; times: (n,), how often each example counts, once by default; rows:
        (n,) which examples of the offsets these are, all by default.
        """
        n = len(labels)
        if n == 0:
            return
        if dense is None:
            dense = np.empty((n, 0), np.float16)
        if times is None:
            times = np.ones(n, np.int64)
        if codes.shape[0] != self.groups or dense.shape != (n, self.width):
            raise UsageError(f"{codes.shape[0]} groups and {dense.shape} features do not fit these bags")
        starts, stops = offsets[:-1], offsets[1:]
        if rows is not None:
            starts, stops = starts[rows], stops[rows]
        bags = self._add(codes, segments, starts, stops, np.ascontiguousarray(dense).view(np.uint16))
        self._nodes = add_labels(
            bags,
            labels,
            times,
            self._heads,
            self._classes,
            self._label_counts,
            self._following,
            self._nodes,
        )
        self.rows += int(times.sum())
        self.examples += n

    def label_counts(self) -> tuple[Int64s, Int32s, Int64s]:
        """Labels as rows of a sparse matrix: pointers (size + 1,), classes, rising in each row, and counts (nodes,)."""
        pointers = np.zeros(self.size + 1, np.int64)
        classes, counts = np.empty(self._nodes, np.int32), np.empty(self._nodes, np.int64)
        list_labels(
            self._heads[: self.size], self._classes, self._label_counts, self._following, pointers, classes, counts
        )
        return pointers, classes, counts

    def label_rows(self, labels: int) -> Int64s:
        """(labels,) int64, at least: the rows of each label."""
        nodes = self._classes[: self._nodes], self._label_counts[: self._nodes]
        return np.bincount(*nodes, minlength=labels).astype(np.int64)

    def relabel(self, numbers: Int32s) -> None:
        """Rename the classes: class c becomes numbers[c]."""
        self._classes[: self._nodes] = numbers[self._classes[: self._nodes]]

    def weigh(self, weights: Int64s) -> None:
        """Forget the strata of labels told apart by `recency`, whose rows count weights (strata,) times each, from 1.

        They are no more examples than before.
        """
        pointers, labels, counts = self.label_counts()
        examples, owners = self.examples, np.repeat(np.arange(self.size), np.diff(pointers))
        self._set_labels(owners, labels // len(weights), counts * weights[labels % len(weights)])
        self.examples = examples

    def weights(self) -> Int64s:
        """(size,) int64: the rows each bag stands for."""
        pointers, _, counts = self.label_counts()
        return np.diff(np.concatenate([[0], np.cumsum(counts)])[pointers])

    def used(self, group: int, codes: int) -> npt.NDArray[np.bool_]:
        """(codes,) which of a group's codes occur."""
        marks = np.zeros(codes, np.bool_)
        mark_codes(self.pointers, self.codes, self.spans, group * self.regions, self.regions, marks)
        return marks

    def largest(self, group: int) -> int:
        """The largest code of a group, -1 if there is none."""
        span = np.repeat(np.arange(self.size * self.spans), np.diff(self.pointers))
        return int(self.codes[span // self.regions % max(self.groups, 1) == group].max(initial=-1))

    def split(self, classes: npt.NDArray[np.bool_]) -> Self:
        """Take the rows of some classes, those for which classes (all,) is true, out of here and into other bags."""
        pointers, labels, counts = self.label_counts()
        owners = np.repeat(np.arange(self.size), np.diff(pointers))
        taken = classes[labels]
        part = copy.deepcopy(self)
        for bags, nodes in ((part, taken), (self, ~taken)):
            chosen, owner = np.unique(owners[nodes], return_inverse=True)
            bags._keep(chosen)
            bags._set_labels(owner, labels[nodes], counts[nodes])
        return part

    def coarsen(self) -> None:
        """Make all segments of an example one region, in place. Bags that become equal stay apart."""
        pointers = np.empty(self.size * self.groups + 1, np.int64)
        join_regions(self.pointers, self._codes, self._counts, self.regions, pointers)
        self.regions, self._pointers = 1, pointers
        self._hashes[: self.size] = 0  # of the bags as they were: no longer looked up
        self._slots[:] = -1

    def sample(self, most: int, rng: np.random.Generator) -> Self:
        """At most `most` of the bags, drawn uniformly, with their labels."""
        if self.size <= most:
            return copy.deepcopy(self)
        part = copy.copy(self)  # whose arrays are made anew
        chosen = np.sort(rng.choice(self.size, most, replace=False))
        pointers, classes, counts = self.label_counts()
        lengths = np.diff(pointers)
        nodes = np.repeat(np.isin(np.arange(self.size), chosen), lengths)
        part._keep(chosen)
        part._set_labels(np.repeat(np.arange(most), lengths[chosen]), classes[nodes], counts[nodes])
        return part

    def merge_into(self, kept: Int64s, owners: Int64s) -> None:
        """Merge clusters of bags, in place: kept (c,) names the bag that stands for each; owners (size,) the cluster.

        The labels of all bags of a cluster are counted under the one that is kept.
        """
        kept, self.clustered = np.sort(kept), True
        place = np.empty(int(owners.max()) + 1, np.int64)
        place[owners[kept]] = np.arange(len(kept))
        pointers, classes, counts = self.label_counts()
        self._keep(kept)
        self._set_labels(np.repeat(place[owners], np.diff(pointers)), classes, counts)

    def _keep(self, chosen: Int64s) -> None:
        """Drop all bags but those chosen (rising). Labels are to be set anew."""
        self._pointers, self._codes, self._counts = select_bags(
            self.pointers, self._codes, self._counts, self.spans, chosen
        )
        self.size = len(chosen)
        self._dense, self._hashes = self._dense[chosen], self._hashes[chosen]
        self._slots = np.full(1 << (4 * self.size + 16).bit_length(), -1, np.int32)
        rehash(self._hashes, self.size, self._slots)

    def _set_labels(self, bags: Int64s, classes: Int32s, counts: Int64s) -> None:
        """Count label classes[i] counts[i] times under bags[i], and no others: examples that weigh as those before."""
        nodes = len(bags)
        self._heads = np.full(self.size, -1, np.int32)
        self._classes, self._following = np.empty(nodes, np.int32), np.empty(nodes, np.int32)
        self._label_counts = np.empty(nodes, np.int64)
        self._nodes = add_labels(
            bags.astype(np.int32), classes, counts, self._heads, self._classes, self._label_counts, self._following, 0
        )
        rows = int(counts.sum())
        self.rows, self.examples = rows, round(self.examples * rows / max(self.rows, 1))

    def merge(self, other: Self, codes: Sequence[Int32s]) -> None:
        """Add the bags of `other`. codes: per group, the code here of each of its codes. Exact, unless clustered."""
        if (other.groups, other.regions, other.width) != (self.groups, self.regions, self.width):
            raise UsageError("bags of different groups, regions or features do not merge: make both by `empty` of one")
        pointers, classes, counts = other.label_counts()
        sites = np.zeros(other.size, np.int64)
        if other.spans:
            sites = np.diff(
                np.concatenate([[0], np.cumsum(other.counts, dtype=np.int64)])[other.pointers[:: other.spans]]
            )
        for part in cuts(np.maximum(sites, _SITES // _STRETCH), _SITES):
            table, segments, offsets = other._examples(part, codes)
            bags = self._add(table, segments, offsets[:-1], offsets[1:], other._dense[part])
            nodes = slice(pointers[part.start], pointers[part.stop])
            owners = np.repeat(bags, np.diff(pointers[part.start : part.stop + 1]))
            self._reserve_labels(len(owners))
            self._nodes = add_labels(
                owners, classes[nodes], counts[nodes], self._heads, self._classes, self._label_counts, self._following,
                self._nodes,
            )  # fmt: skip
        self.rows += other.rows
        self.examples += other.examples
        self.clustered |= other.clustered

    def recounted(self, codes: Int32s, segments: Int32s, offsets: Int64s, regions: int) -> Self:
        """The same rows, of whose bag i the sites offsets[i] .. offsets[i + 1] have other codes (groups, sites)."""
        made = type(self)(self.groups, regions, self.width)
        if not self.size:
            return made
        bags = made._add(codes, segments, offsets[:-1], offsets[1:], self._dense[: self.size])
        pointers, classes, counts = self.label_counts()
        made._set_labels(np.repeat(bags, np.diff(pointers)), classes, counts)
        made.examples, made.clustered = self.examples, self.clustered
        return made

    def empty(self) -> Self:
        """Bags that merging leaves unchanged."""
        return type(self)(self.groups, self.regions, self.width)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state, for a file."""
        pointers, classes, counts = self.label_counts()
        shape = (self.groups, self.regions, self.width, self.size, self.rows, self.examples, self.clustered)
        return {
            "shape": np.array(shape, np.int64), "pointers": self.pointers, "codes": self.codes, "counts": self.counts,
            "dense": self._dense[: self.size], "hashes": self._hashes[: self.size], "label_pointers": pointers,
            "label_classes": classes, "label_counts": counts,
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The bags whose `arrays` these are. Raises ValueError or KeyError if they cannot be."""
        groups, regions, width, size, rows, examples, clustered = arrays["shape"].tolist()
        bags = cls(groups, regions, width)
        lengths = {"pointers": size * bags.spans + 1, "hashes": size, "label_pointers": size + 1}
        lengths |= {"codes": int(arrays["pointers"][-1]), "label_classes": int(arrays["label_pointers"][-1])}
        lengths |= {"counts": lengths["codes"], "label_counts": lengths["label_classes"]}
        if any(arrays[name].shape != (length,) for name, length in lengths.items()):
            raise ValueError("the arrays of the bags do not fit each other")
        for name in ("pointers", "label_pointers"):
            if arrays[name][0] != 0 or np.any(np.diff(arrays[name]) < 0):
                raise ValueError(f"the {name} of the bags fall")
        if arrays["dense"].shape != (size, width) or (lengths["codes"] and int(arrays["codes"].min()) < 0):
            raise ValueError("the features or codes of the bags are out of range")
        bags.size, bags.clustered = size, bool(clustered)
        bags._pointers, bags._codes = arrays["pointers"].astype(np.int64), arrays["codes"].astype(np.int32)
        bags._counts, bags._dense = arrays["counts"].astype(np.int32), arrays["dense"].astype(np.uint16)
        bags._hashes = arrays["hashes"].astype(np.uint64)
        bags._slots = np.full(1 << (4 * size + 16).bit_length(), -1, np.int32)
        rehash(bags._hashes, size, bags._slots)
        owners = np.repeat(np.arange(size), np.diff(arrays["label_pointers"]))
        bags._set_labels(owners, arrays["label_classes"].astype(np.int32), arrays["label_counts"].astype(np.int64))
        bags.examples = examples
        if bags.rows != rows or not 0 <= examples <= rows:
            raise ValueError("the label counts of the bags do not add up to their rows")
        return bags

    def _add(
        self, codes: Int32s, segments: Int32s, starts: Int64s, stops: Int64s, dense: npt.NDArray[np.uint16]
    ) -> Int32s:
        """The bag (n,) of each of n examples, new or known."""
        n = len(starts)
        self.reserve(n, self.groups * int((stops - starts).sum()))
        before, bags = self.size, np.empty(n, np.int32)
        self.size = add_examples(
            codes, segments, starts, stops, self.regions, dense, self._pointers, self._codes, self._counts, self._dense,
            self._hashes, self._slots, self.size, bags,
        )  # fmt: skip
        self._heads[before : self.size] = -1
        return bags

    def _examples(self, part: slice, codes: Sequence[Int32s]) -> tuple[Int32s, Int32s, Int64s]:
        """A stretch of the bags as examples again: codes (groups, sites), segments (sites,) and offsets."""
        bounds = self.pointers[part.start * self.spans : part.stop * self.spans + 1]
        entries = slice(bounds[0], bounds[-1])
        counts = self.counts[entries]
        span = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        group, segment = span // self.regions % max(self.groups, 1), span % self.regions
        rows = [group == number for number in range(self.groups)]
        table = [np.repeat(codes[g][self.codes[entries][own]], counts[own]) for g, own in enumerate(rows)]
        size = part.stop - part.start
        if not self.groups:
            return np.empty((0, 0), np.int32), np.empty(0, np.int32), np.zeros(size + 1, np.int64)
        segments = np.repeat(segment[rows[0]], counts[rows[0]]).astype(np.int32)
        lengths = np.bincount(span[rows[0]] // self.spans, counts[rows[0]], size).astype(np.int64)
        return np.stack(table).astype(np.int32), segments, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def reserve(self, examples: int, entries: int = 0) -> None:
        """Make room for more examples, each maybe a new bag with a new label, and more entries."""
        end = int(self.pointers[-1]) + entries
        self._codes, self._counts = _grown(self._codes, end), _grown(self._counts, end)
        bags = self.size + examples
        self._pointers = _grown(self._pointers, bags * self.spans + 1)
        self._dense, self._hashes, self._heads = (_grown(a, bags) for a in (self._dense, self._hashes, self._heads))
        self._reserve_labels(examples)
        if 2 * bags > len(self._slots):
            self._slots = np.full(1 << (4 * bags - 1).bit_length(), -1, np.int32)
            rehash(self._hashes, self.size, self._slots)

    def _reserve_labels(self, more: int) -> None:
        """Make room for more labels under bags."""
        nodes = self._nodes + more
        self._classes, self._label_counts, self._following = (
            _grown(a, nodes) for a in (self._classes, self._label_counts, self._following)
        )


def _grown(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """The array, or a copy with room for three times `size` rows: what is not written to takes no memory."""
    if len(array) >= size:
        return array
    grown = np.empty((3 * size, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
