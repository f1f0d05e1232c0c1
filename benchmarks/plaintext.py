"""What the peers' programs share: rows of plain text, scores, and the command line of a peer.

A peer is a module with `train(settings)` and `predict(settings)`, run as `python -m benchmarks.peer_NAME train|predict
FOLDER --ngrams 5 --seed 0 --threads 1`. FOLDER holds train.txt and test.txt; the model goes there too. `predict`
prints one line of JSON: Score.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Settings:
    """What a peer is told. ngrams: the longest; quantise: also make the small form, where a peer has one."""

    folder: Path
    ngrams: int
    seed: int
    threads: int
    quantise: bool


@dataclass(frozen=True)
class Score:
    """accuracy and macro-F1 as `seqbag evaluate` defines them; rows a CPU second, model loaded and rows in memory."""

    rows: int
    accuracy: float
    macro_f1: float
    rows_per_second: float


def read(file: Path) -> tuple[list[str], list[str]]:
    """Labels, and tokens with spaces between them."""
    labels, texts = [], []
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            label, _, text = line.rstrip("\n").partition(" ")
            labels.append(label)
            texts.append(text)
    return labels, texts


def scored(labels: Sequence[str], work: Callable[[], Sequence[str]]) -> Score:
    """Time `work`, which gives the predicted labels, and compare them. Labels never predicted nor true do not count;
    those unseen in training are one class of F1 0, as in seqbag.metrics."""
    start = time.process_time()
    predicted = np.array(work())
    seconds = time.process_time() - start
    return score(np.array(labels), predicted, len(labels) / max(seconds, 1e-9))


def score(true: np.ndarray, predicted: np.ndarray, rate: float) -> Score:
    names, numbers = np.unique(np.concatenate([true, predicted]), return_inverse=True)
    y, z = numbers[: len(true)], numbers[len(true) :]
    size = len(names)
    right = np.bincount(y[y == z], minlength=size)
    f1 = 2 * right / (np.bincount(y, minlength=size) + np.bincount(z, minlength=size))
    return Score(len(true), float((y == z).mean()), float(f1.mean()), rate)


def run(train: Callable[[Settings], None], predict: Callable[[Settings], Score]) -> None:
    """The command line of a peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["train", "predict"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ngrams", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quantise", action="store_true")
    args = vars(parser.parse_args())
    settings = Settings(**{name: value for name, value in args.items() if name != "verb"})
    if args["verb"] == "train":
        train(settings)
    else:
        print(json.dumps(asdict(predict(settings))))
