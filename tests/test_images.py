"""Images, and pictures with more axes, through the same trainer as logs, from real files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from seqbag.batch import ImageColumn, Source
from seqbag.config import TrainConfig
from seqbag.errors import DataError, UsageError
from seqbag.kernels.maps import pool_max, pool_mean
from seqbag.layer import Layer, Maps
from seqbag.network import Network
from seqbag.patches import Patcher
from seqbag.prediction import predict
from seqbag.projection import Moments
from seqbag.regions import Regions
from seqbag.store import load, save
from seqbag.trainer import train
from seqbag.whitening import pooling, whitening
from seqbag_connectors import open_source
from tests.builders import write_hub_images, write_parquet

SMALL = TrainConfig.for_kind(
    "image",
    layers=2,
    filters=12,
    hidden=16,
    regions="grid:2",
    polish=8,
    samples=16,
    shift=1,
    epochs=12,
    valid_fraction=0.2,
    smoothing=0.0,
)
CONTRAST = 90


def stripes(rows: int, shape: tuple[int, ...], seed: int = 0) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Noise over stripes that run along one of the axes, which is the class; the last of shape is the channels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(shape) - 1, rows)
    phase = rng.integers(0, 4, rows)
    places = np.moveaxis(np.indices(shape[:-1]), 0, -1)  # (*grid, axes)
    along = np.moveaxis(places, -1, 0)[labels] + phase.reshape(-1, *[1] * (len(shape) - 1))
    bright = (along // 2 % 2 * CONTRAST)[..., None]
    pixels = rng.integers(0, 256 - CONTRAST, (rows, *shape)) + bright
    return pixels.astype(np.uint8), labels.tolist()


def hub(path: Path, rows: int = 400, shape: tuple[int, int, int] = (16, 16, 3)) -> Source:
    pixels, labels = stripes(rows, shape)
    return open_source(str(write_hub_images(path, pixels, labels, ["across", "down"])))


def lists(path: Path, rows: int, shape: tuple[int, ...]) -> Source:
    pixels, labels = stripes(rows, shape)
    size = int(np.prod(shape))
    column = pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), size)
    return open_source(str(write_parquet(path, {"image": column, "label": labels})), shape=shape)


def accuracy(network: object, source: Source) -> float:
    right, rows = 0, 0
    for batch in source.batches(100):
        assert batch.labels is not None
        truth = np.array(batch.labels.names)[batch.labels.codes]
        best = np.array(network.classes)[network.logits(batch.input).argmax(1)]  # type: ignore[attr-defined]
        right, rows = right + int((truth == best).sum()), rows + len(batch)
    return right / rows


@pytest.mark.parametrize("change", [{}, {"activation": "sign"}, {"polish": 0, "codebook": 64}, {"codebook": 64}])
def test_images_are_learned_and_survive_their_file(tmp_path: Path, change: dict[str, object]) -> None:
    source = hub(tmp_path / "images.parquet")
    trained = train(source, replace(SMALL, **change))
    assert trained.valid_accuracy > 0.9
    assert [layer.pooling for layer in trained.network.layers] == [(2, 2), (1, 1), (1, 1)]
    assert all(layer.valid_accuracy > 0.7 for layer in trained.layers)
    save(trained.model({"kind": "image", "input": "img", "label": "label"}), tmp_path / "model")
    again = load(tmp_path / "model").network
    column = ImageColumn(stripes(9, (16, 16, 3), seed=1)[0])
    np.testing.assert_array_equal(again.logits(column), trained.network.logits(column))
    assert accuracy(again, hub(tmp_path / "others.parquet", 200)) > 0.9


def test_lists_of_grey_pixels_are_images(tmp_path: Path) -> None:
    trained = train(lists(tmp_path / "grey.parquet", 500, (8, 8, 1)), SMALL)
    assert trained.valid_accuracy > 0.85


def test_video_is_a_picture_of_three_axes(tmp_path: Path) -> None:
    trained = train(lists(tmp_path / "video.parquet", 300, (4, 8, 8, 1)), replace(SMALL, filters=8))
    assert trained.network.layers[1].patchers[0].window == (3, 3, 3)
    assert trained.network.shape == (4, 8, 8, 1)
    assert trained.valid_accuracy > 0.8


def test_maps_that_do_not_fit_the_memory_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqbag.polishing._CACHE_SHARE", 0.0)
    monkeypatch.setattr("seqbag.polishing._BLOCK_SHARE", 5e-4)
    trained = train(hub(tmp_path / "images.parquet", 300), replace(SMALL, layers=1))
    assert trained.valid_accuracy > 0.8


def test_the_same_seed_gives_the_same_net_on_any_number_of_threads(tmp_path: Path) -> None:
    source = hub(tmp_path / "images.parquet", 300)
    nets = [train(source, replace(SMALL, layers=1, polish=2, threads=threads)).network for threads in (1, 2)]
    for one, two in zip(*(net.layers for net in nets), strict=True):
        np.testing.assert_array_equal(one.weights[0], two.weights[0])


def test_images_of_another_shape_are_refused_by_both_shapes(tmp_path: Path) -> None:
    network = train(hub(tmp_path / "images.parquet", 200), replace(SMALL, layers=1, polish=1)).network
    with pytest.raises(DataError, match="the images are 8x8x3 and the model was trained on 16x16x3"):
        network.encode(ImageColumn(np.zeros((1, 8, 8, 3), np.uint8)))


def test_whitened_patches_do_not_correlate_and_come_in_both_signs() -> None:
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 200, (50, 10, 10, 3)).cumsum(axis=2) % 251
    maps = Maps(smooth.astype(np.uint8).reshape(-1, 3), np.arange(51, dtype=np.int64) * 100, (10, 10))
    patcher = Patcher((3, 3), (1, 1), "valid")
    layer = whitening(maps, patcher, "tanh", (1, 1), epsilon=0.0)
    windows = maps.windows(patcher)[0].astype(np.float64)
    values = windows @ layer.weights[0] + layer.biases[0]
    np.testing.assert_allclose(np.cov(values[:, :27].T), np.eye(27), atol=1e-2)
    np.testing.assert_allclose(values[:, :27], -values[:, 27:], atol=1e-3)
    assert layer.features(2) == 0


def test_bits_of_sign_whitening_tell_weak_from_strong() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3200, 1)).astype(np.uint8)
    maps = Maps(pixels, np.arange(51, dtype=np.int64) * 64, (8, 8))
    layer = whitening(maps, Patcher((1, 1), (1, 1), "same"), "sign", (2, 2))
    bits = np.asarray(layer.forward(maps).values)
    assert bits.shape[1] == 4
    assert (bits.mean(0) > 0.1).all()
    assert (bits.mean(0) < 0.5).all()
    assert set(np.unique(layer.next_input(layer.forward(maps)).values)) == {-1.0, 1.0}


def test_pooling_halves_long_axes_alone() -> None:
    assert pooling((32, 16, 8, 5)) == (2, 2, 1, 1)


def test_pooled_maps_are_means_and_largest_of_blocks() -> None:
    values = np.random.default_rng(0).standard_normal((2, 4, 6, 3)).astype(np.float32)
    index = Patcher((2, 2), (2, 2), "valid").grid_index((4, 6))
    blocks = values.reshape(2, 2, 2, 3, 2, 3)
    out = np.empty((2, 6, 3), np.float32)
    pool_mean(values.reshape(2, 24, 3), index, out)
    np.testing.assert_allclose(out, blocks.mean(axis=(2, 4)).reshape(2, 6, 3), rtol=1e-5, atol=1e-6)
    pool_max(values.reshape(2, 24, 3), index, out)
    np.testing.assert_array_equal(out, blocks.max(axis=(2, 4)).reshape(2, 6, 3))


def test_moments_of_pixels_are_integers() -> None:
    assert Moments.of(27, np.uint8).outer.dtype == np.int64


def test_a_layer_without_regions_gives_no_features() -> None:
    patcher = Patcher((1, 1), (1, 1), "same")
    layer = Layer((patcher,), (np.eye(2, dtype=np.float32),), (np.zeros(2, np.float32),), "relu", Regions("none"))
    assert layer.features(2) == 0


def test_mirrored_images_are_answered_too(tmp_path: Path) -> None:
    source = hub(tmp_path / "images.parquet", 200)
    network = train(source, replace(SMALL, layers=1, polish=2)).network
    for rows, probabilities in predict(network, source, flips=True):
        assert isinstance(rows.input, ImageColumn)
        views = [rows.input, ImageColumn(rows.input.pixels[:, :, ::-1].copy())]
        expected = np.mean([network.probabilities(view) for view in views], axis=0)
        np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
    words = open_source(str(write_parquet(tmp_path / "words.parquet", {"text": ["a"], "label": ["b"]})))
    with pytest.raises(UsageError, match="only images can be mirrored"):
        next(predict(network, words, flips=True))


def test_images_that_are_all_held_out_and_of_one_class(tmp_path: Path) -> None:
    pixels, _ = stripes(4, (8, 8, 3))
    path = write_hub_images(tmp_path / "few.parquet", pixels, [0, 1, 0, 1], ["a", "b"])
    with pytest.raises(DataError, match="all 4 rows are held out: give a smaller --valid-fraction"):
        train(open_source(str(path)), replace(SMALL, valid_fraction=0.999999))
    path = write_hub_images(tmp_path / "one.parquet", pixels, [1, 1, 1, 1], ["a", "b"])
    with pytest.raises(DataError, match="only 'b'"):
        train(open_source(str(path)), SMALL)


def test_no_images() -> None:
    patcher = Patcher((3, 3), (1, 1), "same")
    layer = Layer((patcher,), (np.ones((9, 2), np.float32),), (np.zeros(2, np.float32),), "relu", Regions("grid", (2,)),
                  pooling=(2, 2))  # fmt: skip
    features, outputs = Network(SMALL, ("a", "b"), None, [layer]).forward(
        Maps(np.empty((0, 1), np.uint8), np.zeros(1, np.int64), (4, 4))
    )
    assert features.shape == (0, 12)
    assert (len(outputs), outputs.grid) == (0, (2, 2))
