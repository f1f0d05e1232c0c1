"""What a vote's hidden units read is all that is kept of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from seqbag import packed
from seqbag.classifier import Classifier
from seqbag.quantise import Kind, quantise
from seqbag.spans import narrowed, widened
from seqbag.store import Arrays, Model, load, narrow, save, widen
from tests.nets import image_network


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=5), st.sampled_from(["f4", "i1"])
)
def test_weights_come_back_as_they_were(ends: list[tuple[int, int]], dtype: str) -> None:
    weights = np.zeros((40, len(ends)), dtype)
    for unit, (first, after) in enumerate(ends):
        weights[first:after, unit] = 1 + unit
    kept, spans = narrowed(weights)
    if spans is None:
        assert kept is weights
        assert (weights == 0).sum() * weights.itemsize <= 8 * len(ends)
        return
    assert kept.dtype == dtype
    assert len(kept) == (weights != 0).sum()
    assert kept.nbytes + spans.nbytes < weights.nbytes
    assert spans.tolist() == [[a, b] if a < b else [0, 0] for a, b in ends]
    np.testing.assert_array_equal(widened(kept, spans, 40), weights)


@pytest.mark.parametrize(
    ("entries", "spans", "message"),
    [
        (2, [[0, 4]], "the hidden units have (2,) weights and not 4"),
        (5, [[0, 5]], "the spans of the hidden units do not fit the features"),
        (1, [[-1, 0]], "the spans of the hidden units do not fit the features"),
        (1, [[0, 1, 2]], "the spans of the hidden units do not fit the features"),
    ],
)
def test_spans_that_do_not_fit(entries: int, spans: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        widened(np.ones(entries, np.float32), np.array(spans, np.int32), 4)


def test_files_without_hidden_units_stay_as_they_are() -> None:
    arrays: Arrays = {"classifier.out": np.ones((3, 2), np.float32)}
    narrow(arrays)
    widen(arrays, 3, 0)
    assert list(arrays) == ["classifier.out"]


@pytest.fixture
def voting() -> Model:
    """A net of signs whose two layers vote, each by four units on its own half of the features."""
    rng = np.random.default_rng(0)
    network = replace(image_network(hidden=8), shape=(8, 8, 3))
    assert network.classifier is not None
    half = network.classifier.features // 2
    old, network.classifier = (
        network.classifier,
        Classifier.voting(2 * half, [(Classifier(half, 4, 2, rng), 0, 1), (Classifier(half, 4, 2, rng), half, 1)]),
    )
    network.classifier.standardise(old.mean.astype(np.float64), old.variance.astype(np.float64))
    return Model(network, {"kind": "image", "input": "img", "label": "label"}, {})


def test_a_vote_is_kept_in_a_file_without_what_is_nought(tmp_path: Path, voting: Model) -> None:
    assert voting.network.classifier is not None
    hidden = voting.network.classifier.parameters["hidden"]
    half = len(hidden) // 2
    save(voting, tmp_path / "model")
    arrays = load_file(tmp_path / "model")
    assert arrays["classifier.hidden"].shape == (8 * half,)
    assert arrays["classifier.spans"].tolist() == [[0, half]] * 4 + [[half, 2 * half]] * 4
    again = load(tmp_path / "model").network.classifier
    assert again is not None
    np.testing.assert_array_equal(again.parameters["hidden"], hidden)


def test_a_packed_vote_too(tmp_path: Path, voting: Model) -> None:
    kind = Kind("ternary", "sign")
    voting.network = quantise(voting.network, kind, [], [])
    content = packed.to_bytes(voting, kind)
    (tmp_path / "packed").write_bytes(content)
    again = packed.load(tmp_path / "packed")
    assert packed.to_bytes(again, kind) == content
    assert voting.network.classifier is not None
    assert again.network.classifier is not None
    hidden = voting.network.classifier.parameters["hidden"]
    assert load_file(tmp_path / "packed")["classifier.hidden"].shape == (hidden.size // 2,)
    np.testing.assert_allclose(again.network.classifier.parameters["hidden"], hidden, atol=0.02)
