"""The network and all around it: losses, crops, training, the model file, prediction."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from nuclei_unet import metrics
from nuclei_unet.errors import InputError
from nuclei_unet.network import model_file, runtime, unet
from nuclei_unet.network.batch_norm import FusedBatchNormalization
from nuclei_unet.prediction import predictor as predict
from nuclei_unet.prediction.blocks import blocks
from nuclei_unet.prediction.instances import label_nuclei
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.sample import ArraySample
from nuclei_unet.training import crops, fit, losses, resume, targets
from pipeline.dataset import processed as dataset

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.fixture(scope="module")
def model_params(settings):
    """Return a `train.model` section of a tiny network, with other values for some of its keys."""
    plain = {"stem_stride": 1, "filters": (2, 3), "dropout": (0.0, 0.1), "normalization": "batch"}
    return lambda **values: settings.train.model.model_copy(update=plain | values)


@pytest.fixture(scope="module")
def train_params(settings, model_params):
    """Return a `train` section that is over in seconds and changes no crop, with other values for some keys."""
    still = {
        "flip": False,
        "rotate": False,
        "zoom": (1.0, 1.0),
        "gamma": (1.0, 1.0),
        "contrast": 0.0,
        "noise": 0.0,
        "blur": 0.0,
        "invert": 0.0,
    }
    plain = {
        "precision": "float32",
        "targets": targets.TARGETS,
        "crop_size": 32,
        "kind_balance": 0.0,
        "batch_size": 2,
        "epochs": 1,
        "steps_per_epoch": 2,
        "model": model_params(),
    }

    def make(augment=(), **values):
        section = settings.train.augment.model_copy(update=still | dict(augment))
        return settings.train.model_copy(update=plain | {"augment": section} | values)

    return make


def sample(number, shape=(32, 32), kind="small-fluorescent"):
    """Return an image that is its own foreground: nuclei 255, background 0."""
    labels = np.zeros(shape, np.uint16)
    rng = np.random.default_rng(number)
    for label in range(1, 5):
        row, column = rng.integers(0, np.maximum(np.array(shape) - 7, 1))
        labels[row : row + 7, column : column + 7] = label
    return ArraySample(f"image{number}", "train", kind, ((labels > 0) * 255).astype(np.uint8), labels)


# ---- network


@pytest.mark.parametrize("stem", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_map_a_target_as_large_as_the_image(stem, channels, model_params):
    model = unet.build(channels, ("foreground", "distance"), model_params(stem_stride=stem))
    assert model.input_shape == (None, None, None, channels)
    maps = model(np.full((2, 8, 12, channels), 255, np.float32))
    assert list(maps) == ["foreground", "distance"]
    for values in maps.values():
        assert values.shape == (2, 8, 12, 1) and values.dtype == "float32"
        assert values.numpy().min() >= 0 and values.numpy().max() <= 1


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear", "transposed"])
@pytest.mark.parametrize("normalization", ["batch", "none"])
@pytest.mark.parametrize("dropout", [(0.0, 0.0, 0.0), (0.2, 0.0, 0.5)])
def test_variants(upsampling, normalization, dropout, model_params):
    params = model_params(filters=(2, 3, 4), dropout=dropout, normalization=normalization, upsampling=upsampling)
    model = unet.build(1, ("foreground",), params)
    assert model(np.zeros((1, 8, 8, 1), np.float32))["foreground"].shape == (1, 8, 8, 1)
    kinds = [type(layer).__name__ for layer in model.layers]
    # Five blocks of two convolutions: three down, two up.
    assert kinds.count("Conv2D") == 10
    assert kinds.count("BatchNormalization") == (10 if normalization == "batch" else 0)
    assert kinds.count("Dropout") == 3 * bool(any(dropout))  # levels 0 (down and up) and 2
    assert kinds.count("UpSampling2D") == (0 if upsampling == "transposed" else 2)
    assert kinds.count("Conv2DTranspose") == (3 if upsampling == "transposed" else 1)


def test_mixed_precision_gives_float32_maps(model_params):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = unet.build(1, ("foreground",), model_params(stem_stride=2))
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("down0_conv1").compute_dtype == "bfloat16"
    assert model(np.zeros((1, 8, 8, 1), np.float32))["foreground"].dtype == "float32"


@pytest.mark.parametrize(("stem", "filters", "multiple"), [(1, (2, 2), 2), (2, (2, 2), 4), (2, (2, 2, 2, 2), 16)])
def test_size_multiple(stem, filters, multiple, model_params):
    assert unet.size_multiple(model_params(stem_stride=stem, filters=filters)) == multiple


# ---- prediction


@pytest.fixture(scope="module")
def views(settings):
    """Return an `evaluate` section that looks at an image once, as it is, with other values for some keys."""
    plain = {"orientations": 1, "scales": (1.0,), "outline_range": 0.0}
    return lambda **values: settings.evaluate.model_copy(update=plain | values)


@pytest.fixture(scope="module")
def predictor(model_params, views):
    params = model_params(stem_stride=2)
    return Predictor(unet.build(1, ("foreground", "border"), params), params, views())


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (37, 53), (256, 256), (300, 517)])
def test_any_size(shape, predictor):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    maps = predictor.maps(image)
    assert list(maps) == ["foreground", "border"]
    for values in maps.values():
        assert values.shape == shape and values.dtype == np.float32
        assert 0 <= values.min() <= values.max() <= 1


def test_what_the_network_sees_of_the_image_stays_in_place(predictor):
    # 8 x 12 needs no padding; 7 x 11 is padded with what is there in the other.
    image = np.random.default_rng(0).integers(0, 256, (7, 11), dtype=np.uint8)
    padded = np.pad(image, ((0, 1), (0, 1)), mode="symmetric")
    for name, values in predictor.maps(image).items():
        np.testing.assert_allclose(values, predictor.maps(padded)[name][:7, :11], atol=1e-6)


def test_colour_images_and_maps_at_another_size(model_params, views):
    params = model_params()
    predictor = Predictor(unet.build(3, ("foreground",), params), params, views())
    image = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    native, larger = predictor.maps(image)["foreground"], predictor.maps(image, (18, 42))["foreground"]
    assert native.shape == (9, 14) and larger.shape == (18, 42)
    assert native.min() <= larger.min() <= larger.max() <= native.max()
    np.testing.assert_array_equal(predictor.maps(image, (9, 14))["foreground"], native)


def test_folded_normalization_gives_the_same_maps(model_params):
    params = model_params(filters=(4, 6))
    model = unet.build(2, ("foreground", "distance"), params)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name.endswith("_norm"):  # as if trained: no mean of 0, no variance of 1
            layer.set_weights([rng.uniform(0.5, 2, weights.shape) for weights in layer.get_weights()])
    folded = unet.fold_batch_normalization(model, params)
    assert not [layer for layer in folded.layers if layer.name.endswith("_norm")]
    images = rng.uniform(0, 255, (2, 8, 8, 2)).astype(np.float32)
    for name, values in model(images, training=False).items():
        np.testing.assert_allclose(folded(images)[name], values, atol=1e-5)
    plain = unet.build(1, ("foreground",), model_params(normalization="none"))
    assert unet.fold_batch_normalization(plain, model_params(normalization="none")) is plain


@pytest.mark.parametrize("shape", [(64, 64), (64, 200), (130, 257)])
def test_cores_tile_the_image_and_lie_in_their_blocks(shape):
    covered = np.zeros(shape, int)
    for core, block in blocks(shape, 64, 16):
        covered[core] += 1
        for inner, outer, side in zip(core, block, shape, strict=True):
            assert outer.start == max(inner.start - 16, 0) and outer.stop == min(inner.stop + 16, side)
    assert (covered == 1).all()


@pytest.fixture
def small_blocks(monkeypatch):
    """Let 192 pixels be a block: cores of 128 pixels."""
    monkeypatch.setattr(predict, "BLOCK", 192)
    monkeypatch.setattr(predict, "MARGIN", 32)


def test_maps_of_blocks_are_the_maps_of_the_image(predictor):
    image = np.random.default_rng(0).integers(0, 256, (300, 200), dtype=np.uint8)
    whole = predictor.maps(image)
    for core, block in blocks(image.shape, 128, 32):
        inside = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(core, block, strict=True))
        for name, values in predictor.maps(image[block]).items():
            np.testing.assert_allclose(values[inside], whole[name][core], atol=1e-6)


class Bright(Predictor):
    """Sees nuclei where it is bright, and their middles where it is brightest."""

    def __init__(self, views):
        self.views, self.seen = views, []

    def maps(self, image, shape=None):
        self.seen.append(image.shape)
        return {"foreground": (image > 0).astype(np.float32), "distance": image / np.float32(255)}


def cones(shape, centres, radius):
    """Draw nuclei, brightest in the middle."""
    image = np.zeros(shape, np.uint8)
    rows, columns = np.indices(shape)
    for row, column in centres:
        distance = np.hypot(rows - row, columns - column)
        image = np.maximum(image, np.clip(255 * (1 - distance / radius), 0, 255).astype(np.uint8))
    return image


def test_nuclei_found_block_by_block_are_those_of_the_whole_image(small_blocks, views):
    # Also on the seams (128, 256) and where four blocks meet; touching ones, too.
    grid = [(row, column) for row in range(8, 400, 24) for column in range(8, 300, 24)]
    image = cones((400, 300), grid, 13)
    predictor = Bright(views(min_area=5))
    found, whole = predictor.labels(image), label_nuclei(Bright(views()).maps(image), views(min_area=5))
    assert len(predictor.seen) == 12 and max(max(shape) for shape in predictor.seen) <= 192
    assert found.dtype == np.uint16 and found.max() == whole.max() == len(grid)
    # Where nuclei touch, pixels as near to one as to the other may go to either.
    ious = metrics.instance_counts(whole, found).matched_ious
    assert len(ious) == len(grid) and min(ious) > 0.9
    np.testing.assert_array_equal(found > 0, whole > 0)


def test_a_nucleus_larger_than_the_blocks_stays_one(small_blocks, views):
    image = cones((500, 500), [(250, 250)], 200)
    # Its slopes are cut by the blocks' edges, but it has no second summit.
    found = Bright(views(prominence=0.9)).labels(image)
    assert found.max() == 1
    np.testing.assert_array_equal(found > 0, image > 0)


@pytest.mark.parametrize("value", [0, 255])
def test_empty_and_full_images_block_by_block(value, small_blocks, views):
    found = Bright(views()).labels(np.full((200, 300), value, np.uint8))
    assert found.shape == (200, 300) and found.max() == (value > 0) and (found == (value > 0)).all()


def test_more_nuclei_than_16_bits_hold(small_blocks, views):
    image = np.zeros((1030, 1030), np.uint8)
    image[::4, ::4] = 255
    found = Bright(views(min_area=1, smoothing=0)).labels(image)
    assert found.dtype == np.uint32 and found.max() == (image > 0).sum() == np.unique(found).size - 1


def test_images_that_fit_are_one_block(small_blocks, views):
    predictor = Bright(views())
    predictor.labels(np.zeros((192, 100), np.uint8))
    assert predictor.seen == [(192, 100)]


# ---- losses


def maps_of(*rows):
    """Return maps (N, 1, W, 1), a list a map."""
    return np.array(rows, np.float32)[:, None, :, None]


def test_losses_are_near_0_if_perfect_and_large_if_all_is_wrong():
    truth = maps_of([0, 0, 1, 1] * 500)
    for loss in (losses.bce, losses.bce_dice):
        assert loss(truth, truth).shape == (1,)
        assert float(loss(truth, truth)[0]) < 1e-5
        assert float(loss(truth, 1 - truth)[0]) > 10


def test_bce_by_hand():
    found = losses.bce(maps_of([1, 0], [1, 1]), maps_of([0.5, 0.5], [0.25, 1]))
    np.testing.assert_allclose(found, [np.log(2), np.log(4) / 2], rtol=1e-5)


def test_bce_dice_adds_1_minus_dice_by_hand():
    truth, predicted = maps_of([1, 1, 0, 0]), maps_of([0.5, 0.5, 0.5, 0.5])
    # shared 1, total 2 + 2, and 100 on top of both
    np.testing.assert_allclose(losses.bce_dice(truth, predicted), [np.log(2) + 1 - 102 / 104], rtol=1e-5)


def test_bce_dice_without_foreground_has_no_dice_to_speak_of():
    empty = maps_of([0] * 50)
    assert float(losses.bce_dice(empty, empty)[0]) < 1e-5


def test_iou_and_dice_by_hand():
    truth = maps_of([1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1])
    predicted = maps_of([0.9, 0.6, 0.5, 0.8], [0.1, 0.2, 0.5, 0], [0.6, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1])
    # 0.5 is not above the threshold.
    np.testing.assert_allclose(losses.iou(truth, predicted), [2 / 4, 1, 0, 0, 1])
    np.testing.assert_allclose(losses.dice(truth, predicted), [4 / 6, 1, 0, 0, 1], rtol=1e-6)


# ---- crops


AUGMENTED = {"flip": True, "rotate": True, "zoom": (0.6, 1.8), "gamma": (0.6, 1.6), "contrast": 0.3, "noise": 0.05}


def test_a_crop_follows_from_its_number(train_params):
    samples = [sample(n, (50, 60)) for n in range(3)]
    params = train_params(AUGMENTED, kind_balance=0.5)
    first, again = crops.Crops(samples, params), crops.Crops(samples, params)
    drawn = [first.draw(number) for number in range(6)]
    for number in reversed(range(6)):
        for pixels, same in zip(drawn[number], again.draw(number), strict=True):
            np.testing.assert_array_equal(pixels, same)
    assert len({image.tobytes() for image, _ in drawn}) == 6
    other = crops.Crops(samples, params.model_copy(update={"seed": params.seed + 1}))
    assert (other.draw(0)[0] != drawn[0][0]).any()


@pytest.mark.parametrize("augment", [{}, {"flip": True}, {"rotate": True}, {"flip": True, "zoom": (0.5, 2.0)}])
def test_image_and_maps_move_together(augment, train_params):
    source = crops.Crops([sample(0, (50, 60))], train_params(augment))
    found = [source.draw(number) for number in range(8)]
    for image, maps in found:
        assert image.shape == (32, 32, 1) and maps.shape == (32, 32, 3) and image.dtype == maps.dtype == np.uint8
        np.testing.assert_array_equal(image[..., 0], maps[..., 0])
    assert len({image.tobytes() for image, _ in found if image.any()}) > 5


def test_without_augmentation_a_crop_as_large_as_the_image_is_the_image(train_params):
    samples = [sample(n) for n in range(3)]
    source = crops.Crops(samples, train_params())
    drawn = {image.tobytes(): maps for image, maps in map(source.draw, range(3))}
    assert len(drawn) == 3
    for one in samples:
        np.testing.assert_array_equal(drawn[one.image.tobytes()], targets.target_maps(one.labels))


def test_a_flip_mirrors_exactly(train_params):
    one = sample(0)
    source = crops.Crops([one], train_params({"flip": True}))
    found = {source.draw(number)[0].tobytes() for number in range(12)}
    assert found == {one.image.tobytes(), np.ascontiguousarray(one.image[:, ::-1]).tobytes()}


def test_without_balance_every_image_comes_once_before_any_twice(train_params):
    samples = [sample(n) for n in range(5)]
    source = crops.Crops(samples, train_params())
    for start in (0, 5, 10):
        assert len({source.draw(number)[0].tobytes() for number in range(start, start + 5)}) == 5


def test_colours_stay_in_their_channels(train_params):
    one = sample(0)
    image = np.dstack([one.image, one.image // 2, np.zeros_like(one.image)])
    source = crops.Crops([ArraySample("a", "train", "purple-on-white", image, one.labels)], train_params())
    np.testing.assert_array_equal(source.draw(0)[0], image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 3), (20, 90)])
def test_images_smaller_than_a_crop_are_mirrored(shape, train_params):
    one = ArraySample("a", "train", "grey-tissue", np.full(shape, 9, np.uint8), np.ones(shape, np.uint16))
    for image, maps in (
        crops.Crops([one], train_params({"rotate": True})).draw(0),
        crops.Crops([one], train_params()).middle(0),
    ):
        assert (image == 9).all() and image.shape == (32, 32, 1)
        assert (maps[..., 0] == 255).all() and maps.shape == (32, 32, 3)


def test_the_middle_is_the_image_as_it_is(train_params):
    one = sample(0, (40, 52))
    image, maps = crops.Crops([one], train_params(targets=("foreground", "distance"))).middle(0)
    np.testing.assert_array_equal(image[..., 0], one.image[4:36, 10:42])
    np.testing.assert_array_equal(maps, targets.target_maps(one.labels)[4:36, 10:42, [0, 2]])


@pytest.mark.parametrize("memory", [0, 5_000])
def test_images_that_memory_does_not_hold_are_read_again(memory, train_params, tmp_path, monkeypatch):
    rows = []
    for number in range(4):
        one = sample(number, (30 + number, 40))
        dataset.write_sample(tmp_path, one.image_id, one.image, one.labels)
        rows.append((one.image_id, "train", one.kind, 0, 30, 40, 4))
    pd.DataFrame(rows, columns=dataset.MANIFEST_COLUMNS).to_csv(tmp_path / "manifest.csv", index=False)
    stored, params = dataset.read_split("train", tmp_path), train_params(AUGMENTED)
    all_kept = crops.Crops(stored, params)
    monkeypatch.setattr(crops, "MEMORY", memory)
    some_kept = crops.Crops(stored, params)
    for number in range(8):
        for ours, theirs in zip(all_kept.draw(number), some_kept.draw(number), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_maps_follow_a_resized_image(train_params):
    one = sample(0, (64, 64))
    resized = ArraySample("a", "train", "grey-tissue", one.image[::2, ::2], one.labels)
    maps = crops.Crops([resized], train_params()).draw(0)[1]
    assert maps.shape == (32, 32, 3) and ((maps[..., 0] > 127) == (resized.image > 0)).mean() > 0.9


@pytest.mark.parametrize(
    ("augment", "changed"),
    [
        ({}, False),
        ({"gamma": (0.5, 0.5)}, True),
        ({"contrast": 0.5}, True),
        ({"noise": 0.2}, True),
        ({"invert": 1.0}, True),
    ],
)
def test_intensities(augment, changed, train_params):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = crops.change_intensities(image, train_params(augment).augment, np.random.default_rng(1))
    assert found.dtype == np.uint8 and found.shape == image.shape
    assert (found != image).any() == changed
    if "invert" in augment:
        np.testing.assert_array_equal(found, 255 - image)


def test_blur_is_left_out_of_half_of_the_crops(train_params):
    image = sample(0).image
    params = train_params({"blur": 2.0}).augment
    seen = [crops.change_intensities(image, params, np.random.default_rng(n)) for n in range(40)]
    sharp = sum((pixels == image).all() for pixels in seen)
    assert 10 < sharp < 30 and all(abs(float(pixels.mean()) - image.mean()) < 2 for pixels in seen)


def test_kind_weights():
    kinds = ["a", "b", "a", "a"]
    np.testing.assert_allclose(crops.kind_weights(kinds, 0), [1 / 4] * 4)
    np.testing.assert_allclose(crops.kind_weights(kinds, 1), [1 / 6, 1 / 2, 1 / 6, 1 / 6])
    # Kinds weigh as the roots of their counts.
    of_a = np.sqrt(3) / (np.sqrt(3) + 1) / 3
    np.testing.assert_allclose(crops.kind_weights(kinds, 0.5), [of_a, 1 - 3 * of_a, of_a, of_a])


def test_batches_hold_all_crops_in_order(train_params):
    one = crops.Crops([sample(0, (50, 60))], train_params(AUGMENTED))
    batches = list(crops.as_dataset(one.draw, range(3), train_params(), channels=1))
    assert [images.shape[0] for images, _ in batches] == [2, 1]
    for number, (image, maps) in enumerate(map(one.draw, range(3))):
        images, wanted = batches[number // 2]
        np.testing.assert_array_equal(images[number % 2], image)
        assert list(wanted) == list(targets.TARGETS)
        for i, name in enumerate(targets.TARGETS):
            np.testing.assert_allclose(wanted[name][number % 2, ..., 0], maps[..., i] / 255, rtol=1e-6)


# ---- model file


@pytest.fixture
def saved(tmp_path, model_params):
    """Return a function that builds a network, writes it and returns (model, path)."""

    def save(name="model.keras"):
        keras.utils.set_random_seed(3)
        model = unet.build(1, ("foreground", "border"), model_params(stem_stride=2))
        model_file.save(model, tmp_path / name)
        return model, tmp_path / name

    return save


def test_the_same_weights_give_the_same_bytes(saved, model_params, tmp_path):
    _, first = saved("first.keras")
    unet.build(1, ("foreground",), model_params())  # moves all counters and addresses
    _, second = saved("second.keras")
    assert first.read_bytes() == second.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"first.keras", "second.keras"}


@pytest.mark.parametrize("load", [keras.saving.load_model, model_file.load])
def test_a_saved_model_loads_and_predicts_the_same(load, saved):
    model, path = saved()
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1)).astype(np.float32)
    before, after = model(image), load(path)(image)
    assert set(after) == {"foreground", "border"}
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def rewritten(path, member, data):
    """Write a model file again with other content for one member, or without it if that is None."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            if name != member:
                archive.writestr(name, content)
            elif data is not None:
                archive.writestr(name, data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no model"),
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"HDF", b"XXX")),
        lambda path: rewritten(path, "config.json", None),
        lambda path: rewritten(path, "config.json", b"{"),
        lambda path: rewritten(path, "config.json", b"[]"),
        lambda path: rewritten(path, "config.json", b"[" * 100_000),
        lambda path: rewritten(path, "config.json", b'{"module": "os", "class_name": "system", "config": {}}'),
        lambda path: rewritten(path, "model.weights.h5", None),
        lambda path: rewritten(path, "model.weights.h5", b"no weights"),
    ],
)
def test_a_damaged_model_file_is_named(damage, saved):
    _, path = saved()
    damage(path)
    with pytest.raises(InputError, match=r"model\.keras: .*run `dvc repro train`") as caught:
        model_file.load(path)
    assert "\n" not in str(caught.value)


