"""Training end to end on rows in memory."""

import math

import numpy as np
import pytest

from seqbag.config import TrainConfig
from seqbag.errors import DataError
from seqbag.fitting import MOST_CONFUSED
from seqbag.metrics import Metrics
from seqbag.passes import hold_out
from seqbag.store import to_bytes
from seqbag.trainer import train
from tests.memory import MemorySource, text_column, tokens_column

COLUMNS = {"kind": "text", "input": "message", "label": "label"}
SMALL = TrainConfig(vocabulary=1024, dims=8, filters=(8,), hidden=16, epochs=8, regions="whole", valid_fraction=0.2)


def text_rows(n=600, seed=0):
    """Lines of three systems, told apart by one word that some share and by the order of two."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for i in range(n):
        user, system = int(rng.integers(20)), int(rng.integers(3))
        verb = ("opened then closed", "closed then opened", "failed for")[system]
        texts.append(f"session {i % 20} {verb} user u{'abcdefghijklmnopqrst'[user]} on host")
        labels.append(("auth", "cron", "disk")[system])
    texts[5] = ""
    return texts, labels


def token_rows(n=600, seed=0):
    """Sequences whose last event decides the class: what a bag of the whole cannot see."""
    rng = np.random.default_rng(seed)
    lists = [[f"e{t}" for t in rng.integers(0, 6, rng.integers(1, 12))] for _ in range(n)]
    return lists, ["odd" if int(tokens[-1][1]) % 2 else "even" for tokens in lists]


def trained(kind, rows, config=SMALL, **options):
    return train(MemorySource(kind, rows, **options), config)


def held_out_accuracy(result, kind, rows, config):
    """Of the net as it predicts, on the rows held out."""
    inputs, labels = rows
    held = np.flatnonzero(hold_out(0, len(inputs), config.valid_fraction, config.seed))
    make = text_column if kind == "text" else tokens_column
    metrics = Metrics(result.network.classes)
    numbers = [result.network.classes.index(labels[i]) for i in held]
    metrics.update(np.array(numbers, np.int32), result.network.probabilities(make([inputs[i] for i in held])))
    return metrics.accuracy, len(held)


def check_trained(result, kind, rows, config, least):
    real, held = held_out_accuracy(result, kind, rows, config)
    assert result.rows == len(rows[0])
    assert len(result.layers) == config.layers == len(result.network.layers)
    assert result.valid_accuracy == result.layers[-1].valid_accuracy
    assert abs(result.valid_accuracy - real) <= 1 / held, "half precision may tip a row"
    assert real > least


@pytest.mark.parametrize("layers", [1, 2])
def test_text(layers):
    rows = text_rows()
    config = TrainConfig(**{**SMALL.to_json(), "layers": layers, "codebook": 300})
    result = trained("text", rows, config)
    assert result.network.classes == ("auth", "cron", "disk")
    check_trained(result, "text", rows, config, 0.95)
    first = result.layers[0]
    assert first.codebook == 2 * 300
    assert first.patches == sum(int(counts.sum()) for counts in result.window_counts)
    assert 0 < first.distinct <= first.codebook
    assert all(layer.seconds > 0 for layer in result.layers)


@pytest.mark.parametrize("layers", [1, 2])
def test_tokens_choose_regions_that_see_the_end(layers):
    rows = token_rows()
    config = TrainConfig(**{**SMALL.to_json(), "layers": layers, "regions": None, "epochs": 12})
    result = trained("tokens", rows, config)
    check_trained(result, "tokens", rows, config, 0.95)
    assert str(result.network.layers[0].regions) == "tail:8,2,1"


@pytest.mark.parametrize("layers", [1, 2])
def test_lengths_that_do_not_vary(layers):
    lists, _ = token_rows()
    lists = [(tokens * 57)[:57] for tokens in lists]
    rows = lists, ["odd" if int(tokens[-1][1]) % 2 else "even" for tokens in lists]
    config = TrainConfig(**{**SMALL.to_json(), "layers": layers, "codebook": 2000})
    check_trained(trained("tokens", rows, config), "tokens", rows, config, 0.5)


def model_bytes(result):
    """The model file but for the seconds it took."""
    model = result.model(COLUMNS)
    model.report = {}
    return to_bytes(model)


@pytest.mark.parametrize(("kind", "rows"), [("text", text_rows(300)), ("tokens", token_rows(300))])
def test_the_seed_decides_every_byte(kind, rows):
    def config(seed):
        return TrainConfig(**{**SMALL.to_json(), "layers": 2, "regions": None, "codebook": 100, "seed": seed})

    first = model_bytes(trained(kind, rows, config(0)))
    assert model_bytes(trained(kind, rows, config(0))) == first
    assert model_bytes(trained(kind, rows, config(1))) != first


def test_batches_and_threads_do_not_matter():
    rows = text_rows(300)
    first = model_bytes(trained("text", rows))
    assert model_bytes(trained("text", rows, most=37)) == first
    threaded = model_bytes(trained("text", rows, TrainConfig(**{**SMALL.to_json(), "threads": 2})))
    assert threaded.replace(b'\\"threads\\": 2', b'\\"threads\\": 1') == first


def test_the_proxy_of_an_exact_layer_is_the_truth():
    for rows, kind in ((text_rows(), "text"), (token_rows(), "tokens")):
        for regions in ("whole", "tail:4,1"):
            config = TrainConfig(**{**SMALL.to_json(), "regions": regions, "epochs": 1})
            result = trained(kind, rows, config)
            (layer,) = result.layers
            assert 0.2 < layer.valid_accuracy < 1
            assert layer.proxy_accuracy == layer.valid_accuracy == result.valid_accuracy
            real, held = held_out_accuracy(result, kind, rows, config)
            assert abs(layer.valid_accuracy - real) <= 1 / held, "half precision may tip a row"
            assert result.confusion.sum() == held


def test_nothing_held_out():
    config = TrainConfig(**{**SMALL.to_json(), "valid_fraction": 0.0, "regions": None})
    for kind, rows in (("text", text_rows(200)), ("tokens", token_rows(200))):
        result = trained(kind, rows, config)
        assert math.isnan(result.valid_accuracy)
        assert math.isnan(result.layers[0].proxy_accuracy)
        report = result.report()
        assert report["valid_accuracy"] is None
        assert report["layers"][0]["proxy_accuracy"] is None
        assert report["rows"] == 200


def message(source, config=SMALL):
    with pytest.raises(DataError) as error:
        train(source, config)
    return str(error.value)


def test_data_that_cannot_be_trained_on():
    texts, labels = text_rows(50)
    one = MemorySource("text", (texts, ["auth"] * 50))
    assert message(one) == "the label column holds only 'auth': training needs rows of two classes or more"
    for kind, value in (("text", ""), ("tokens", [])):
        empty = MemorySource(kind, ([value] * 50, labels))
        assert message(empty) == "rows in memory: every row is empty, there is nothing to learn from"
    assert message(MemorySource("text", ([], []))) == "rows in memory has no rows: there is nothing to read"
    missing = MemorySource("text", (texts, [None, *labels[1:]]))
    assert message(missing) == (
        'row 1 has no label (1 in this batch): leave such rows out with --where "LABEL IS NOT NULL"'
    )


def test_data_that_changes_between_passes():
    texts, labels = text_rows(50)
    changed = "rows in memory changed between passes: train again on data that stays as it is"
    twice = TrainConfig(**{**SMALL.to_json(), "layers": 2})
    relabelled = MemorySource("text", (texts, labels), (texts, ["new", *labels[1:]]))
    assert message(relabelled, twice) == changed
    for rows in (49, 20):
        shorter = MemorySource("text", (texts, labels), (texts[:rows], labels[:rows]))
        assert message(shorter, twice) == changed

    class Restamped(MemorySource):
        @property
        def fingerprint(self):
            return str(self._read)

    assert message(Restamped("text", (texts, labels))) == changed
    longer = MemorySource("text", (texts, labels), (texts * 2, labels * 2))
    assert message(longer, twice) == changed


def test_no_rows_left_to_train_on():
    config = TrainConfig(**{**SMALL.to_json(), "valid_fraction": 0.999})
    texts, labels = text_rows(20)
    assert message(MemorySource("text", (texts, labels)), config) == (
        "all 20 rows are held out: give a smaller --valid-fraction"
    )


def test_one_row_of_each_class():
    config = TrainConfig(**{**SMALL.to_json(), "valid_fraction": 0.0, "layers": 2})
    result = trained("text", (["a b", "c"], ["x", "y"]), config)
    assert result.network.classes == ("x", "y")
    assert np.isfinite(result.network.logits(text_column(["a b", "", "d"]))).all()


@pytest.mark.parametrize(("classes", "kept"), [(MOST_CONFUSED, True), (MOST_CONFUSED + 1, False)])
def test_confusion_is_kept_of_few_classes(classes, kept):
    rows = [f"{chr(97 + c % 26)} {chr(97 + c // 26)}" for c in range(classes)] * 12, list(range(classes)) * 12
    rows = rows[0], [f"c{c:03}" for c in rows[1]]
    config = TrainConfig(**{**SMALL.to_json(), "epochs": 20})
    result = trained("text", rows, config)
    assert result.confusion.shape == ((classes, classes) if kept else (0, 0))
    assert ("confusion" in result.model(COLUMNS).report) == kept
    check_trained(result, "text", rows, config, 0.5)
