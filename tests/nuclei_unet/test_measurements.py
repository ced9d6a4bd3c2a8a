"""Measurements of nuclei, worked out by hand."""

import numpy as np
import pytest

from nuclei_unet.errors import InputError
from nuclei_unet.measurements import measure

LABELS = np.zeros((10, 12), np.uint16)
LABELS[1:5, 2:8] = 1  # 4 x 6
LABELS[7:9, 9:11] = 4  # 2 x 2


def test_one_row_a_nucleus_in_pixels():
    image = np.arange(120, dtype=np.uint16).reshape(10, 12)
    table = measure(LABELS, image)
    assert table["label"].tolist() == [1, 4] and table["area"].tolist() == [24, 4]
    assert table["centroid-0"].tolist() == [2.5, 7.5] and table["centroid-1"].tolist() == [4.5, 9.5]
    assert table["solidity"].tolist() == [1, 1]
    assert table["intensity_sum"].tolist() == [image[LABELS == 1].sum(), image[LABELS == 4].sum()]
    assert table["intensity_mean"].tolist() == [image[LABELS == 1].mean(), image[LABELS == 4].mean()]
    assert {"equivalent_diameter_area", "axis_major_length", "axis_minor_length", "eccentricity", "perimeter"} <= set(
        table
    )


@pytest.mark.parametrize(
    ("channels", "measured"), [(1, [""]), (2, [""]), (3, ["-0", "-1", "-2"]), (4, ["-0", "-1", "-2"])]
)
def test_intensity_of_each_channel_and_not_of_alpha(channels, measured):
    image = np.random.default_rng(0).uniform(0, 1, (10, 12, channels))
    table = measure(LABELS, image)
    assert [name for name in table if name.startswith("intensity_mean")] == [f"intensity_mean{n}" for n in measured]
    for number, name in enumerate(measured):
        expected = [image[label == LABELS][:, number].mean() for label in (1, 4)]
        np.testing.assert_allclose(table[f"intensity_mean{name}"], expected)


def test_no_nucleus_and_nuclei_of_one_pixel():
    assert len(measure(np.zeros((5, 5), np.uint16), np.ones((5, 5)))) == 0
    table = measure(np.eye(5, dtype=np.uint32) * np.arange(1, 6, dtype=np.uint32), np.ones((5, 5)))
    assert table["area"].tolist() == [1] * 5 and table["intensity_sum"].tolist() == [1] * 5


@pytest.mark.parametrize("shape", [(10, 11), (12, 10), (10,), (10, 12, 3, 1)])
def test_an_image_of_another_size_is_an_error(shape):
    with pytest.raises(InputError, match="do not fit an image of shape"):
        measure(LABELS, np.zeros(shape))