def harmful(path, layer):
    """Put a layer that Keras calls when it loads the file in the place of the first one."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    first = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Rescaling")
    first |= layer
    first["config"]["name"] = first["name"]
    rewritten(path, "config.json", json.dumps(config))


def test_a_model_file_runs_no_code(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, path = saved()
    layer = keras.layers.Lambda(lambda x: (open("harm", "w").close(), x)[1])  # noqa: PTH123
    harmful(path, keras.saving.serialize_keras_object(layer))
    with pytest.raises(InputError, match=r"model\.keras: .*Lambda"):
        model_file.load(path)
    assert not Path("harm").exists()
    # The file would do it.
    keras.saving.load_model(path, compile=False, safe_mode=False)
    assert Path("harm").exists()


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "builtins", "class_name": "eval", "config": {}},
        {"module": "subprocess", "class_name": "Popen", "config": {"args": ["true"]}},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "elsewhere"}},
        {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/hosts"}},
        *(
            {"module": "keras.layers", "class_name": "Activation", "config": {"activation": activation}}
            for activation in (
                {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
                {
                    "module": "keras.utils",
                    "class_name": "function",
                    "config": "get_file",
                    "registered_name": "get_file",
                },
            )
        ),
    ],
    ids=lambda layer: f"{layer['module']}.{layer['class_name']}",
)
def test_a_model_file_takes_nothing_from_elsewhere(layer, saved):
    _, path = saved()
    harmful(path, layer)
    with pytest.raises(InputError, match=r"model\.keras: not a model that can be loaded"):
        model_file.load(path)


# Hypothesis finds bytes that matter no better than chance does, and a model takes long to load.
@pytest.mark.parametrize("seed", range(40))
def test_a_model_file_of_other_bytes_is_an_input_error_or_a_model(seed, saved):
    _, path = saved()
    random = np.random.default_rng(seed)
    member = ("config.json", "model.weights.h5")[seed % 2]
    with zipfile.ZipFile(path) as archive:
        data = bytearray(archive.read(member))
    for position in random.integers(0, len(data), random.choice([1, 3, 20])):
        data[position] = random.integers(0, 256)
    rewritten(path, member, bytes(data))
    try:
        model_file.load(path)
    except InputError as error:
        assert "\n" not in str(error)


def test_a_model_of_other_parameters_is_named(model_params, views):
    model = unet.build(1, ("foreground",), model_params())
    with pytest.raises(InputError, match=r"not of train\.model in params\.yaml; run `dvc repro train`"):
        Predictor(model, model_params(filters=(4, 6)), views())
    with pytest.raises(InputError, match=r"not of train\.model"):
        Predictor(model, model_params(filters=(2, 3, 4), dropout=(0.0, 0.0, 0.0)), views())


# ---- training


def trained(params, calls=None, state=None, log_epoch=None, log_picture=None):
    runtime.configure(params)
    samples = [sample(n, (40, 48), kind=f"kind{n % 2}") for n in range(4)]
    log_epoch = log_epoch or (lambda *row: None if calls is None else calls.append(row))
    return fit.train(samples[:3], samples[3:], params, 1, log_epoch, state, log_picture)


def test_training_twice_gives_the_same_weights_and_history(train_params, tmp_path):
    params, calls = train_params(AUGMENTED, kind_balance=0.5, targets=("foreground", "border")), []
    (model, history), (again, same) = trained(params, calls), trained(params)
    for weights, others in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, others)
    assert history.equals(same)
    for name, one in (("a.keras", model), ("b.keras", again)):
        model_file.save(one, tmp_path / name)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()

    assert history.epoch.tolist() == [1] and np.isfinite(history.to_numpy(float)).all()
    metrics = {"loss", "val_loss", "foreground_iou", "val_foreground_iou", "foreground_dice", "learning_rate"}
    assert metrics <= set(history.columns)
    assert [epoch for epoch, _ in calls] == [1] and calls[0][1]["loss"] == history.loss[0]


def test_the_fused_normalization_is_keras_own():
    inputs = np.random.default_rng(0).normal(3, 2, (4, 8, 8, 5)).astype(np.float32)
    outputs, moving = [], []
    for kind in (keras.layers.BatchNormalization, FusedBatchNormalization):
        layer = kind(momentum=0.9)
        with tf.GradientTape() as tape:
            x = tf.constant(inputs)
            tape.watch(x)
            training = layer(x, training=True)
            loss = tf.reduce_sum(training**3)
        outputs.append([training, tape.gradient(loss, x), layer(inputs, training=False)])
        moving.append(layer.get_weights())
    for ours, theirs in zip(outputs[1][:2], outputs[0][:2], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
    # The kernel's moving variance is the sum of squares over n - 1, that of Keras over n.
    for ours, theirs in zip([outputs[1][2], *moving[1]], [outputs[0][2], *moving[0]], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3)


def test_training_keeps_the_weights_of_the_best_epoch(train_params):
    # Far too fast after the first epoch, so that a later one is worse.
    params = train_params(epochs=3, learning_rate=0.5, schedule="constant", optimizer="adam", targets=("foreground",))
    model, history = trained(params)
    image, maps = crops.Crops([sample(3, (40, 48), kind="kind1")], params).middle(0)
    predicted = model(image[None].astype(np.float32), training=False)["foreground"]
    loss = losses.bce_dice(maps[None].astype(np.float32) / 255, predicted)
    assert len(history) == 3 and history.val_loss.nunique() > 1
    assert float(loss[0]) == pytest.approx(history.val_loss.min(), rel=1e-4)


def test_early_stopping(train_params):
    params = train_params(epochs=8, early_stopping=1, learning_rate=1e-12, schedule="constant", optimizer="adam")
    params = params.model_copy(update={"model": params.model.model_copy(update={"normalization": "none"})})
    _, history = trained(params)
    assert len(history) < 8


def test_a_loss_that_is_no_number_stops(train_params, monkeypatch):
    monkeypatch.setattr(losses, "bce_dice", lambda truth, predicted: losses.bce(truth, predicted) * float("nan"))
    said = r"train.learning_rate: the loss became nan at step 1 with a learning rate of .*; lower it"
    with pytest.raises(InputError, match=said):
        trained(train_params())


def test_pictures_show_the_network_learn_and_change_nothing(long_training):
    pictures = {}
    same_training(trained(long_training, log_picture=pictures.__setitem__), trained(long_training))
    assert list(pictures) == [1, 2, 4]  # and the last of the four
    assert {(pixels.shape, pixels.dtype.name) for pixels in pictures.values()} == {((36, 3 * 36, 3), "uint8")}
    image, truth, predicted = np.split(pictures[4], 3, axis=1)
    expected, maps = crops.Crops([sample(3, (40, 48), kind="kind1")], long_training).middle(0)
    for part, pixels in ((image, expected), (truth, maps[..., :1])):
        np.testing.assert_array_equal(part[2:-2, 2:-2], np.broadcast_to(pixels, (32, 32, 3)))
    assert (pictures[1] != pictures[4])[:, 72:].any() and (predicted[:2] == 255).all()


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [([(7, 5)], "float32"), ([(8, 0)], "mixed_bfloat16"), ([(9, 0), (7, 0)], "float32"), ([None], "float32")],
)
def test_precision_of_gpus(capabilities, precision, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: capabilities)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": gpu})
    assert runtime.resolve_precision("auto") == precision
    assert runtime.resolve_precision("float32") == "float32"


# Devices can only be set up before TensorFlow's first operation, so in a process of its own.
ON_DEVICES = """
import json, sys
from pathlib import Path
import tensorflow as tf
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[2]))
from test_network import Stopped, sample, stop_at
from nuclei_unet.errors import InputError
from nuclei_unet.network import runtime
from nuclei_unet.training import fit
from pipeline import params

