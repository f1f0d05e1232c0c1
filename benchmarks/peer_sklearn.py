"""scikit-learn: hashed n-grams, tf-idf, a linear model by stochastic gradient descent (log loss, L2)."""

from __future__ import annotations

import joblib
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline

from benchmarks.plaintext import Score, Settings, read, run, scored


def train(settings: Settings) -> None:
    labels, texts = read(settings.folder / "train.txt")
    model = make_pipeline(
        HashingVectorizer(
            token_pattern=r"\S+", ngram_range=(1, settings.ngrams), n_features=1 << 20, alternate_sign=False, norm=None
        ),
        TfidfTransformer(sublinear_tf=True),
        SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=20, random_state=settings.seed, n_jobs=settings.threads),
    )
    joblib.dump(model.fit(texts, labels), settings.folder / "model")


def predict(settings: Settings) -> Score:
    model = joblib.load(settings.folder / "model")
    labels, texts = read(settings.folder / "test.txt")
    return scored(labels, lambda: model.predict(texts))


if __name__ == "__main__":
    run(train, predict)
