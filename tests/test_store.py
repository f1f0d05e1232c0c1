"""Model files: the way there and back, and files that are damaged, foreign, or too new."""

import copy
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbag import __version__
from seqbag.batch import ImageColumn
from seqbag.config import TrainConfig
from seqbag.errors import DataError, ModelError
from seqbag.store import Model, check_writable, load, read_tensors, save, tensor_parts, to_bytes, write_atomically
from seqbag.trainer import train
from tests.memory import MemorySource, text_column, tokens_column
from tests.nets import image_network, with_activation

COLUMNS = {"kind": "text", "input": "message", "label": "label"}
TEXTS = ["disk full on host", "user logged in", "", "user logged out of host", "disk ok"]


def small_model(layers=2, activation="relu"):
    config = TrainConfig(
        vocabulary=4096, dims=2, filters=(2,), hidden=3, epochs=1, layers=layers, codebook=20, regions="tail:2,1",
        activation=activation,
    )  # fmt: skip
    source = MemorySource("text", (TEXTS * 12, ["bad", "good", "good", "good", "bad"] * 12))
    return train(source, config).model(COLUMNS)


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def data(model):
    return to_bytes(model)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("models") / "model.seqbag"


def read(path, data):
    path.write_bytes(data)
    return load(path)


def refused(path, data):
    with pytest.raises(ModelError) as error:
        read(path, data)
    assert "\n" not in str(error.value)
    return str(error.value)


def described(data):
    """The description and the tensors of a model file."""
    length = int.from_bytes(data[:8], "little")
    description = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["seqbag"])
    return description, safetensors.numpy.load(data)


def rebuilt(description, tensors, key="seqbag"):
    return safetensors.numpy.save(tensors, {key: json.dumps(description)})


@pytest.mark.parametrize("activation", ["relu", "sign"])
@pytest.mark.parametrize("layers", [1, 2])
def test_there_and_back(tmp_path, layers, activation):
    model, path = small_model(layers, activation), tmp_path / "m.seqbag"
    assert save(model, path) == path.stat().st_size
    assert os.listdir(tmp_path) == ["m.seqbag"]
    again = load(path)
    assert to_bytes(again) == path.read_bytes() == to_bytes(model)
    assert again.network.config == model.network.config
    assert again.network.classes == ("bad", "good")
    assert (again.columns, again.report, again.texts) == (model.columns, model.report, model.texts)
    assert set(again.texts) == {word for text in TEXTS for word in text.split()}
    for a, b in zip(again.windows + again.window_counts, model.windows + model.window_counts, strict=True):
        np.testing.assert_array_equal(a, b)
    column = text_column([*TEXTS, "never seen", "disk disk disk"])
    np.testing.assert_array_equal(again.network.logits(column), model.network.logits(column))


def test_saving_replaces_a_model_whole(tmp_path, model):
    path = tmp_path / "m.seqbag"
    path.write_bytes(b"old")
    save(model, path)
    assert load(path).texts == model.texts
    assert os.listdir(tmp_path) == ["m.seqbag"]


