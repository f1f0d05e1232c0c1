"""What a vote's hidden units do not read is neither multiplied nor kept."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from seqbag import packed
from seqbag.batch import ImageColumn
from seqbag.classifier import Classifier
from seqbag.errors import ModelError
from seqbag.filters import Gradients
from seqbag.quantise import Kind, quantise
from seqbag.spans import joined, narrowed, runs_of, spans_of, widened
from seqbag.store import Model, load, read_tensors, save
from tests import naive
from tests.nets import image_network, vote_of


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=5), st.sampled_from(["f4", "i1"]))
def test_weights_come_back_as_they_were(ends: list[tuple[int, int]], dtype: str) -> None:
    spans = np.sort(np.array(ends, np.int32), axis=1)
    weights = np.zeros((6, len(ends)), dtype)
    for unit, (first, after) in enumerate(spans):
        weights[first:after, unit] = np.arange(after - first) + unit
    kept = narrowed(weights, spans)
    assert kept.dtype == dtype
    assert kept.tolist() == [value for unit, (a, b) in enumerate(spans) for value in weights[a:b, unit].tolist()]
    np.testing.assert_array_equal(widened(kept, spans, 6), weights)
    runs = runs_of(spans)
    np.testing.assert_array_equal(spans_of(runs), spans)
    assert all(a[0] != b[0] for a, b in pairwise(runs))
    assert (
        joined(
            [part for read, units in runs for part in ((read, slice(u, u + 1)) for u in range(units.start, units.stop))]
        )
        == runs
    )


@pytest.mark.parametrize(
    ("entries", "spans", "message"),
    [
        (2, [[0, 4]], "the hidden units have (2,) weights and not 4"),
        (5, [[0, 5]], "the spans of the hidden units do not fit the features"),
        (1, [[-1, 0]], "the spans of the hidden units do not fit the features"),
        (0, [[2, 1]], "the spans of the hidden units do not fit the features"),
    ],
)
def test_spans_that_do_not_fit(entries: int, spans: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        widened(np.ones(entries, np.float32), np.array(spans, np.int32), 4)
    assert str(error.value) == message


def test_runs_of_a_vote_go_together_and_through_another_one() -> None:
    rng = np.random.default_rng(0)
    made = vote_of(rng, 3)
    assert made.runs == [(slice(0, 3), slice(0, 4)), (slice(3, 6), slice(4, 11)), (slice(0, 6), slice(11, 13))]
    above = Classifier.voting(8, [(made, 2, 4), (Classifier(8, 2, 2, rng), 0, 1)])
    assert above.runs[1] == (slice(5, 8), slice(4, 11))
    assert above.runs[3] == (slice(0, 8), slice(13, 15))


def test_a_vote_learns_as_one_whose_weights_are_all_multiplied_but_for_those_that_are_nought() -> None:
    rng = np.random.default_rng(1)
    made = vote_of(rng, 5)
    features, weights = rng.standard_normal((20, 10), np.float32), np.ones(20, np.float32)
    logits, tape = made.training_pass(features, weights)
    wide = {name: value.astype(np.float64) for name, value in made.parameters.items()}
    standard = naive.standardised(features.astype(np.float64))
    np.testing.assert_allclose(logits, naive.head_logits(wide, standard), rtol=1e-3, atol=1e-3)
    gradient, into = rng.standard_normal(logits.shape, np.float32), Gradients()
    of_inputs = made.features_gradient(made.backward(gradient.copy(), tape, into), tape)
    runs, made.runs = made.runs, [(slice(0, 10), slice(0, made.hidden))]
    whole = Gradients()
    of_all = made.features_gradient(made.backward(gradient.copy(), tape, whole), tape)
    np.testing.assert_allclose(of_inputs, of_all, rtol=1e-3, atol=1e-4)
    mask = np.zeros_like(made.parameters["hidden"])
    for read, units in runs:
        mask[read, units] = 1
    np.testing.assert_allclose(into.values["hidden"], whole.values["hidden"] * mask, rtol=1e-4, atol=1e-5)


@pytest.fixture
def voting() -> Model:
    """A net of signs, whose classifier is a vote."""
    network = replace(image_network(hidden=13), shape=(8, 8, 3))
    assert network.classifier is not None
    network.classifier = vote_of(np.random.default_rng(0), network.classifier.features // 2)
    return Model(network, {"kind": "image", "input": "img", "label": "label"}, {})


def test_a_vote_is_kept_in_a_file_without_what_is_nought(tmp_path: Path, voting: Model) -> None:
    classifier = voting.network.classifier
    assert classifier is not None
    save(voting, tmp_path / "model")
    arrays, half = load_file(tmp_path / "model"), classifier.features // 2
    assert arrays["classifier.hidden"].shape == (11 * half + 2 * 2 * half,)
    assert arrays["classifier.spans"].tolist() == [[0, half]] * 4 + [[half, 2 * half]] * 7 + [[0, 2 * half]] * 2
    again = load(tmp_path / "model").network.classifier
    assert again is not None
    assert again.runs == classifier.runs
    np.testing.assert_array_equal(again.parameters["hidden"], classifier.parameters["hidden"])


def test_a_packed_vote_too(tmp_path: Path, voting: Model) -> None:
    kind = Kind("ternary", "sign")
    voting.network = quantise(voting.network, kind, [], [])
    content = packed.to_bytes(voting, kind)
    (tmp_path / "packed").write_bytes(content)
    again = packed.load(tmp_path / "packed")
    assert packed.to_bytes(again, kind) == content
    classifier, read = voting.network.classifier, again.network.classifier
    assert classifier is not None
    assert read is not None
    assert read.runs == classifier.runs
    np.testing.assert_allclose(read.parameters["hidden"], classifier.parameters["hidden"], atol=0.02)
    column = ImageColumn(np.random.default_rng(2).integers(0, 256, (9, 8, 8, 3)).astype(np.uint8))
    np.testing.assert_allclose(again.network.logits(column), voting.network.logits(column), atol=0.1)


def refusal(place: Path, model: Model, change: Callable[[dict[str, Any]], None]) -> str:
    """What is said of the model's file once its description is changed."""
    save(model, place)
    description, arrays = read_tensors(place)
    change(description)
    save_file(arrays, place, {"seqbag": json.dumps(description)})
    with pytest.raises(ModelError) as error:
        load(place)
    return str(error.value)


@pytest.mark.parametrize("pooling", [[0, 1], [1], [2, 2**16], [10**20, 1]])
def test_a_pooling_that_no_index_can_count_is_refused(tmp_path: Path, voting: Model, pooling: list[int]) -> None:
    place = tmp_path / "model"
    text = refusal(place, voting, lambda description: description["layers"][1].update(pooling=pooling))
    cause = "ValueError: the pooling of layer 2 does not fit its windows"
    assert text == f"{place} is damaged ({cause}): restore it or train again"


@pytest.mark.parametrize("shape", [[-8, 8, 3], [8, 3], [8, 8, 8, 3], [0, 8, 3], [10**20, 8, 3]])
def test_images_of_no_shape_are_refused(tmp_path: Path, voting: Model, shape: list[int]) -> None:
    place = tmp_path / "model"
    text = refusal(place, voting, lambda description: description.update(shape=shape))
    cause = f"ValueError: images of the shape {tuple(shape)} do not fit the layers"
    assert text == f"{place} is damaged ({cause}): restore it or train again"
