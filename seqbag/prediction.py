"""A trained net over a whole source: class probabilities batch by batch, and how good they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from seqbag.augment import mirrored
from seqbag.batch import Float32s, ImageColumn, Int32s, Rows, Source, TextColumn, TokensColumn
from seqbag.errors import UsageError
from seqbag.metrics import Metrics
from seqbag.network import Network
from seqbag.passes import complete
from seqbag.progress import Progress, Silent

BATCH_ROWS = 4096
_IMAGE_ROWS = 256
_UNSEEN_NAMES = 3  # unseen labels that are named


def predict(network: Network, source: Source, threads: int = 1, flips: bool = False) -> Iterator[tuple[Rows, Float32s]]:
    """Batches of the source in order, each with its class probabilities (n, classes) float32.

    flips: of images, the mean of the probabilities as they are and mirrored; raises UsageError for other inputs.

    One thread holds back nothing: a batch is answered before the next is read. More compute that many batches at once.
    """
    if flips and source.kind != "image":
        raise UsageError("only images can be mirrored: leave --flips out")

    def probabilities(column: TextColumn | TokensColumn | ImageColumn) -> Float32s:
        first = network.probabilities(column)
        if not flips or not isinstance(column, ImageColumn):
            return first
        return (first + network.probabilities(mirrored(column))) / np.float32(2)

    batches = source.batches(_IMAGE_ROWS if source.kind == "image" else BATCH_ROWS)
    if threads == 1:
        for rows in batches:
            yield rows, probabilities(rows.input)
        return
    pending: deque[tuple[Rows, Future[Float32s]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for rows in batches:
                pending.append((rows, pool.submit(probabilities, rows.input)))
                if len(pending) > threads:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass
class Evaluation:
    """Metrics over a source, and the first few labels of it that the net does not know."""

    metrics: Metrics
    unseen: list[str] = field(default_factory=list)


def evaluate(
    network: Network, source: Source, threads: int = 1, progress: Progress | None = None, flips: bool = False
) -> Evaluation:
    """Compare predictions with labels. Labels not seen in training count as wrong. Raises DataError for no label.

    flips: see `predict`.
    """
    progress = progress or Silent()
    evaluation = Evaluation(Metrics(network.classes))
    numbers = {name: number for number, name in enumerate(network.classes)}
    progress.begin("evaluating", source.rows, "rows")
    first = 0
    for rows, probabilities in predict(network, source, threads, flips):
        labels = _labels(rows, numbers, first, evaluation.unseen)
        evaluation.metrics.update(labels, probabilities)
        first += len(rows)
        progress.advance(len(rows), f"accuracy {evaluation.metrics.accuracy:.4f}")
    progress.end()
    return evaluation


def _labels(rows: Rows, numbers: dict[str, int], first_row: int, unseen: list[str]) -> Int32s:
    """Class numbers (n,), -1 for labels not seen in training, whose names are added to `unseen`."""
    labels = complete(rows.labels, first_row)
    new = [name for name in labels.names if name not in numbers and name not in unseen]
    unseen += new[: max(0, _UNSEEN_NAMES - len(unseen))]
    return np.array([numbers.get(name, -1) for name in labels.names], np.int32)[labels.codes]
