"""Images, and pictures with more axes, through the same trainer as logs, from real files."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import seqbag
from seqbag import packed
from seqbag.batch import ImageColumn, InputKind, LabelColumn, Rows, Source
from seqbag.config import TrainConfig
from seqbag.errors import DataError, UsageError
from seqbag.kernels.maps import pool_mean
from seqbag.layer import Layer, Maps
from seqbag.narrowing import pooling
from seqbag.network import Network
from seqbag.patches import Patcher
from seqbag.prediction import evaluate, predict
from seqbag.projection import Moments
from seqbag.quantise import Kind, quantise
from seqbag.regions import Regions
from seqbag.signpass import passing
from seqbag.spill import PROCESS
from seqbag.store import Model, load, save, to_bytes
from seqbag.trainer import train
from seqbag.whitening import whitening
from seqbag_connectors import open_source
from tests.builders import stripes, write_hub_images, write_parquet
from tests.opened import hub

SMALL = TrainConfig.for_kind(
    "image",
    layers=2,
    filters=(12,),
    hidden=16,
    readout=16,
    regions="grid:2",
    polish=8,
    samples=16,
    shift=1,
    project=8,
    epochs=12,
    valid_fraction=0.2,
    smoothing=0.0,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Path]:
    """A net of one layer, and the 200 images of 16 x 16 it was trained on."""
    path = tmp_path_factory.mktemp("small") / "images.parquet"
    return train(hub(path, 200), replace(SMALL, layers=1, polish=2)).network, path


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


@pytest.mark.parametrize(
    "change",
    [
        {}, {"readout": 0}, {"activation": "sign"}, {"activation": "sign", "signs": 2},
        {"activation": "sign", "signs": 2, "channel_groups": 2, "readout": 0, "filters": (16,)},
        {"activation": "sign", "signs": 2, "codebook": 64},
        {"polish": 0, "codebook": 64}, {"polish": 0, "activation": "sign"}, {"codebook": 64, "channel_groups": 2},
    ],
)  # fmt: skip
def test_images_are_learned_and_survive_their_file(tmp_path: Path, change: dict[str, object]) -> None:
    source = hub(tmp_path / "images.parquet")
    trained = train(source, replace(SMALL, **change))
    assert trained.valid_accuracy > 0.9
    assert [layer.pooling for layer in trained.network.layers] == [(2, 2), (1, 1), (2, 2)]
    groups = change.get("channel_groups", 1) if "codebook" not in change else 1  # those of counts read all channels
    assert [layer.channel_groups for layer in trained.network.layers] == [1, 1, groups]
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
    trained = train(lists(tmp_path / "video.parquet", 300, (4, 8, 8, 1)), replace(SMALL, filters=(8,)))
    assert trained.network.layers[1].patchers[0].window == (3, 3, 3)
    assert trained.network.shape == (4, 8, 8, 1)
    assert trained.valid_accuracy > 0.8


def test_maps_that_do_not_fit_the_memory_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqbag.polishing._CACHE_SHARE", 0.0)
    monkeypatch.setattr("seqbag.polishing._BLOCK_SHARE", 5e-4)
    trained = train(hub(tmp_path / "images.parquet", 300), replace(SMALL, layers=1))
    assert trained.valid_accuracy > 0.8
    monkeypatch.setattr("seqbag.polishing._BLOCK_SHARE", 0.0)  # blocks of one image, of which some are held out
    assert train(hub(tmp_path / "few.parquet", 40), replace(SMALL, layers=1, polish=1)).rows == 40


def test_views_that_do_not_fit_the_memory_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, config = hub(tmp_path / "images.parquet", 300), replace(SMALL, layers=1, polish=2, views=2)
    two = train(source, config).network
    one_view = 300 * 8 * 8 * 54
    monkeypatch.setattr("seqbag.polishing._CACHE_SHARE", 2.5 * one_view / (config.memory - PROCESS))
    four = train(source, replace(config, views=4)).network
    np.testing.assert_array_equal(four.layers[1].weights[0], two.layers[1].weights[0])
    assert four.classifier is not None
    assert two.classifier is not None
    np.testing.assert_array_equal(four.classifier.parameters["out"], two.classifier.parameters["out"])


def test_the_same_seed_gives_the_same_net_on_any_number_of_threads(tmp_path: Path) -> None:
    source = hub(tmp_path / "images.parquet", 300)
    nets = [train(source, replace(SMALL, layers=1, polish=2, threads=threads)).network for threads in (1, 2)]
    for one, two in zip(*(net.layers for net in nets), strict=True):
        np.testing.assert_array_equal(one.weights[0], two.weights[0])


def test_images_of_another_shape_are_refused_by_both_shapes(small: tuple[Network, Path]) -> None:
    network, _ = small
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
    assert np.unique(layer.next_input(layer.forward(maps)).values).tolist() == [-1, -0.5, 0, 0.5, 1]


def test_pooling_halves_long_axes_alone() -> None:
    assert pooling((32, 16, 8, 7, 5)) == (2, 2, 2, 1, 1)
    assert pooling((32, 17, 16, 8, 5), whole=True) == (2, 2, 1, 1, 1)


def test_pooled_maps_are_means_of_blocks() -> None:
    values = np.random.default_rng(0).standard_normal((2, 4, 6, 3)).astype(np.float32)
    index = Patcher((2, 2), (2, 2), "valid").grid_index((4, 6))
    blocks = values.reshape(2, 2, 2, 3, 2, 3)
    out = np.empty((2, 6, 3), np.float32)
    pool_mean(values.reshape(2, 24, 3), index, out)
    np.testing.assert_allclose(out, blocks.mean(axis=(2, 4)).reshape(2, 6, 3), rtol=1e-5, atol=1e-6)


def test_moments_of_pixels_are_integers() -> None:
    assert Moments.of(27, np.uint8).outer.dtype == np.int64


def test_a_layer_without_regions_gives_no_features() -> None:
    patcher = Patcher((1, 1), (1, 1), "same")
    layer = Layer((patcher,), (np.eye(2, dtype=np.float32),), (np.zeros(2, np.float32),), "relu", Regions("none"))
    assert layer.features(2) == 0


def test_mirrored_images_are_answered_too(small: tuple[Network, Path], tmp_path: Path) -> None:
    network, path = small
    source = open_source(str(path))
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


def test_pictures_of_one_axis_are_refused(tmp_path: Path) -> None:
    source = hub(tmp_path / "images.parquet", 40)

    class Lines(Gaps):
        def batches(self, size: int) -> Iterator[Rows]:
            for rows in super().batches(size):
                assert isinstance(rows.input, ImageColumn)
                yield Rows(ImageColumn(rows.input.pixels[:, 0]), rows.labels)

    with pytest.raises(DataError) as caught:
        train(Lines(source, False), SMALL)
    told = "images are of the shape (16, 3), which is one of lines: give height, width and channels"
    assert str(caught.value) == f"{source.describe()}: {told}"


def test_images_unlike_those_trained_on_are_answered(tmp_path: Path) -> None:
    """Means of activations may then be larger than a half can hold."""
    pixels, labels = stripes(300, (16, 16, 3))
    dark = write_hub_images(tmp_path / "dark.parquet", (pixels > 128).astype(np.uint8), labels, ["across", "down"])
    network = train(open_source(str(dark)), replace(SMALL, layers=1)).network
    network.layers[1].weights[0][:] *= 1e6
    noise = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    assert np.isfinite(network.probabilities(ImageColumn(noise))).all()


def test_few_large_maps_go_through_a_layer_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def watched(*settings: Any) -> Any:
        make = passing(*settings)
        return lambda piece, view: (taken.append(len(piece)), make(piece, view))[1]

    monkeypatch.setattr("seqbag.trainer.passing", watched)
    monkeypatch.setattr("seqbag.trainer._CACHED_SITES", 3 * 8 * 8)  # halved by the whitening
    assert train(hub(tmp_path / "images.parquet", 100), replace(SMALL, layers=1, polish=1)).rows == 100
    assert max(taken) <= 3
    assert sum(taken) == 100 * SMALL.views


def test_bags_of_images_that_are_kept_are_held_to_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a polish starts from counts, and the second layer's rows come from the cache."""
    monkeypatch.setattr("seqbag.spill._LEAST_BAGS", 20_000)
    monkeypatch.setattr("seqbag.spill._BAGS_SHARE", 0.0)
    trained = train(hub(tmp_path / "images.parquet", 600), replace(SMALL, layers=2, polish=1, codebook=64))
    assert all(layer.clusters for layer in trained.layers)


