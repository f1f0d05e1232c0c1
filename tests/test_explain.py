"""What pulls towards a class, against the same sum done window by window."""

from __future__ import annotations

import numpy as np
import pytest

from seqbag.classifier import Classifier
from seqbag.config import TrainConfig
from seqbag.explain import decode, explain, pull
from seqbag.features import pooled_features
from seqbag.layer import Layer
from seqbag.network import Network
from seqbag.patches import Patcher
from seqbag.regions import Regions
from seqbag.store import Model


@pytest.fixture
def network() -> Network:
    """Two widths, three regions, three classes, eleven tokens; the second layer's 5 features do not move."""
    rng = np.random.default_rng(3)
    weights = tuple(rng.standard_normal((width * 4, filters), np.float32) for width, filters in ((1, 3), (3, 2)))
    biases = (rng.standard_normal(3, np.float32), rng.standard_normal(2, np.float32))
    patchers = (Patcher((1,), (1,), "same"), Patcher((3,), (1,), "same"))
    embedding = rng.standard_normal((13, 4), np.float32)
    layer = Layer(patchers, weights, biases, "relu", Regions.parse("tail:4,1"), embedding)
    classifier = Classifier(layer.features() + 5, 6, 3, rng)
    classifier.standardise(np.abs(rng.standard_normal(len(classifier.mean))), np.ones(len(classifier.mean)))
    lookup = np.arange(13, dtype=np.int32)
    return Network(TrainConfig(), ("a", "b", "c"), lookup, [layer], classifier)


@pytest.mark.parametrize(("group", "channels"), [(0, slice(0, 3)), (1, slice(3, 5))])
def test_pull_is_the_change_of_the_logits(network: Network, group: int, channels: slice) -> None:
    layer, classifier = network.layers[0], network.classifier
    assert classifier is not None
    windows = np.random.default_rng(1).integers(0, 13, (700, (1, 3)[group])).astype(np.int32)
    pulls = pull(network, group, windows)
    for i in (0, 511, 512, 699):
        sums = np.expm1(classifier.mean[:15]).reshape(1, 3, 5)
        assert layer.embedding is not None
        inputs = layer.embedding[windows[i]].reshape(-1)
        sums[:, :, channels] += np.maximum(inputs @ layer.weights[group] + layer.biases[group], 0)
        features = classifier.mean.copy()[None]
        features[:, :15] = pooled_features(sums, np.zeros((1, 3), np.float32))[:, :15]
        change = (classifier.logits(features) - classifier.logits(classifier.mean[None]))[0]
        np.testing.assert_allclose(pulls[i], change - change.mean(), atol=2e-5)


def test_fragments_are_sorted_apart_and_frequent(network: Network) -> None:
    windows = [np.arange(13, dtype=np.int32)[:, None], np.array([[0, 2, 3], [4, 5, 6], [7, 8, 0]], np.int32)]
    counts = [np.array([100] * 12 + [1]), np.array([50, 50, 50])]
    texts = [f"t{chr(97 + i)}" for i in range(11)]
    model = Model(network, {"kind": "text"}, {"rows": 1000}, texts, windows, counts)
    explanations = explain(model, 4)
    assert list(explanations) == ["a", "b", "c"]
    for explanation in explanations.values():
        for side, sign in ((explanation.towards, 1), (explanation.away, -1)):
            strengths = [fragment.pull * sign for fragment in side]
            assert strengths == sorted(strengths, reverse=True)
            assert all(strength > 0 for strength in strengths)
            shown = [fragment.text for fragment in side]
            assert not {"tk", "?", "^"} & set(shown)  # too rare, not a token of the training rows, padding
            assert not any(one in other for one in shown for other in shown if one is not other)


@pytest.mark.parametrize(
    ("window", "separator", "text"),
    [([0, 2, 3], " ", "^ aa bb"), ([2, 3, 0], "", "aabb$"), ([0, 2, 0], " ", "^ aa $"), ([1, 3], " ", "? bb")],
)
def test_decode(window: list[int], separator: str, text: str) -> None:
    assert decode(np.array(window, np.int32), ["aa", "bb"], separator) == text