def test_nothing_is_written_where_it_cannot_be(tmp_path, model):
    (tmp_path / "file").write_bytes(b"kept")
    under = tmp_path / "file" / "m.seqbag"
    missing = tmp_path / "none" / "m.seqbag"
    for path, cause in ((under, "Not a directory"), (missing, "No such file or directory")):
        with pytest.raises(DataError) as error:
            save(model, path)
        assert str(error.value) == f"{path} cannot be written ({cause}): choose another place with --out"
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_atomically(tmp_path / "folder", b"x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_tensors_are_read_as_they_were_written_and_not_copied_before(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        f"{dtype}.{len(shape)}.{shape[0]}": rng.integers(0, 100, shape).astype(dtype)
        for dtype in ("uint8", "uint16", "float16", "int32", "float32", "int64", "uint64", "float64")
        for shape in ((3,), (0,), (5, 7), (0, 4))
    }
    arrays["columns"] = np.arange(12, dtype=np.int32).reshape(3, 4)[:, 1:3]
    description = {"format": 1, "text": "\u00e9"}
    size = write_atomically(tmp_path / "file", *(parts := tensor_parts("key", description, arrays)))
    read, tensors = read_tensors(tmp_path / "file", "key")
    assert read == description
    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (tensors[name].dtype, tensors[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(tensors[name], array)
    assert size == (tmp_path / "file").stat().st_size == sum(len(part) for part in parts)
    lying = [np.frombuffer(part, np.uint8) for part in parts if len(part)]
    copied = [name for name, array in arrays.items() if not any(np.shares_memory(array, part) for part in lying)]
    assert copied == [name for name, array in arrays.items() if array.size == 0] + ["columns"]


def test_a_place_is_checked_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    check_writable(tmp_path / "m.seqbag")
    check_writable(tmp_path / "file")
    for path, cause in (
        (tmp_path, "it is a folder"),
        (tmp_path / "none" / "m", f"there is no folder {tmp_path / 'none'}"),
        (tmp_path / "file" / "m", f"there is no folder {tmp_path / 'file'}"),
    ):
        with pytest.raises(DataError) as error:
            check_writable(path)
        assert str(error.value) == f"{path} cannot be written ({cause}): choose another place with --out"
    assert os.listdir(tmp_path) == ["file"]


def test_missing_foreign_and_newer_files(tmp_path, data):
    path = tmp_path / "m.seqbag"
    for place in (path, tmp_path):
        with pytest.raises(ModelError) as error:
            load(place)
        assert str(error.value) == f"{place} does not exist: give the file that `seqbag train --out` wrote"
    for content in (b"", b"{}", b"PK\x03\x04 a zip", data[:-1], data[:100], b"\xff" * 64):
        text = refused(path, content)
        assert text.startswith(f"{path} is not a model file (")
        assert text.endswith("): give a file that `seqbag train` wrote")
    foreign = f"{path} is a safetensors file but not a seqbag model: give a file that `seqbag train` wrote"
    assert refused(path, safetensors.numpy.save({"a": np.zeros(3)})) == foreign
    description, tensors = described(data)
    assert refused(path, rebuilt(description, tensors, key="other")) == foreign
    assert refused(path, rebuilt([description], tensors)) == foreign
    assert refused(path, rebuilt(description | {"format": 8}, tensors)) == (
        f"{path} has format 8, newer than the 7 this seqbag {__version__} reads: update seqbag"
    )


@pytest.mark.parametrize("activation", ["relu", "sign"])
def test_signs_over_a_grid_of_a_format_that_pooled_them_otherwise(tmp_path, activation):
    network = replace(image_network(), shape=(6, 5, 3))
    network.layers = [replace(layer, activation=activation) for layer in network.layers]
    save(Model(network, {"kind": "image", "input": "img", "label": "label"}, {}), tmp_path / "new")
    description, tensors = described((tmp_path / "new").read_bytes())
    load(tmp_path / "new")
    (tmp_path / "old").write_bytes(rebuilt(description | {"format": 3}, tensors))
    if activation == "relu":
        load(tmp_path / "old")
        return
    with pytest.raises(ModelError) as error:
        load(tmp_path / "old")
    assert str(error.value) == f"{tmp_path / 'old'} has format 3, in which signs were pooled otherwise: train it again"


def test_several_signs_of_a_filter(tmp_path):
    network = replace(image_network(groups=2, readout=7, signs=2), shape=(6, 5, 3))
    model, path = Model(network, {"kind": "image", "input": "img", "label": "label"}, {}), tmp_path / "m.seqbag"
    save(model, path)
    column = ImageColumn(np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3)).astype(np.uint8))
    np.testing.assert_array_equal(load(path).network.logits(column), network.logits(column))
    description, tensors = described(path.read_bytes())
    changes = {
        "layers.1.bias.0 is of 3 signs": {"layers.1.bias.0": np.zeros((3, 5), np.float32)},
        "layers.1.bias.0 is of 0 signs": {"layers.1.bias.0": np.zeros((0, 5), np.float32)},
        "layers.1.bias.0 is float32 (2, 4)": {"layers.1.bias.0": np.zeros((2, 4), np.float32)},
        "the filters of layer 2 have different numbers of signs": {"layers.1.bias.1": np.zeros(5, np.float32)},
        "layers.2.readout.bias.0 is of 8 signs": {"layers.2.readout.bias.0": np.zeros((8, 7), np.float32)},
    }
    for cause, change in changes.items():
        assert refused(path, rebuilt(description, tensors | change)) == (
            f"{path} is damaged (ValueError: {cause}): restore it or train again"
        )
    description["layers"][1]["activation"] = "relu"
    assert "layers.1.bias.0 is of 2 signs" in refused(path, rebuilt(description, tensors))


def test_groups_that_read_a_share_of_the_channels_and_readouts(tmp_path):
    network = replace(image_network(groups=2, readout=7), shape=(6, 5, 3))
    network.layers = [with_activation(layer, "relu") for layer in network.layers]
    network.layers[0] = replace(network.layers[0], weights=(network.layers[0].weights[0] / np.float32(1000),))
    model, path = Model(network, {"kind": "image", "input": "img", "label": "label"}, {}), tmp_path / "m.seqbag"
    save(model, path)
    column = ImageColumn(np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3)).astype(np.uint8))
    np.testing.assert_array_equal(load(path).network.logits(column), network.logits(column))
    description, tensors = described(path.read_bytes())
    assert [layer["channel_groups"] for layer in description["layers"]] == [1, 2, 2]
    assert [layer["readout"] for layer in description["layers"]] == [0, 7, 7]
    for layer, width in ((0, 7), (1, -1), (1, 2**16), (1, None), (2, 7.0)):
        changed = copy.deepcopy(description)
        changed["layers"][layer]["readout"] = width
        assert refused(path, rebuilt(changed, tensors)) == (
            f"{path} is damaged (ValueError: the readout of layer {layer + 1} has {width!r} filters): "
            "restore it or train again"
        )
    wide = tensors | {"layers.1.readout.weights.0": np.zeros((5, 7), np.float32)}
    assert "layers.1.readout.weights.0 is float32 (5, 7)" in refused(path, rebuilt(description, wide))
    for layer, groups in ((0, 2), (1, 0), (1, 6), (1, True), (1, 1.0), (2, "2")):
        changed = copy.deepcopy(description)
        changed["layers"][layer]["channel_groups"] = groups
        assert refused(path, rebuilt(changed, tensors)) == (
            f"{path} is damaged (ValueError: layer {layer + 1} has {groups!r} channel groups): "
            "restore it or train again"
        )
    changed = copy.deepcopy(description)
    del changed["layers"][1]["channel_groups"]  # as in a file of format 5, whose layers read all channels
    assert "the weights of layer 2 do not fit its windows" in refused(path, rebuilt(changed, tensors))