def test_no_images() -> None:
    patcher = Patcher((3, 3), (1, 1), "same")
    layer = Layer((patcher,), (np.ones((9, 2), np.float32),), (np.zeros(2, np.float32),), "relu", Regions("grid", (2,)),
                  pooling=(2, 2))  # fmt: skip
    features, outputs = Network(SMALL, ("a", "b"), None, [layer]).forward(
        Maps(np.empty((0, 1), np.uint8), np.zeros(1, np.int64), (4, 4))
    )
    assert features.shape == (0, 12)
    assert (len(outputs), outputs.grid) == (0, (2, 2))


class Gaps:
    """A source of images with batches of no rows before, between and after those that hold some."""

    kind: InputKind = "image"

    def __init__(self, source: Source, empty: bool) -> None:
        self.rows, self.fingerprint, self.describe = source.rows, source.fingerprint, source.describe
        self._source, self._empty = source, empty

    def batches(self, size: int) -> Iterator[Rows]:
        for rows in self._source.batches(min(size, 70)):
            assert isinstance(rows.input, ImageColumn)
            none = Rows(ImageColumn(rows.input.pixels[:0]), LabelColumn(np.zeros(0, np.int32), ()))
            yield from (none, rows, none) if self._empty else (rows,)


@pytest.mark.parametrize("change", [{"views": 4}, {"polish": 0, "codebook": 16}])
def test_batches_without_images_change_nothing(small: tuple[Network, Path], change: dict[str, object]) -> None:
    source = open_source(str(small[1]))
    config = replace(SMALL, layers=1, **{"polish": 1, "epochs": 2} | change)
    with_gaps, without = (train(Gaps(source, empty), config).model({}) for empty in (True, False))
    assert to_bytes(with_gaps) == to_bytes(without)
    for flips in (False, True):
        metrics = [evaluate(with_gaps.network, Gaps(source, gaps), 2, flips=flips).metrics for gaps in (True, False)]
        assert metrics[0].rows == 200
        assert metrics[0].per_class() == metrics[1].per_class()
        assert metrics[0].log_loss == metrics[1].log_loss


