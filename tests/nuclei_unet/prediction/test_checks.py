import tracemalloc

import cv2
import numpy as np
import pytest

from nuclei_unet.labels import components
from nuclei_unet.prediction import checks
from nuclei_unet.prediction.diameter import Diameter
from tests.nuclei_unet.nuclei import drawn

LABELS = drawn((256, 256), *((row, column, 14) for row in range(30, 256, 50) for column in range(30, 256, 50)))


def pictured(labels, light=False, dtype=np.uint8, blur=1.2):
    """Return an image of the nuclei with texture, soft edges and noise, far from the ends of the dtype."""
    random = np.random.default_rng(1)
    texture = cv2.GaussianBlur(random.normal(0, 60, labels.shape), (0, 0), 3)
    image = np.where(labels > 0, 140 + texture, 40.0)
    image = cv2.GaussianBlur(image, (0, 0), blur) + random.normal(0, 2, labels.shape)
    image = 255 - image if light else image
    return (image * (np.iinfo(dtype).max // 255)).astype(dtype) if np.dtype(dtype).kind == "u" else image.astype(dtype)


@pytest.mark.parametrize(
    ("form", "light", "dtype"),
    [("grey", False, np.uint8), ("grey+alpha", True, np.uint16), ("rgb", True, np.float32), ("rgba", False, np.uint16)],
)
def test_a_good_image_gets_no_warning(form, light, dtype):
    grey = pictured(LABELS, light, dtype)
    alpha = np.full(grey.shape, 255, grey.dtype)
    parts = {"grey": [grey], "grey+alpha": [grey, alpha], "rgb": [grey] * 3, "rgba": [*[grey] * 3, alpha]}[form]
    assert checks.warnings(np.dstack(parts).squeeze(), LABELS, Diameter(28.0), 0.3) == []


@pytest.mark.parametrize("value", [0, 7, 255])
def test_an_image_of_one_value(value):
    image, labels = np.full((40, 50, 4), value, np.uint8), np.zeros((40, 50), np.uint16)
    image[..., 3] = 99  # alpha is no contrast
    assert checks.warnings(image, labels) == ["No nuclei were found.", f"All pixels have the same value, {value}."]


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 4095), (np.float32, 1.0)])
def test_clipped_nuclei_are_saturated_at_any_bit_depth(dtype, top):
    image = np.clip(pictured(LABELS, dtype=np.float32) / 130 * top, 0, top).astype(dtype)
    (text,) = checks.warnings(image, LABELS)
    assert text.startswith("Saturated: ") and "of the nuclei's area has the largest value" in text


def test_a_white_background_is_not_saturated_but_black_nuclei_are():
    image = pictured(LABELS, light=True).astype(int)
    white = np.clip(image + 60, 0, 255).astype(np.uint8)
    assert (white == 255).mean() > 0.5 and checks.warnings(white, LABELS) == []
    assert checks.warnings(white, np.zeros_like(LABELS)) == ["No nuclei were found."]
    black = np.clip(image - 120, 0, 255).astype(np.uint8)
    assert "smallest value" in checks.warnings(black, LABELS)[0]


def test_an_overexposed_image_in_which_nothing_is_found():
    image = np.clip(pictured(LABELS).astype(int) * 2, 0, 255).astype(np.uint8)
    first, second = checks.warnings(image, np.zeros_like(LABELS))
    assert first == "No nuclei were found." and second.startswith("Saturated") and "of the image" in second


def test_an_unclear_size_and_a_pixel_size_that_cannot_be():
    image = pictured(LABELS)
    (text,) = checks.warnings(image, LABELS, Diameter(31.5, "estimated", sure=False))
    assert "size of the nuclei is not clear: 31.5 px" in text
    # One cause, one warning.
    (text,) = checks.warnings(image, LABELS, Diameter(31.5, "estimated", sure=False, agreement=0.8))
    assert text.startswith("Unlike what the model knows")
    assert checks.warnings(image, LABELS, Diameter(31.5, "estimated", agreement=0.95)) == []
    for pixel_size, micrometres in ((0.05, "1.39"), (2.0, "55.7")):
        (text,) = checks.warnings(image, LABELS, None, pixel_size)
        assert f"{pixel_size:g} um the nuclei are {micrometres} um wide" in text


@pytest.mark.parametrize("light", [False, True])
def test_blur_is_noticed(light):
    (text,) = checks.warnings(pictured(LABELS, light, blur=5), LABELS)
    assert text.startswith("Blurred")


def test_a_large_image_gets_the_same_warnings_in_little_memory():
    side = 4096
    labels, image = (np.tile(array, (side // 256, side // 256)) for array in (LABELS, pictured(LABELS)))
    labels[: side // 2] = 0  # the windows must find the nuclei
    labels = components(labels > 0, connectivity=4)
    soft = cv2.GaussianBlur(image, (0, 0), 6)
    tracemalloc.start()
    assert checks.warnings(image, labels) == []
    (text,) = checks.warnings(soft, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert text.startswith("Blurred") and peak < 2 * image.size