settings = params.load(Path(sys.argv[1]).parent / "params.yaml").train
model = settings.model.model_copy(update={"filters": (4, 8), "dropout": (0.0, 0.0)})
settings = settings.model_copy(update={
    "precision": "float32", "strategy": "mirrored", "crop_size": 32, "batch_size": 4, "epochs": 2,
    "steps_per_epoch": 3, "model": model,
})
runtime.configure(settings)
training, validation = [sample(n, (40, 48)) for n in range(6)], [sample(n, (40, 48)) for n in range(6, 11)]
pictures, state = [], None
if sys.argv[2] == "2":
    state = Path("state.npz")
    try:
        fit.train(training, validation, settings, 1, stop_at(2), state)
    except Stopped:
        pass
_, history = fit.train(training, validation, settings, 1, lambda *_: None, state, lambda *row: pictures.append(row))
odd = settings.model_copy(update={"batch_size": 5})
try:
    runtime.strategy(odd)
except InputError as error:
    print(error, file=sys.stderr)
replicas = runtime.strategy(settings).num_replicas_in_sync
print(json.dumps([replicas, history.to_dict("list"), len(pictures)]))
"""


def test_two_devices_train_as_one_does(tmp_path):
    # The training on two is stopped after its first epoch, and goes on.
    histories = []
    for devices in (1, 2):
        command = [sys.executable, "-c", ON_DEVICES, str(Path(__file__).parent), str(devices)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | QUIET)
        assert done.returncode == 0, done.stderr
        replicas, history, pictures = json.loads(done.stdout.splitlines()[-1])
        assert replicas == devices and pictures
        histories.append(pd.DataFrame(history))
    assert "going on after epoch 1 of 2" in done.stdout
    assert "train.batch_size: 5 crops cannot be shared evenly by 2 devices" in done.stderr
    # Up to rounding: a step of Adam does not care how large a gradient near zero is.
    pd.testing.assert_frame_equal(*histories, rtol=2e-3)


# ---- stopped and continued


class Stopped(Exception):
    """What a test stops a training with."""


def stop_at(last):
    def log_epoch(epoch, _):
        if epoch == last:
            raise Stopped

    return log_epoch


def same_training(one, other):
    for weights, others in zip(one[0].get_weights(), other[0].get_weights(), strict=True):
        np.testing.assert_array_equal(weights, others)
    assert one[1].equals(other[1])


@pytest.fixture
def long_training(train_params):
    """Return parameters with all that a training carries from epoch to epoch."""
    params = train_params(AUGMENTED, epochs=4, kind_balance=0.5, optimizer="adamw", schedule="cosine")
    model = params.model.model_copy(update={"dropout": (0.2,) * len(params.model.filters)})
    return params.model_copy(update={"model": model})


@pytest.mark.parametrize("stops", [(2,), (3, 4)])
def test_a_stopped_training_goes_on_with_the_same_bits(stops, long_training, tmp_path, capsys):
    state = tmp_path / "train-1.npz"
    for last in stops:
        with pytest.raises(Stopped):
            trained(long_training, state=state, log_epoch=stop_at(last))
    calls = []
    same_training(trained(long_training, calls, state), trained(long_training))
    assert f"going on after epoch {stops[-1] - 1} of 4" in capsys.readouterr().out
    # A tracker gets the earlier epochs too.
    assert [epoch for epoch, _ in calls] == [1, 2, 3, 4]
    assert list(tmp_path.iterdir()) == [state]


def test_a_training_stopped_after_its_last_epoch_has_nothing_left_to_do(long_training, tmp_path):
    state = tmp_path / "train-1.npz"
    whole = trained(long_training, state=state)
    before = state.read_bytes()
    same_training(trained(long_training, state=state), whole)
    assert state.read_bytes() == before


def test_early_stopping_stays_where_it_was(long_training, tmp_path):
    # Nothing gets better: the first epoch is the best, and the fourth is the last.
    params = long_training.model_copy(update={"epochs": 8, "early_stopping": 3, "learning_rate": 1e-12})
    params = params.model_copy(update={"model": params.model.model_copy(update={"normalization": "none"})})
    whole, state = trained(params), tmp_path / "train-1.npz"
    with pytest.raises(Stopped):
        trained(params, state=state, log_epoch=stop_at(3))
    same_training(trained(params, state=state), whole)
    # It had stopped; after a kill before the model was written it does not go on.
    same_training(trained(params, state=state), whole)
    assert len(whole[1]) < 8


def test_a_damaged_state_is_left_aside(long_training, tmp_path, capsys):
    state = tmp_path / "train-1.npz"
    with pytest.raises(Stopped):
        trained(long_training, state=state, log_epoch=stop_at(3))
    state.write_bytes(state.read_bytes()[:-500])
    same_training(trained(long_training, state=state), trained(long_training))
    assert "train-1.npz is damaged; starting from the first epoch" in capsys.readouterr().err


def test_the_state_belongs_to_parameters_and_data(long_training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    (data / "manifest.csv").write_text("a")
    first = resume.state_file(long_training, "float32", data)
    resume.FOLDER.mkdir()
    first.touch()
    assert resume.state_file(long_training, "float32", data) == first and first.exists()
    (data / "manifest.csv").write_text("b")
    others = [
        resume.state_file(long_training, "float32", data),
        resume.state_file(long_training, "mixed_bfloat16", data),
        resume.state_file(long_training.model_copy(update={"seed": 3}), "float32", data),
    ]
    assert len({first, *others}) == 4
    # It can never be taken up again, and goes.
    assert not first.exists()