def test_damaged_content(tmp_path, data):
    path = tmp_path / "m.seqbag"
    description, tensors = described(data)

    def changed(**values):
        return refused(path, rebuilt(description, {n: v for n, v in (tensors | values).items() if v is not None}))

    def damaged(cause):
        return f"{path} is damaged ({cause}): restore it or train again"

    assert changed(**{"classifier.out": None}) == damaged("KeyError: 'classifier.out'")
    mean = tensors["classifier.mean"]
    assert changed(**{"classifier.mean": mean[:-1]}) == damaged(
        f"ValueError: classifier.mean is float32 ({len(mean) - 1},)"
    )
    assert changed(**{"classifier.mean": mean.astype(np.float64)}) == damaged(
        f"ValueError: classifier.mean is float64 ({len(mean)},)"
    )
    assert changed(**{"classifier.mean": np.full_like(mean, np.nan)}) == damaged(
        "ValueError: classifier.mean holds values that are not finite"
    )
    assert changed(**{"tokens.ids": tensors["tokens.ids"][::-1].copy()}) == damaged(
        "ValueError: the token ids are out of range"
    )
    assert changed(**{"windows.0": tensors["windows.0"] + 1000}) == damaged(
        "ValueError: the windows name tokens that do not exist"
    )
    assert changed(**{"layers.1.weights.0": np.zeros((3, 2), np.float32)}) == damaged(
        "ValueError: the weights of layer 2 do not fit its windows"
    )
    assert changed(**{"layers.0.embedding": np.zeros((2, 2), np.float32)}) == damaged(
        "ValueError: the embedding does not fit the tokens"
    )


def usable_or_refused(path, data):
    """A file is refused in one line, or what is loaded predicts."""
    try:
        model = read(path, data)
    except ModelError as error:
        line = str(error)
    else:
        line = ""
        check_usable(model)
    assert "\n" not in line


def check_usable(model):
    with np.errstate(all="ignore"):
        for column in (text_column([*TEXTS, "never seen"]), tokens_column([["disk", "full"], []])):
            assert model.network.probabilities(column).shape == (len(column), len(model.network.classes))


@settings(max_examples=300)
@given(draw=st.data())
def test_flipped_bytes_never_crash(data, place, draw):
    header = 8 + int.from_bytes(data[:8], "little")
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        most = draw.draw(st.sampled_from([8, header, header, header, len(data)]))
        damaged[draw.draw(st.integers(0, most - 1))] = draw.draw(
            st.one_of(st.integers(0, 255), st.sampled_from(b'0123456789e-.[]{},:"'))
        )
    usable_or_refused(place, bytes(damaged))


@settings(max_examples=100)
@given(draw=st.data())
def test_truncated_and_padded_files_never_crash(data, place, draw):
    cut = draw.draw(st.integers(0, len(data) - 1))
    refused(place, data[:cut])
    usable_or_refused(place, data[:cut] + draw.draw(st.binary(max_size=64)) + data[cut:])


def paths_of(value, path=()):
    """The way to every value inside JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_of(inner, (*path, key))


STRANGE = [None, True, -1, 0, 1, 2, 31, 10**9, 10**30, 1.5, float("inf"), float("nan"), "", "x", "grid:2", [], [0], {}]


@settings(max_examples=300)
@given(draw=st.data())
def test_strange_descriptions_never_crash(data, place, draw):
    description, tensors = described(data)
    description = {"top": copy.deepcopy(description)}
    for _ in range(draw.draw(st.integers(1, 2))):
        *way, last = ("top", *draw.draw(st.sampled_from(list(paths_of(description["top"])))))
        target = description
        for key in way:
            target = target[key]
        target[last] = copy.deepcopy(draw.draw(st.sampled_from(STRANGE)))  # the next may put something into it
    usable_or_refused(place, rebuilt(description["top"], tensors))


def test_a_header_nested_without_end_is_refused(tmp_path, data):
    _, tensors = described(data)
    nested = safetensors.numpy.save(tensors, {"seqbag": "[" * 200_000})
    assert "is not a model file" in refused(tmp_path / "m.seqbag", nested)
