"""The stack of layers: features do not depend on what else is in a batch."""

import numpy as np
import pytest

from seqbag.batch import ImageColumn
from seqbag.classifier import Classifier
from seqbag.config import TrainConfig
from seqbag.errors import DataError
from seqbag.features import pooled_features
from seqbag.layer import Layer, Maps
from seqbag.network import Network
from seqbag.patches import Patcher
from tests.memory import text_column
from tests.test_layer import grid_layer, sequences_of, token_layer

CONFIG = TrainConfig(vocabulary=64)


def two_layers(activation="relu"):
    """A net over tokens: widths 1 and 3, then width 3 on their activations."""
    rng = np.random.default_rng(0)
    first = token_layer(activation, tails=(2,))
    weights = rng.standard_normal((3 * first.channels, 5), np.float32)
    second = Layer((Patcher((3,), (1,), "same"),), (weights,), (np.zeros(5, np.float32),), activation, first.regions)
    return Network(CONFIG, ("a", "b"), np.minimum(np.arange(64), 5).astype(np.int32), [first, second])


@pytest.mark.parametrize("activation", ["relu", "sign"])
def test_rows_together_are_rows_one_by_one(activation):
    network = two_layers(activation)
    rng = np.random.default_rng(0)
    maps = sequences_of([*rng.integers(0, 60, 400).tolist(), 0, 0])  # more sites than go through at once
    together, outputs = network.forward(maps)
    np.testing.assert_array_equal(network.features(maps), together)
    assert together.shape == (402, 2 * 9 + 2 * 6)
    assert len(outputs.values) == maps.offsets[-1]
    for row in [*range(20), 400, 401]:
        alone, output = network.forward(maps.part(row, row + 1))
        np.testing.assert_array_equal(alone[0, :18], together[row, :18])  # look-ups: the same to the bit
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(
            output.values, outputs.values[maps.offsets[row] : maps.offsets[row + 1]], rtol=1e-4, atol=1e-4
        )


def test_features_of_all_layers_stand_side_by_side():
    network, maps = two_layers(), sequences_of([4, 0, 3])
    first, second = network.layers
    middle = first.forward(maps)
    expected = [pooled_features(*first.pool(middle)), pooled_features(*second.pool(second.forward(middle)))]
    np.testing.assert_array_equal(network.features(maps), np.concatenate(expected, axis=1).astype(np.float16))


def test_no_rows():
    network, empty = two_layers(), Maps(np.empty(0, np.int32), np.zeros(1, np.int64))
    assert network.features(empty).shape == (0, 30)
    features, outputs = network.forward(empty)
    assert features.shape == (0, 30)
    assert len(outputs) == 0


def test_images_and_video_through_two_layers():
    for grid, window in (((6, 6), (3, 3)), ((4, 4, 4), (3, 3, 3))):
        ones = (1,) * len(grid)
        layers = [grid_layer(window, 3, ones, regions="grid:2"), grid_layer(window, 5, (2,) * len(grid))]
        pixels = np.random.default_rng(0).integers(0, 256, (3, *grid, 3), np.uint8)
        network = Network(CONFIG, ("a", "b"), None, layers)
        maps = network.encode(ImageColumn(pixels))
        assert maps.grid == grid
        features = network.features(maps)
        assert features.shape == (3, 2 ** len(grid) * 6 + 6)
        for i in range(3):
            alone = network.features(network.encode(ImageColumn(pixels[i : i + 1])))
            np.testing.assert_allclose(alone[0], features[i], rtol=2e-3, atol=1e-3)
        assert network.features(network.encode(ImageColumn(pixels[:0]))).shape == (0, features.shape[1])


def test_probabilities():
    network = two_layers()
    network.classifier = Classifier(30, 4, 2, np.random.default_rng(0))
    network.classifier.standardise(np.zeros(30), np.ones(30))
    column = text_column(["session opened for user", "", "session closed"])
    assert network.encode(column).values.max() <= 5
    probabilities = network.probabilities(column)
    assert probabilities.shape == (3, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (network.logits(column).argmax(1) == probabilities.argmax(1)).all()


def test_text_for_a_model_of_images():
    with pytest.raises(DataError) as error:
        Network(CONFIG, ("a", "b"), None).encode(text_column(["x"]))
    assert str(error.value) == "the model was trained on images and the source holds text: name an image column"
