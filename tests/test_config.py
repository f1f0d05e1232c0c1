"""Settings: what is refused, in which words, and the way through JSON."""

import json

import pytest

from seqbag.config import TrainConfig
from seqbag.errors import ModelError, UsageError
from seqbag.trainer import train
from tests.memory import MemorySource


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tokenizer": "word"}, "tokenizer 'word' is not known: choose from words, chars, bytes, list"),
        ({"activation": "gelu"}, "activation 'gelu' is not known: choose from relu, tanh, sign"),
        ({"windows": ()}, "windows () do not work: give one or more widths from 1 to 31"),
        ({"windows": (3, 0)}, "windows (3, 0) do not work: give one or more widths from 1 to 31"),
        ({"windows": (32,)}, "windows (32,) do not work: give one or more widths from 1 to 31"),
        ({"regions": "tail"}, "regions 'tail' are not understood: use whole, tail:8,2,1 or grid:2"),
        ({"layers": 0}, "layers is 0: it must be 1 or more"),
        ({"filters": (8, 0)}, "filters (8, 0) do not work: give one or more numbers from 1 on"),
        ({"dims": 0}, "dims is 0: it must be 1 or more"),
        ({"threads": 0}, "threads is 0: it must be 1 or more"),
        ({"epochs": 0}, "epochs is 0: it must be 1 or more"),
        ({"last": 0}, "last is 0: it must be 1 or more"),
        ({"last": 1.5}, "last is 1.5: it must be a whole number"),
        ({"memory": None}, "memory is None: it must be a whole number"),
        ({"codebook": 0}, "codebook is 0: it must be 1 or more"),
        ({"hidden": -1}, "hidden is -1: it must be 0 or more"),
        ({"seed": -1}, "seed is -1: it must be 0 or more"),
        ({"vocabulary": 1}, "vocabulary is 1: it must be 2 or more"),
        ({"vocabulary": 2**25}, "vocabulary is 33554432: it must be 16777216 or less"),
        ({"signs": 3, "activation": "sign"}, "signs is 3: it must be 1, 2 or 4"),
        ({"signs": 2}, "signs is 2 and the activation relu: give --activation sign"),
        ({"smoothing": 1.0}, "smoothing is 1.0: it must be at least 0 and below 1"),
        ({"smoothing": -0.1}, "smoothing is -0.1: it must be at least 0 and below 1"),
        ({"valid_fraction": 1.0}, "valid-fraction is 1.0: it must be at least 0 and below 1"),
        ({"valid_fraction": float("nan")}, "valid-fraction is nan: it must be at least 0 and below 1"),
        ({"memory": 5 * 10**8}, "memory is 500 MB: the process alone takes 600 MB"),
    ],
)
def test_refused(values, message):
    with pytest.raises(UsageError) as error:
        TrainConfig(**values)
    assert str(error.value) == message


def test_defaults_work_and_survive_json():
    for config in (TrainConfig(), TrainConfig(windows=(5,), regions="tail:4,1", epochs=3, valid_fraction=0)):
        assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("kind", "rows", "fraction"),
    [("image", None, 0.1), ("image", 0, 0.1), ("image", 20_000, 0.1), ("image", 50_000, 0.04), ("text", 50_000, 0.1)],
)
def test_of_many_images_no_more_are_held_out_than_it_takes_to_measure(kind, rows, fraction):
    assert TrainConfig.for_kind(kind, rows).valid_fraction == pytest.approx(fraction)
    assert TrainConfig.for_kind(kind, rows, valid_fraction=0.3).valid_fraction == 0.3


def test_signs_over_images_have_defaults_of_their_own():
    floats, signs = (TrainConfig.for_kind("image", activation=activation) for activation in ("relu", "sign"))
    assert (floats.channel_groups, signs.channel_groups, floats.signs, signs.signs) == (1, 4, 1, 2)
    assert TrainConfig.for_kind("image", activation="sign", layers=2).layers == 2
    assert TrainConfig.for_kind("text", activation="sign") == TrainConfig(activation="sign")


@pytest.mark.parametrize("flips", [False, True])
def test_settings_that_name_no_views_but_flips(flips):
    values = {**TrainConfig().to_json(), "flips": flips}
    del values["views"]
    assert TrainConfig.from_json(values) == TrainConfig(views=1 + flips)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "the model's settings are not of this version: train it again"),
        (
            {"layers": 0},
            "the model's settings are damaged (layers is 0: it must be 1 or more): train it again",
        ),
        (
            {"layers": "two"},
            "the model's settings are damaged (layers is 'two': it must be a whole number): train it again",
        ),
        ({"windows": 3}, "the model's settings are damaged ('int' object is not iterable): train it again"),
    ],
)
def test_damaged_settings_of_a_model(change, message):
    with pytest.raises(ModelError) as error:
        TrainConfig.from_json(TrainConfig().to_json() | change)
    assert str(error.value) == message


def test_settings_that_are_no_record():
    for values in (None, [], 3, "text"):
        with pytest.raises(ModelError):
            TrainConfig.from_json(values)
    with pytest.raises(ModelError):
        TrainConfig.from_json({})


def test_only_images_are_polished():
    TrainConfig(polish=2).check("image")
    TrainConfig().check("text")
    for kind in ("text", "tokens"):
        with pytest.raises(UsageError) as error:
            TrainConfig(polish=2).check(kind)
        assert str(error.value) == "polish is 2: only images are polished, leave it out"
    with pytest.raises(UsageError):
        train(MemorySource("text", (["a b", "c"], ["x", "y"])), TrainConfig(polish=2))


def test_images_have_no_ends():
    TrainConfig(regions="tail:8,2,1").check("tokens")
    TrainConfig(regions="grid:2").check("image")
    with pytest.raises(UsageError) as error:
        TrainConfig(regions="tail:8,2,1").check("image")
    assert str(error.value) == "regions tail:8,2,1 are the ends of sequences: of images use whole or grid:2"
