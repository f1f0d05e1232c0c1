"""Packed models: the way there and back, the bytes as documented, and files that are damaged or lie."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag import packed
from seqbag.batch import ImageColumn
from seqbag.errors import ModelError
from seqbag.packed import KEY, load, pack_bits, to_bytes
from seqbag.patches import Patcher
from seqbag.quantise import Kind, quantise
from seqbag.store import Model
from tests.memory import text_column
from tests.nets import classifier_of, image_network, layer_of, token_network

COLUMNS = {"kind": "text", "input": "message", "label": "label"}
LINES = ["", "a", "hello world", "zq", "caé", "x" * 300]
PIXELS = np.random.default_rng(5).integers(0, 256, (3, 6, 7, 3)).astype(np.uint8)
SIGNS = [Kind("ternary", "sign"), Kind("binary", "sign")]
KINDS = [*SIGNS, Kind("float", "sign"), Kind("ternary", "float"), Kind("binary", "float"), Kind("float", "float")]


def model_of(network, kind="text"):
    return Model(network, COLUMNS | {"kind": kind}, {"rows": 7})


def read(path, data):
    path.write_bytes(data)
    return load(path)


def parts(data):
    """The description and the arrays of a file."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    return json.loads(header["__metadata__"][KEY]), safetensors.numpy.load(data)


def joined(description, arrays):
    return safetensors.numpy.save(arrays, {KEY: json.dumps(description)})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("packed") / "packed.seqbag"


@pytest.fixture(scope="module")
def data():
    return to_bytes(model_of(quantise(token_network(), SIGNS[0])), SIGNS[0])


@pytest.fixture(scope="module")
def image_data():
    network = dataclasses.replace(quantise(image_network(pooling=(2, 2)), SIGNS[0]), shape=PIXELS.shape[1:])
    return to_bytes(model_of(network, "image"), SIGNS[0])


@pytest.mark.parametrize(("kind", "signs"), [*((kind, 1) for kind in KINDS), *((kind, 2) for kind in KINDS[:3])])
def test_a_packed_net_gives_what_the_quantised_net_gave(place, kind, signs):
    network = token_network(signs=signs)
    if kind.activations == "float":
        layers = [dataclasses.replace(layer, activation="relu") for layer in network.layers]
        config = dataclasses.replace(network.config, activation="relu")
        network = dataclasses.replace(network, layers=layers, config=config)
    network = quantise(network, kind)
    loaded = read(place, to_bytes(model_of(network), kind))
    assert loaded.network.classes == network.classes
    assert (loaded.columns, loaded.report) == (COLUMNS, {"rows": 7})
    maps = network.encode(text_column(LINES))
    np.testing.assert_array_equal(
        loaded.network.features(loaded.network.encode(text_column(LINES))), network.features(maps)
    )
    np.testing.assert_allclose(loaded.network.logits(text_column(LINES)), network.logits(text_column(LINES)), atol=0.3)


@pytest.mark.parametrize("kind", [*SIGNS, Kind("float", "sign")])
@pytest.mark.parametrize(
    ("hidden", "groups", "readout", "signs"), [(0, 1, 0, 1), (4, 2, 0, 1), (4, 1, 7, 1), (4, 2, 7, 2)]
)
def test_nets_over_pixels_come_back_whole(place, kind, hidden, groups, readout, signs):
    made = image_network(hidden=hidden, pooling=(2, 2), groups=groups, readout=readout, signs=signs)
    network = dataclasses.replace(quantise(made, kind), shape=PIXELS.shape[1:])
    loaded = read(place, to_bytes(model_of(network, "image"), kind))
    column = ImageColumn(PIXELS)
    np.testing.assert_array_equal(
        loaded.network.features(loaded.network.encode(column)), network.features(network.encode(column))
    )
    assert (loaded.network.engine is None) == (kind.weights == "float")


@pytest.mark.parametrize("weights", ["ternary", "binary", "float"])
def test_projections_are_kept(place, weights):
    kind = Kind(weights, "float")
    network = relu_network()
    network = dataclasses.replace(quantise(network, kind), shape=PIXELS.shape[1:])
    loaded = read(place, to_bytes(model_of(network, "image"), kind))
    column = ImageColumn(PIXELS)
    np.testing.assert_array_equal(
        loaded.network.features(loaded.network.encode(column)), network.features(network.encode(column))
    )


