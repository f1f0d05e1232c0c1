"""fastText: 10 epochs, 64 dimensions, 2^20 buckets; --quantise prunes and quantises too (retrained, as its guide says).

fastText 0.9.3, the newest release of the package `fasttext`, trains badly on one thread: Matrix::uniform starts a tenth
of the matrix a thread, and so leaves nine tenths of the input matrix at nought. The build `fasttext-community` is the
one that the extra `bench` installs; `train` checks on the vectors of a model that was hardly trained that it is whole.
"""

from __future__ import annotations

import sys

import fasttext
import numpy as np

from benchmarks.plaintext import Score, Settings, read, run, scored

OPTIONS = {"epoch": 10, "dim": 64, "lr": 0.5, "bucket": 1 << 20}


def train(settings: Settings) -> None:
    file = str(settings.folder / "train.txt")
    more = OPTIONS | {"seed": settings.seed, "verbose": 0}
    model = fasttext.train_supervised(file, wordNgrams=settings.ngrams, thread=settings.threads, **more)
    if np.mean(~model.get_input_matrix().any(1)) > 0.5:
        sys.exit("this fastText starts most of its input matrix at nought on one thread: use fasttext-community")
    if settings.quantise:
        again = {"epoch": OPTIONS["epoch"], "lr": OPTIONS["lr"], "thread": settings.threads, "verbose": 0}
        model.quantize(file, qnorm=True, retrain=True, cutoff=100_000, **again)
    model.save_model(str(settings.folder / "model"))


def predict(settings: Settings) -> Score:
    model = fasttext.load_model(str(settings.folder / "model"))
    labels, texts = read(settings.folder / "test.txt")
    return scored(labels, lambda: [names[0] if names else "" for names in model.predict(texts)[0]])


if __name__ == "__main__":
    run(train, predict)
