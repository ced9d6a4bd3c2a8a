"""What the network sees of an image."""

import numpy as np
import pytest

from nuclei_unet import images
from nuclei_unet.images import has_light_background, normalize, to_rgb
from tests.images import RGB, field
from tests.refusals import refused


@pytest.fixture
def preprocess(settings):
    """Return the committed `preprocess` section with other values for some of its keys."""
    plain = {"channels": 1, "image_size": None, "percentiles": (0.0, 100.0), "nucleus_intensity": None}
    plain |= {"invert_light_background": True}
    return lambda **values: settings.preprocess.model_copy(update=plain | values)


GREY = np.array([[0, 10], [20, 40], [5, 5]], np.uint8)


@pytest.mark.parametrize("image", [GREY, GREY[..., None], np.dstack([GREY, GREY // 2])])
def test_to_rgb_repeats_grey_and_drops_alpha(image):
    np.testing.assert_array_equal(to_rgb(image), np.dstack([GREY, GREY, GREY]))


def test_colours_stay_without_their_alpha(preprocess):
    np.testing.assert_array_equal(to_rgb(RGB), RGB)
    np.testing.assert_array_equal(to_rgb(np.dstack([RGB, [[7, 255]]]).astype(np.uint8)), RGB)
    # Means 30 and 0; all values 0 ... 60.
    np.testing.assert_array_equal(normalize(RGB, preprocess()), [[255, 0]])
    np.testing.assert_array_equal(normalize(RGB, preprocess(channels=3)), [[[42, 85, 255], [0, 0, 0]]])


@pytest.mark.parametrize("shape", [(3,), (2, 2, 5), (2, 2, 3, 1), (0, 5), (4, 0, 3)])
def test_what_is_no_image_is_refused(shape, preprocess):
    refused("expected a grey or colour image", normalize, np.zeros(shape, np.uint8), preprocess())


# Mostly dark, so nothing is inverted: 0 ... 40 becomes 0 ... 255.
STRETCHED = [[0, 64], [128, 255], [32, 32]]


@pytest.mark.parametrize("scale", [np.uint8(1), np.uint16(1000), np.float32(0.5), np.float64(-3) / -1e4])
def test_normalize_stretches_any_dtype_and_range(scale, preprocess):
    np.testing.assert_array_equal(normalize(GREY * scale, preprocess()), STRETCHED)


def test_percentiles_clip_outliers(preprocess):
    image = np.arange(101, dtype=np.uint8)[None]
    image[0, 100] = 255
    seen = normalize(image, preprocess(percentiles=(10.0, 90.0)))[0]
    assert (seen[:11] == 0).all() and (seen[90:] == 255).all() and seen[50] == 128


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        (np.array([[0, 1, 200]], np.uint8), [[0, 1, 200]]),
        (np.array([[0, 257, 65535]], np.uint16), [[0, 1, 255]]),
        (np.array([[0, 0.2, 1]]), [[0, 51, 255]]),
        (np.array([[0, 0.2, 7]]), [[0, 51, 255]]),
    ],
)
def test_without_percentiles_the_range_of_the_dtype_counts(image, seen, preprocess):
    np.testing.assert_array_equal(normalize(image, preprocess(percentiles=None)), seen)


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("shape", [(1, 1), (5, 4, 3)])
def test_a_constant_image_is_black(value, shape, preprocess):
    np.testing.assert_array_equal(normalize(np.full(shape, value, np.uint8), preprocess()), np.zeros(shape[:2]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(value, preprocess):
    refused("NaN or infinite", normalize, np.array([[0, value]]), preprocess())


def test_the_typical_nucleus_has_the_same_intensity_whatever_a_few_bright_ones_have(preprocess):
    params = preprocess(nucleus_intensity=0.5)
    image = np.full((60, 60), 10, np.uint8)
    for row in range(5, 50, 10):  # ten nuclei
        image[row : row + 5, 10:15] = image[row : row + 5, 30:35] = 90
    alone = normalize(image, params)
    assert (alone[image == 90] == 128).all() and (alone[image == 10] == 0).all()
    bright = image.copy()
    bright[55:57, 50:52] = 150
    seen = normalize(bright, params)
    assert (seen[image == 90] == 128).all() and (seen[55:57, 50:52] > 200).all()
    # Light background: the same after inversion.
    np.testing.assert_array_equal(normalize(255 - bright, params), seen)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.array([[0, 1]], np.uint8), np.eye(9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_nucleus_intensity_of_next_to_nothing(image, channels, preprocess):
    seen = normalize(image, preprocess(nucleus_intensity=0.5, channels=channels))
    assert seen.dtype == np.uint8 and seen.shape[:2] == image.shape
    assert seen.max() in (0, 128)


@pytest.mark.parametrize("channels", [1, 3])
def test_large_images_are_worked_on_in_strips_and_sampled(channels, preprocess, monkeypatch):
    rng = np.random.default_rng(0)
    image = rng.gamma(1, 20, (1100, 40, 3)).clip(0, 255).astype(np.uint8)
    params = preprocess(percentiles=(0.5, 99.5), nucleus_intensity=0.5, channels=channels)
    whole = normalize(image, params)
    assert whole.shape == ((1100, 40) if channels == 1 else (1100, 40, 3))
    # Strips of 512 lines meet without a seam: the image upside down has them elsewhere.
    np.testing.assert_array_equal(normalize(image[::-1], params), whole[::-1])
    monkeypatch.setattr(images, "LARGEST_WHOLE", 2000)  # every fourth line and column
    assert np.abs(normalize(image, params).astype(int) - whole).mean() < 5


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 1), (np.uint16, 257), (np.float32, 1 / 255)])
def test_nuclei_are_brighter_than_their_background(dtype, scale, preprocess):
    for background, nucleus, light in ((10, 90, False), (230, 90, True)):
        image = field(background * scale, nucleus * scale, dtype)
        assert has_light_background(to_rgb(image)) is light
        np.testing.assert_array_equal(normalize(image, preprocess()), field(0, 255))
    np.testing.assert_array_equal(normalize(field(230, 90), preprocess(invert_light_background=False)), field(255, 0))


def test_image_size_is_height_and_width(preprocess):
    seen = normalize(field(10, 90), preprocess(image_size=(16, 32)))
    assert seen.shape == (16, 32) and seen.max() > 200
    assert normalize(field(10, 90), preprocess(image_size=(40, 16), channels=3)).shape == (40, 16, 3)
