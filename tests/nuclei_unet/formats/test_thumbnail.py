import cv2
import numpy as np
import pytest
from skimage.segmentation import find_boundaries

from nuclei_unet.formats.thumbnail import MAX_BYTES, ON_DARK, thumbnail
from tests.nuclei_unet.nuclei import TOUCHING, drawn


def decoded(data):
    assert data.startswith(b"\xff\xd8\xff") and len(data) <= MAX_BYTES
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def near(picture, colour, tolerance=60):
    return np.abs(picture.astype(int) - colour).max(axis=2) < tolerance


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.float64])
@pytest.mark.parametrize("channels", [None, 2, 3])
def test_outlines_are_where_the_nuclei_end(dtype, channels):
    image = np.where(TOUCHING > 0, 90, 10).astype(dtype)
    image = image if channels is None else np.repeat(image[..., None], channels, axis=2)
    picture = decoded(thumbnail(image, TOUCHING))
    edge = find_boundaries(TOUCHING, connectivity=1, mode="inner")
    assert picture.shape == (*TOUCHING.shape, 3)
    assert near(picture, ON_DARK)[edge].mean() > 0.95
    assert not near(picture, ON_DARK)[~edge].any()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((4000, 1000), (256, 64)), ((300, 3000), (26, 256)), ((3, 20_000), (1, 256)), ((1, 1), (1, 1)), ((9, 7), (9, 7))],
)
def test_size_of_the_picture(shape, expected):
    assert decoded(thumbnail(np.zeros(shape, np.uint16), np.zeros(shape, np.uint32))).shape[:2] == expected


def test_outlines_stay_visible_in_a_large_image():
    labels = drawn((3000, 3000), (1500, 1500, 600)).astype(np.uint32) * 70_000
    picture = decoded(thumbnail(np.where(labels > 0, 900, 100).astype(np.uint16), labels))
    assert near(picture, ON_DARK).sum() > 2 * 3 * 600 * 256 / 3000 * 0.8


def test_tiny_nuclei_do_not_hide_the_image():
    labels = np.kron(np.arange(1, 64 * 64 + 1).reshape(64, 64), np.ones((2, 2), int))
    image = np.where(np.arange(128)[:, None] < 64, 200, 100) * np.ones((1, 128), int)
    picture = decoded(thumbnail(image.astype(np.uint8), labels))
    assert picture[:60].mean() > picture[68:].mean() + 50


def test_noise_fits_into_the_bytes_too_and_the_same_input_gives_the_same_bytes():
    random = np.random.default_rng(0)
    image, labels = random.integers(0, 255, (600, 600, 3), np.uint8), random.integers(0, 3, (600, 600))
    assert decoded(thumbnail(image, labels)).shape[0] < 256
    assert thumbnail(image, labels) == thumbnail(image, labels)
