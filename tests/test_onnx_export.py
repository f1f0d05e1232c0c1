"""The ONNX graph in onnxruntime against the net it was made of."""

import dataclasses
import json

import numpy as np
import pytest

from seqbag.batch import ImageColumn
from seqbag.engine import PackedNetwork
from seqbag.errors import UsageError
from seqbag.patches import Patcher
from seqbag.quantise import Kind, quantise
from seqbag.store import Model
from seqbag.tokens import Encoder
from seqbag_cli.onnx_export import OPSET, to_onnx
from tests.memory import text_column
from tests.nets import image_network, token_network, vote_of, with_activation

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

LINES = ["", "a", "ab", "hello world", "aaaaaaaaaaaaaaaaaaaa", "zq", "x" * 70, *(f"row {i}" for i in range(200))]


def session(network, kind="text"):
    model = Model(network, {"kind": kind, "input": "message", "label": "label"}, {})
    return onnxruntime.InferenceSession(to_onnx(model), providers=["CPUExecutionProvider"])


def padded(column, network):
    """The inputs, as the module's documentation says they are made."""
    ids, offsets = Encoder(network.config.tokenizer, network.config.vocabulary).encode(column)
    lengths = np.diff(offsets)
    rows = np.zeros((len(lengths), lengths.max()), np.int64)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = ids
    return {"ids": rows, "lengths": lengths}


@pytest.mark.parametrize(("activation", "signs"), [("sign", 1), ("sign", 2), ("relu", 1), ("tanh", 1)])
@pytest.mark.parametrize("regions", ["whole", "tail:8,2,1"])
@pytest.mark.parametrize(
    ("layers", "widths", "padding"), [(1, (1, 3), "same"), (3, (2, 3), "same"), (2, (4,), "causal")]
)
def test_sequences(activation, signs, regions, layers, widths, padding):
    network = token_network(regions=regions, layers=layers, widths=widths, padding=padding, signs=signs)
    scaled = [dataclasses.replace(layer, activation=activation) for layer in network.layers]
    network = dataclasses.replace(network, layers=scaled)
    column = text_column(LINES)
    (logits,) = session(network).run(["logits"], padded(column, network))
    expected = network.logits(column)
    np.testing.assert_allclose(logits, expected, atol=0.02, rtol=0.01)
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.999


@pytest.mark.parametrize("last", [1, 3, 100])
def test_the_last_tokens(last):
    network = token_network(regions="tail:2,1", layers=2, widths=(1, 3))
    network = dataclasses.replace(network, config=dataclasses.replace(network.config, last=last))
    for column in (text_column(LINES), text_column(["", ""])):
        (logits,) = session(network).run(["logits"], padded(column, network))
        expected = network.logits(column)
        np.testing.assert_allclose(logits, expected, atol=0.02, rtol=0.01)
        assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.99


@pytest.mark.parametrize("regions", ["whole", "grid:1", "grid:3"])
@pytest.mark.parametrize(
    ("hidden", "activation", "pooling", "project", "groups", "readout", "signs"),
    [
        (0, "sign", (2, 2), 0, 1, 0, 1), (4, "relu", (2, 1), 0, 2, 7, 1), (4, "relu", (2, 1), 3, 1, 0, 1),
        (4, "sign", (), 0, 1, 7, 1), (4, "sign", (2, 2), 0, 2, 0, 1), (4, "sign", (2, 2), 0, 2, 7, 2),
    ],
)  # fmt: skip
def test_images(regions, hidden, activation, pooling, project, groups, readout, signs):
    network = image_network(
        regions=regions, hidden=hidden, pooling=pooling, project=project, groups=groups, readout=readout, signs=signs
    )
    network.layers[1:] = [dataclasses.replace(layer, pooling=pooling) for layer in network.layers[1:]]
    network.layers[:] = [with_activation(layer, activation) for layer in network.layers]
    if readout:  # sums behind it are larger than halves
        network.layers[0] = dataclasses.replace(
            network.layers[0], weights=(network.layers[0].weights[0] / np.float32(100),)
        )
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 7, 3)).astype(np.uint8)
    (logits,) = session(network, "image").run(["logits"], {"pixels": pixels})
    expected = network.logits(ImageColumn(pixels))
    np.testing.assert_allclose(logits, expected, atol=0.05)
    assert (logits.argmax(1) == expected.argmax(1)).all()


def test_a_vote():
    network = image_network(hidden=13)
    network.classifier = vote_of(np.random.default_rng(0), network.classifier.features // 2)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 7, 3)).astype(np.uint8)
    (logits,) = session(network, "image").run(["logits"], {"pixels": pixels})
    np.testing.assert_allclose(logits, network.logits(ImageColumn(pixels)), atol=0.05)


def test_whole_filters_over_pixels_give_the_bits_of_the_engine():
    """Sums at the very thresholds: a single bit that differs would show in the logits of so small a picture."""
    rng = np.random.default_rng(0)
    network = quantise(image_network(regions="whole", filters=64), Kind("ternary", "sign"))
    pixels = rng.choice(np.array([0, 254, 255], np.uint8), (200, 2, 2, 3))
    layer = network.layers[0]
    windows = network.encode(ImageColumn(pixels)).windows(layer.patchers[0])[0]
    sums = windows.astype(np.int64) @ layer.weights[0].astype(np.int64)
    biases = (-(sums[rng.integers(0, len(sums), 64), np.arange(64)] - rng.integers(0, 2, 64) + 0.5).astype(np.float32),)
    network.layers[0] = dataclasses.replace(layer, biases=biases)
    network = PackedNetwork(network.config, network.classes, None, network.layers, network.classifier, (2, 2, 3))
    (logits,) = session(network, "image").run(["logits"], {"pixels": pixels})
    np.testing.assert_allclose(logits, network.logits(ImageColumn(pixels)), atol=0.01)


def test_the_file_says_what_it_is():
    file = onnx.load_from_string(to_onnx(Model(token_network(), {"kind": "text"}, {})))
    known = json.loads(next(entry.value for entry in file.metadata_props if entry.key == "seqbag"))
    assert known["classes"] == ["no", "yes", "zebra"]
    assert (known["tokenizer"], known["vocabulary"]) == ("chars", 2**15)
    assert [entry.version for entry in file.opset_import] == [OPSET]


@pytest.mark.parametrize("patcher", [Patcher((3,), (2,), "same"), Patcher((3,), (1,), "valid")])
def test_windows_that_cannot_be_expressed_are_refused(patcher):
    network = token_network(layers=1, widths=(3,))
    network = dataclasses.replace(network, layers=[dataclasses.replace(network.layers[0], patchers=(patcher,))])
    with pytest.raises(UsageError, match="stride 1"):
        to_onnx(Model(network, {}, {}))
