"""What a checkpoint of a run holds, and how a run is taken up from one, to end with the model it would have had."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from seqbag.checkpoint import Checkpoint, State, prefixed, under
from seqbag.passes import LayerCounts
from seqbag.store import load, to_bytes
from seqbag.tokens import Vocabulary
from seqbag.trained import LayerReport

if TYPE_CHECKING:
    from seqbag.trainer import Trainer


def state(run: Trainer, checkpoint: Checkpoint, number: int, done: int = 0, counts: LayerCounts | None = None) -> State:
    """All that pass `number` starts from, and what it has counted in its first `done` rows."""
    network = None
    if run.network.layers and run.network.classifier is not None:
        columns = {"kind": run.source.kind, "input": "", "label": ""}
        network = checkpoint.write_network(number, to_bytes(run.trained.model(columns)))
    values = {
        "pass": number, "done": done, "rows": run.rows, "exact": run.exact, "counting": counts is not None,
        "spilled": counts.spill.state() if counts is not None and counts.spill is not None else [],
        "numbers": list(run.index.numbers), "rng": run.rng.bit_generator.state,
        "rare": np.flatnonzero(run.rare).tolist(), "times": run.times.tolist(),
        "reports": [asdict(report) for report in run.reports], "network": network,
    }  # fmt: skip
    arrays = prefixed("vocabulary", run.vocabulary.arrays()) | prefixed("sample", run.sample.arrays())
    arrays["confusion"] = run.fitter.confusion
    for group, windows in enumerate(run.trained.windows):
        arrays |= {f"windows.{group}": windows, f"window_counts.{group}": run.trained.window_counts[group]}
    return values, arrays | (prefixed("counts", counts.arrays()) if counts is not None else {})


def take_up(run: Trainer) -> int:
    """Take up the state that the run's checkpoint found, if any. Returns the pass to go on with."""
    if run.resumed is None or run.checkpoint is None:
        return 0
    with run.checkpoint.restoring():
        values, arrays = run.resumed
        run.rows, run.exact = values["rows"], values["exact"]
        run.index.numbers = {name: number for number, name in enumerate(values["numbers"])}
        run.rng.bit_generator.state, run.fitter.confusion = values["rng"], arrays["confusion"]
        run.reports += [LayerReport(**report) for report in values["reports"]]
        run.vocabulary = run.trained.vocabulary = Vocabulary.from_arrays(under("vocabulary", arrays))
        if run.shard is not None:
            run.shard.vocabulary = run.vocabulary
        run.sample.restore(under("sample", arrays))
        if run.reports:
            network = load(run.checkpoint.read_network(values["pass"], values["network"])).network
            for name in ("classes", "layers", "classifier", "lookup", "shape"):
                setattr(run.network, name, getattr(network, name))
            chosen = {name: getattr(network.config, name) for name in ("recency", "last")}
            run.network.config = replace(run.config, **chosen)
            run.times = np.array(values["times"], np.int64)
            run.rare = np.isin(np.arange(len(network.classes)), values["rare"])
            groups = sum(name.startswith("windows.") for name in arrays)
            run.trained.windows = [arrays[f"windows.{group}"] for group in range(groups)]
            run.trained.window_counts = [arrays[f"window_counts.{group}"] for group in range(groups)]
        run.progress.note(f"resumed at pass {values['pass'] + 1}, row {values['done']:,}")
        return int(values["pass"])


def take_up_counts(run: Trainer, number: int, counts: LayerCounts) -> int:
    """Take up what pass `number` had counted when it was interrupted. Returns the rows it had counted."""
    if run.resumed is None or run.resumed[0]["pass"] != number or not run.resumed[0]["counting"]:
        return 0
    values, arrays = run.resumed
    assert run.checkpoint is not None
    with run.checkpoint.restoring():
        counts.restore(under("counts", arrays), run.rng)
        if counts.spill is not None:
            counts.spill.restore(values["spilled"])
    run.rng.bit_generator.state = values["rng"]  # what made the codebooks has drawn from it meanwhile
    run.resumed = run.checkpoint.state = None
    return int(values["done"])
