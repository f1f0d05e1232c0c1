"""Where a training spends its time, by stage, from the stacks that a sampling profiler saw.

    pip install py-spy
    py-spy record --rate 100 --format raw --output stacks.txt -- python .venv/bin/seqbag train ... --threads 1
    python -m benchmarks.stages stacks.txt

A sample counts for the innermost of its frames that STAGES names; compiled kernels count for the function that calls
them. The profiler looks at all threads, and only while they run.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

WHOLE = (("_find_and_load", "start: imports"), ("load_overload", "start: kernels"), ("_compile_for", "start: kernels"))
STAGES = (
    ("seqbag_connectors/", "reading"),
    ("ClassIndex.", "reading"),
    ("seqbag/tokens.py", "tokenising"),
    ("seqbag/patches.py", "counting: windows"),
    ("seqbag/codebook.py", "counting: codebook"),
    ("Bags.label_counts", "head: choosing bags"),
    ("_Labels.", "head: choosing bags"),
    ("seqbag/bags.py", "counting: bags"),
    ("LayerCounts.", "counting: bags"),
    ("TokenFilters.forward", "head: filters forward"),
    ("TokenFilters.backward", "head: filters backward"),
    ("TokenFilters._", "head: filters backward"),
    ("VectorFilters.", "head: filters"),
    ("Head._forward", "head: gathering bags"),
    ("Head._backward", "head: filters backward"),
    ("seqbag/features.py", "head: pooled features"),
    ("Classifier.", "head: classifier"),
    ("seqbag/classifier.py", "head: classifier"),
    ("seqbag/optimiser.py", "head: optimiser"),
    ("seqbag/layer.py", "measuring: forward pass"),
    ("seqbag/network.py", "measuring: forward pass"),
    ("seqbag/metrics.py", "measuring: forward pass"),
    ("seqbag/store.py", "saving"),
    ("seqbag/checkpoint.py", "saving"),
)


def stage(stack: str) -> str:
    """The stage of a stack `outermost;...;innermost` of `function (file:line)`."""
    for part, name in WHOLE:
        if part in stack:
            return name
    for frame in reversed(stack.split(";")):
        for part, name in STAGES:
            if part in frame:
                return name
    return "other"


def stages(lines: Iterable[str]) -> Counter[str]:
    """Samples by stage, from lines of a stack, a space and a count."""
    counts: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        counts[stage(stack)] += int(count)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stacks", type=Path)
    with parser.parse_args().stacks.open() as lines:
        counts = stages(lines)
    total = sum(counts.values())
    for name, count in sorted(counts.items()):
        print(f"{name:28}{count / total:7.1%}")


if __name__ == "__main__":
    main()
