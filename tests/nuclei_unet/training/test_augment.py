"""What other microscopes might show: intensities, cell bodies, structures out of focus."""

import numpy as np
import pytest

from nuclei_unet.training import augment, crops
from tests.nuclei_unet.training.examples import sample


@pytest.mark.parametrize("changes", [{}, {"gamma": (0.5, 0.5)}, {"contrast": 0.5}, {"noise": 0.2}, {"invert": 1.0}])
def test_intensities(changes, train_params):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = augment.change_intensities(image, train_params(changes).augment, np.random.default_rng(1))
    assert pixels.dtype == np.uint8 and pixels.shape == image.shape
    assert (pixels != image).any() == bool(changes)
    if "invert" in changes:
        np.testing.assert_array_equal(pixels, 255 - image)


def test_blur_is_left_out_of_half_of_the_crops(train_params):
    image = sample(0).image
    params = train_params({"blur": 2.0}).augment
    seen = [augment.change_intensities(image, params, np.random.default_rng(n)) for n in range(40)]
    sharp = sum((pixels == image).all() for pixels in seen)
    assert 10 < sharp < 30 and all(abs(float(pixels.mean()) - image.mean()) < 2 for pixels in seen)


def nuclei(colours=0):
    """Return a crop with one nucleus of 200 on a background of 20, and its foreground map."""
    image, foreground = np.full((200, 200), 20, np.uint8), np.zeros((200, 200), np.uint8)
    image[40:60, 40:60], foreground[40:60, 40:60] = 200, 255
    return (np.dstack([image] * colours) if colours else image), foreground


@pytest.mark.parametrize("colours", [0, 3])
def test_cell_bodies_are_dimmer_than_their_nuclei_and_around_them(colours):
    image, foreground = nuclei(colours)
    brightest = []
    for n in range(20):
        changed = augment.add_cytoplasm(image, foreground, np.random.default_rng(n))
        assert changed.shape == image.shape and changed.dtype == np.uint8
        inside, far = changed[45:55, 45:55].astype(int), changed[-4:, -4:]
        # Nuclei stay about as bright as they were, and are brighter than all around them.
        assert 120 < inside.mean() < 280 and inside.mean() > changed[64:70, 45:55].mean() + 20
        assert far.mean() <= 20
        brightest.append(changed[62:64, 45:55].mean())
    assert np.mean(np.array(brightest) > 30) > 0.7
    assert augment.add_cytoplasm(image, np.zeros_like(foreground), np.random.default_rng(0)) is image


def test_transferred_intensities_keep_their_order():
    image, _ = nuclei()
    other = np.random.default_rng(0).integers(0, 256, (50, 60), np.uint8)
    for n in range(10):
        changed = augment.transfer_intensities(image, other, np.random.default_rng(n))
        assert changed.shape == image.shape and changed[50, 50] >= changed[0, 0]
    # An image's own intensities change nothing but by rounding.
    assert abs(augment.transfer_intensities(other, other, np.random.default_rng(0)).astype(int) - other).max() <= 1


def test_another_crop_laid_over_adds_light():
    image, _ = nuclei()
    np.testing.assert_array_equal(augment.mix(image, np.zeros_like(image), np.random.default_rng(0)), image)
    changed = augment.mix(image, sample(0, (200, 200)).image, np.random.default_rng(1))
    assert (changed >= image).all() and (changed != image).any()


@pytest.mark.parametrize("key", ["cytoplasm", "transfer", "mix"])
def test_each_changes_its_share_of_the_crops(key, train_params):
    samples = [sample(n, (50, 60)) for n in range(3)]
    plain, changed = crops.Crops(samples, train_params()), crops.Crops(samples, train_params({key: 0.5}))
    same = []
    for number in range(40):
        (before, maps), (after, again) = plain.draw(number), changed.draw(number)
        np.testing.assert_array_equal(maps, again)
        same.append((before == after).all())
    assert 8 < sum(same) < 34
