"""Crops: drawn by number, augmented, in batches."""

import numpy as np
import pytest

from nuclei_unet.sample import ArraySample
from nuclei_unet.training import crops, targets
from tests.nuclei_unet.nuclei import drawn
from tests.nuclei_unet.training.examples import AUGMENTED, sample


def test_a_crop_follows_from_its_number(train_params):
    samples = [sample(n, (50, 60)) for n in range(3)]
    params = train_params(AUGMENTED, type_balance=0.5)
    first, again = crops.Crops(samples, params), crops.Crops(samples, params)
    drawn = [first.draw(number) for number in range(6)]
    for number in reversed(range(6)):
        for pixels, same in zip(drawn[number], again.draw(number), strict=True):
            np.testing.assert_array_equal(pixels, same)
    assert len({image.tobytes() for image, _ in drawn}) == 6
    assert (crops.Crops(samples, params.model_copy(update={"seed": params.seed + 1})).draw(0)[0] != drawn[0][0]).any()


@pytest.mark.parametrize("augment", [{}, {"flip": True}, {"rotate": True}, {"flip": True, "zoom": (0.5, 2.0)}])
def test_image_and_maps_move_together(augment, train_params):
    source = crops.Crops([sample(0, (50, 60))], train_params(augment))
    drawn = [source.draw(number) for number in range(8)]
    for image, maps in drawn:
        assert image.shape == (32, 32, 1) and maps.shape == (32, 32, 3) and image.dtype == maps.dtype == np.uint8
        np.testing.assert_array_equal(image[..., 0], maps[..., 0])
    assert len({image.tobytes() for image, _ in drawn if image.any()}) > 5


def test_without_balance_every_image_comes_once_before_any_twice(train_params):
    source = crops.Crops([sample(n) for n in range(5)], train_params())
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
        crops.Crops([one], train_params()).center_crop(0),
    ):
        assert (image == 9).all() and image.shape == (32, 32, 1)
        assert (maps[..., 0] == 255).all() and maps.shape == (32, 32, 3)


def test_the_middle_is_the_image_as_it_is(train_params):
    one = sample(0, (40, 52))
    image, maps = crops.Crops([one], train_params(targets=("foreground", "distance"))).center_crop(0)
    np.testing.assert_array_equal(image[..., 0], one.image[4:36, 10:42])
    np.testing.assert_array_equal(maps, targets.target_maps(one.labels)[4:36, 10:42, [0, 2]])


@pytest.mark.parametrize("memory", [0, 10_000])
def test_images_that_memory_does_not_hold_give_the_same_crops(memory, train_params, tmp_path, monkeypatch):
    samples, params = [sample(number, (30 + number, 40)) for number in range(4)], train_params(AUGMENTED)
    all_kept = crops.Crops(samples, params)
    monkeypatch.setattr(crops, "MEMORY", memory)
    some_kept = crops.Crops(samples, params, tmp_path / "new")
    for number in range(8):
        for ours, theirs in zip(all_kept.draw(number), some_kept.draw(number), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    # Their file has no name.
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("diameter", [6, 12, 100])
def test_images_are_brought_to_one_size(diameter, train_params):
    labels = drawn((60, 90), (15, 20, 5), (40, 60, 5))
    one = ArraySample("a", "train", "small-fluorescent", (labels > 0) * np.uint8(200), labels)
    image, maps = crops.Crops([one], train_params(diameter=diameter)).center_crop(0)
    factor = min(diameter / 10, 3)
    ((pixels, _),) = crops.Crops([one], train_params(diameter=diameter))._pixels
    assert pixels.shape == pytest.approx((60 * factor, 90 * factor), rel=0.1)
    assert image.shape == (32, 32, 1) and maps.shape == (32, 32, 3)
    empty = ArraySample("b", "train", "small-fluorescent", one.image, np.zeros_like(labels))
    assert crops.Crops([empty], train_params(diameter=diameter))._pixels[0][0].shape == (60, 90)


def test_maps_follow_a_resized_image(train_params):
    one = sample(0, (64, 64))
    resized = ArraySample("a", "train", "grey-tissue", one.image[::2, ::2], one.labels)
    maps = crops.Crops([resized], train_params()).draw(0)[1]
    assert maps.shape == (32, 32, 3) and ((maps[..., 0] > 127) == (resized.image > 0)).mean() > 0.9


def test_type_weights():
    image_types = ["a", "b", "a", "a"]
    np.testing.assert_allclose(crops.type_weights(image_types, 0), [1 / 4] * 4)
    np.testing.assert_allclose(crops.type_weights(image_types, 1), [1 / 6, 1 / 2, 1 / 6, 1 / 6])
    # Types weigh as the roots of their counts.
    of_a = np.sqrt(3) / (np.sqrt(3) + 1) / 3
    np.testing.assert_allclose(crops.type_weights(image_types, 0.5), [of_a, 1 - 3 * of_a, of_a, of_a])


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