@pytest.mark.parametrize("options", [{}, {"where": "label = 0"}, {"where": "label = 0", "skip_bad": True}])
def test_a_row_group_without_images_is_passed_over(
    small: tuple[Network, Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    network, path = small
    table = pq.read_table(path)
    with pq.ParquetWriter(tmp_path / "gap.parquet", table.schema) as writer:
        for start, stop in ((0, 50), (50, 50), (50, 200)):
            writer.write_table(table.slice(start, stop - start))
    assert pq.ParquetFile(tmp_path / "gap.parquet").metadata.row_group(1).num_rows == 0
    whole, gap = (open_source(str(file), **options) for file in (path, tmp_path / "gap.parquet"))
    expected, found = (np.concatenate([p for _, p in predict(network, source)]) for source in (whole, gap))
    np.testing.assert_array_equal(found, expected)
    assert evaluate(network, gap).metrics.rows == len(expected)


def test_a_filter_that_leaves_no_images_is_refused(small: tuple[Network, Path]) -> None:
    network, path = small
    source = open_source(str(path), where="1=0")
    for use in (evaluate, lambda *given: list(predict(*given))):
        with pytest.raises(DataError) as caught:
            use(network, source)
        assert str(caught.value) == f"{path}: no rows match --where; give a source that holds some"


def test_no_images_have_no_answers(small: tuple[Network, Path], tmp_path: Path) -> None:
    network, none = small[0], np.empty((0, 16, 16, 3), np.uint8)
    kind = Kind("ternary", "float")
    columns = {"kind": "image", "input": "img", "label": "label"}
    (tmp_path / "packed").write_bytes(packed.to_bytes(Model(quantise(network, kind), columns, {}), kind))
    save(Model(network, columns, {}), tmp_path / "model")
    for name in ("packed", "model"):
        predictor = seqbag.load(tmp_path / name)
        assert predictor.probabilities(none).shape == (0, 2)
        assert predictor.predict(none) == []
