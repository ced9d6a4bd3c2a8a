"""Overlays: the image stays what it was, and nuclei have outlines."""

import cv2
import numpy as np
import pytest

from nuclei_unet.formats.overlay import COLOURS, overlay, write
from tests.nuclei_unet.formats.label_images import LABELS

NESTED = np.zeros((9, 12), np.uint16)
NESTED[1:8, 1:6] = 3
NESTED[1:8, 6:11] = 4


def test_outlines_are_the_outermost_pixels():
    picture = overlay(np.full((9, 12), 7, np.uint16), NESTED)
    assert picture.shape == (9, 12, 3) and picture.dtype == np.uint8
    coloured = picture.any(axis=2)
    inside = np.zeros((9, 12), bool)
    inside[2:7, 2:5] = inside[2:7, 7:10] = True
    assert np.array_equal(coloured, (NESTED > 0) & ~inside)
    left, right = picture[4, 5].tolist(), picture[4, 6].tolist()
    assert left != right and {tuple(left), tuple(right)} <= {tuple(colour) for colour in COLOURS.tolist()}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int32])
@pytest.mark.parametrize("channels", [(), (2,), (3,)])
def test_contrast_is_stretched_whatever_the_range(dtype, channels):
    image = np.linspace(10, 110, 2000).astype(dtype).reshape(40, 50, *[1] * len(channels))
    picture = overlay(np.broadcast_to(image, (40, 50, *channels)), np.zeros((40, 50), np.uint8))
    assert picture.min() == 0 and picture.max() == 255
    assert (np.diff(picture[..., 0].ravel().astype(int)) >= 0).all()
    assert np.array_equal(picture[..., 0], picture[..., 2])


def test_values_that_are_no_numbers():
    picture = overlay(np.array([[np.nan, 1, 2], [np.inf, -np.inf, 3]]), np.zeros((2, 3), np.uint8))[..., 0]
    assert picture[0, 0] == picture[1, 1] == 0 and picture[1, 0] == 255 and 100 < picture[0, 2] < 160
    assert not overlay(np.full((2, 3), np.nan), np.zeros((2, 3), np.uint8)).any()


def test_a_png_in_rgb(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (*LABELS.shape, 3), np.uint8)
    write(tmp_path / "new" / "a.png", LABELS, image)
    assert np.array_equal(cv2.imread(str(tmp_path / "new" / "a.png"))[..., ::-1], overlay(image, LABELS))