def relu_network():
    network = image_network(pooling=(2, 2), project=3)
    layers = [dataclasses.replace(layer, activation="relu") for layer in network.layers]
    config = dataclasses.replace(network.config, activation="relu")
    return dataclasses.replace(network, layers=layers, config=config, shape=PIXELS.shape[1:])


def test_projections_that_do_not_fit_are_refused(place, image_data):
    kind = Kind("float", "float")
    data = to_bytes(model_of(relu_network(), "image"), kind)
    for content, projection, cause in (
        (data, np.zeros((4, 3), np.float32), "the projection of layer 1 does not fit its filters"),
        (data, np.full((5, 3), np.nan, np.float32), "layers.0.projection holds values that are not finite"),
        (image_data, np.zeros((5, 3), np.float32), "layer 1 has signs and a projection"),
    ):
        description, arrays = parts(content)
        with pytest.raises(ModelError) as error:
            read(place, joined(description, arrays | {"layers.0.projection": projection}))
        assert str(error.value).startswith(f"{place} is damaged (ValueError: {cause})")


def test_the_bytes_are_those_documented(data):
    network = token_network()
    description, arrays = parts(data)
    assert {key: description[key] for key in ("format", "weights", "activations", "hidden")} == {
        "format": 7, "weights": "ternary", "activations": "sign", "hidden": 5,
    }  # fmt: skip
    assert description["layers"][1] == {
        "windows": [[1], [3]], "strides": [[1], [1]], "padding": "same", "regions": "tail:3,1", "activation": "sign",
        "filters": [7, 7], "pooling": [], "channel_groups": 1, "readout": 0,
    }  # fmt: skip
    weights, bias = network.layers[1].weights[1], network.layers[1].biases[1]
    for f in range(7):
        for i in range(weights.shape[0]):
            sign, mask = (arrays[f"layers.1.{name}.1"][f, i // 8] >> (i % 8) & 1 for name in ("sign", "mask"))
            assert weights[i, f] == (0 if not mask else 1 if sign else -1)
        assert arrays["layers.1.threshold.1"][f] == np.floor(-bias[f])
    for row in range(2, 12):
        bits = [int(arrays["layers.0.embedding"][row - 2, d // 8]) >> (d % 8) & 1 for d in range(10)]
        assert [2 * bit - 1 for bit in bits] == network.layers[0].embedding[row].tolist()
    assert arrays["tokens.ids"].tolist() == np.flatnonzero(network.lookup > 1).tolist()
    hidden = arrays["classifier.hidden"] * arrays["classifier.hidden_scale"]
    np.testing.assert_allclose(hidden, network.classifier.parameters["hidden"], atol=0.02)


GOLDEN = {
    "tokens.ids": ("int32", [9592, 28483]),
    "layers.0.embedding": ("uint8", [[3], [0]]),
    "layers.0.sign.0": ("uint8", [[18], [16]]),
    "layers.0.mask.0": ("uint8", [[50], [19]]),
    "layers.0.threshold.0": ("int32", [-2, -2]),
    "classifier.mean": ("float32", [1.0, 2.0, 3.0]),
    "classifier.variance": ("float32", [4.0, 5.0, 6.0]),
    "classifier.hidden": ("int8", [[64, -127, 0, 127, 127], [127, 64, 0, 64, -127], [-64, 0, 0, 32, 32]]),
    "classifier.hidden_scale": ("float32", [2 / 127, 2 / 127, 0.0, 0.5 / 127, 4 / 127]),
    "classifier.hidden_bias": ("float32", [0.0] * 5),
    "classifier.out": ("int8", [[0, 0, 127], [0, 127, 0], [127, 0, 0], [0, 0, -127], [0, 64, 0]]),
    "classifier.out_scale": ("float32", [1 / 127, 2 / 127, 4 / 127]),
    "classifier.out_bias": ("float32", [0.0] * 3),
}  # fmt: skip


def test_golden_bytes():
    """The tensors of a fixed tiny net, byte for byte: changing them needs a new format number."""
    bits = np.array([[1, 0, 0, 1, 1, 1, 0, 1, 1], [0, 1, 0, 0, 0, 0, 0, 0, 0]], bool)
    assert pack_bits(bits).tolist() == [[0b10111001, 1], [2, 0]]
    network = token_network(seed=3, dims=3, filters=2, widths=(2,), regions="whole", layers=1, tokens=4)
    network.classifier.parameters["hidden"][...] = [[1, -2, 0, 0.5, 4], [2, 1, 0, 0.25, -4], [-1, 0, 0, 0.125, 1]]
    network.classifier.parameters["out"][...] = [[0, 0, 4], [0, 2, 0], [1, 0, 0], [0, 0, -4], [0, 1, 0]]
    network.classifier.standardise(np.array([1, 2, 3]), np.array([4, 5, 6]))
    description, arrays = parts(to_bytes(model_of(network), Kind("ternary", "sign")))
    assert {name: str(array.dtype) for name, array in arrays.items()} == {
        name: kind for name, (kind, _) in GOLDEN.items()
    }
    for name, (kind, values) in GOLDEN.items():
        np.testing.assert_array_equal(arrays[name], np.array(values, kind), err_msg=name)
    assert description["config"]["dims"] == 3


def test_golden_bytes_of_images():
    """The same of the layer over pixels, of two windows."""
    network = image_network(filters=2, channels=1, window=(1, 2))
    patchers = (Patcher((1, 2), (1, 1), "same"), Patcher((1, 1), (1, 1), "same"))
    weights = (np.array([[1, -32767], [-300, 0]], np.float32), np.array([[7]], np.float32))
    biases = (np.array([76500.5, 8355585.5], np.float32), np.array([-1784.5], np.float32))
    layer = dataclasses.replace(network.layers[0], patchers=patchers, weights=weights, biases=biases)
    second = layer_of(np.random.default_rng(0), [(1, 2)], 2, "grid:2", 3)
    network = dataclasses.replace(network, layers=[layer, second], shape=(4, 4, 1))
    network.classifier = classifier_of(np.random.default_rng(0), second.features(2), 0, 2)
    for kind in SIGNS:
        description, arrays = parts(to_bytes(model_of(network, "image"), kind))
        assert {name: (str(v.dtype), v.tolist()) for name, v in arrays.items() if name.startswith("layers.0")} == {
            "layers.0.weights.0": ("int16", [[1, -32767], [-300, 0]]),
            "layers.0.threshold.0": ("int32", [-76501, -8355586]),
            "layers.0.weights.1": ("int16", [[7]]),
            "layers.0.threshold.1": ("int32", [1784]),
        }
        assert (description["shape"], description["layers"][0]["filters"]) == ([4, 4, 1], [2, 1])


def refused(place, description, arrays):
    with pytest.raises(ModelError) as error:
        read(place, joined(description, arrays))
    assert "\n" not in str(error.value)
    assert "is damaged" in str(error.value) or "settings" in str(error.value) or "newer" in str(error.value)


LIES = {
    "weights": "quaternary", "activations": 3, "classes": ["one"], "layers": [], "hidden": -1,
    "columns": {"kind": "sound"}, "report": 7, "config": {"dims": 0}, "format": 8,
    "shape": [32, 32, 3],
}  # fmt: skip
LAYER_LIES = {
    "windows": [[1], [2**40]], "strides": [[1], [0]], "padding": "circular", "regions": "tail:99999999",
    "activation": "relu", "filters": [7], "pooling": [2], "channel_groups": 2, "readout": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_description_that_lies_is_refused(place, data, name):
    description, arrays = parts(data)
    refused(place, description | {name: LIES[name]}, arrays)


@pytest.mark.parametrize("name", LAYER_LIES)
@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_that_lies_is_refused(place, data, name, layer):
    description, arrays = parts(data)
    description["layers"][layer][name] = LAYER_LIES[name]
    refused(place, description, arrays)


PIXEL_LIES = {
    "layers.0.weights.0": [
        (32767, "the weights of layers.0 are so large that sums could overflow"),
        (-32768, "the weights of layers.0 are so large that sums could overflow"),
    ],
    "layers.0.threshold.0": [
        (255 * 32767 + 1, "the thresholds of layers.0 are out of range"),
        (-255 * 32767 - 2, "the thresholds of layers.0 are out of range"),
        (-(2**31), "the thresholds of layers.0 are out of range"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value", "cause"), [(n, *lie) for n, lies in PIXEL_LIES.items() for lie in lies])
def test_filters_over_pixels_out_of_range_are_refused(place, image_data, name, value, cause):
    description, arrays = parts(image_data)
    array = np.array(arrays[name])
    array[-1] = value
    with pytest.raises(ModelError) as error:
        read(place, joined(description, arrays | {name: array}))
    assert str(error.value) == f"{place} is damaged (ValueError: {cause}): restore it or export it again"


def test_thresholds_over_pixels_reach_from_below_the_least_sum_to_the_largest(place, image_data):
    description, arrays = parts(image_data)
    name = "layers.0.threshold.0"
    wide = 255 * arrays["layers.0.weights.0"].astype(np.int64)
    least, most = np.minimum(wide, 0).sum(0), np.maximum(wide, 0).sum(0)
    for edge, beyond in ((least - 1, least - 2), (most, most + 1)):
        read(place, joined(description, arrays | {name: edge.astype(np.int32)}))
        refused(place, description, arrays | {name: beyond.astype(np.int32)})


@pytest.mark.parametrize("shape", [[], [6, 7], [6, 7, 4], [0, 7, 3], [2, 6, 7, 3]])
def test_images_without_their_shape_are_refused(place, image_data, shape):
    description, arrays = parts(image_data)
    refused(place, description | {"shape": shape}, arrays)


def damage(array):
    """Ways an array can be wrong."""
    yield array[:-1]
    yield array.astype(np.float64)
    yield array.reshape(1, *array.shape)
    if array.dtype == np.float32:
        yield np.where(np.arange(array.size).reshape(array.shape) == 0, np.float32(np.nan), array)
        yield np.full_like(array, 1e30)
    if array.dtype == np.int32:
        yield array + 2**30
        yield array - 2**30
    if array.dtype == np.uint8:
        yield np.full_like(array, 255)


@pytest.mark.parametrize("file", ["data", "image_data"])
def test_every_array_that_is_wrong_or_missing_is_refused(place, file, request):
    description, arrays = parts(request.getfixturevalue(file))
    for name, array in arrays.items():
        refused(place, description, {key: value for key, value in arrays.items() if key != name})
        for wrong in damage(array):
            refused(place, description, arrays | {name: np.ascontiguousarray(wrong)})


def survives(place, data):
    """Loading and predicting either work or raise ModelError."""
    try:
        network = read(place, data).network
    except ModelError:
        return
    column = text_column(LINES) if network.lookup is not None else ImageColumn(np.zeros((2, *network.shape), np.uint8))
    probabilities = network.probabilities(column)
    assert probabilities.shape == (len(column), len(network.classes))
    assert np.isfinite(probabilities).all()


@settings(max_examples=300)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6))
def test_flipped_bytes_are_refused_or_harmless(place, data, flips):
    damaged = bytearray(data)
    for where, value in flips:
        damaged[int(where * len(data))] ^= value
    survives(place, bytes(damaged))


@settings(max_examples=200)
@given(st.booleans(), st.sampled_from(["numbers", "bytes"]), st.randoms(use_true_random=False))
def test_flipped_contents_are_refused_or_harmless(place, data, image_data, images, what, random):
    """Damage behind an intact header, where it reaches the kernels."""
    description, arrays = parts(image_data if images else data)
    name = random.choice(sorted(arrays))
    array = np.array(arrays[name])
    if what == "numbers":
        array.reshape(-1)[random.randrange(array.size)] = random.choice([0, 1, -1, 127, -127, 99]) % 128
    else:
        array.view(np.uint8).reshape(-1)[random.randrange(array.nbytes)] ^= random.randrange(1, 256)
    survives(place, joined(description, arrays | {name: array}))


@settings(max_examples=60)
@given(st.floats(0, 1, exclude_max=True), st.binary(max_size=20))
def test_a_file_cut_short_is_refused(place, data, where, tail):
    with pytest.raises(ModelError):
        read(place, data[: int(where * len(data))] + tail)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        packed.load(tmp_path / "none.seqbag")
