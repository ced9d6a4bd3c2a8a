"""Measurements of nuclei, worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from nuclei_unet.measurements import diameters, measure
from tests.refusals import refused

LABELS = np.zeros((10, 12), np.uint16)
LABELS[1:5, 2:8] = 1  # 4 x 6
LABELS[7:9, 9:11] = 4  # 2 x 2
GREY = (
    *("label", "area", "centroid-0", "centroid-1", "equivalent_diameter_area", "axis_major_length"),
    *("axis_minor_length", "eccentricity", "solidity", "perimeter", "intensity_mean", "intensity_sum"),
)


def intensities(table):
    return [name for name in table if name.startswith("intensity_mean")]


def test_one_row_a_nucleus_in_pixels():
    image = np.arange(120, dtype=np.uint16).reshape(10, 12)
    table = measure(LABELS, image)
    assert tuple(table) == GREY and pd.DataFrame(table).shape == (2, len(GREY))
    assert table["label"].tolist() == [1, 4] and table["area"].tolist() == [24, 4]
    assert table["centroid-0"].tolist() == [2.5, 7.5] and table["centroid-1"].tolist() == [4.5, 9.5]
    assert table["solidity"].tolist() == [1, 1]
    assert table["intensity_sum"].tolist() == [image[LABELS == 1].sum(), image[LABELS == 4].sum()]
    assert table["intensity_mean"].tolist() == [image[LABELS == 1].mean(), image[LABELS == 4].mean()]


def test_area_and_lengths_in_micrometres_follow_if_the_pixel_size_is_known():
    table = measure(LABELS, np.ones((10, 12)), pixel_size=0.5)
    assert tuple(table)[: len(GREY)] == GREY
    assert table["area_um2"].tolist() == [6, 1]
    assert table["centroid-0_um"].tolist() == [1.25, 3.75]
    in_micrometres = [name.removesuffix("_um") for name in table if name.endswith("_um")]
    assert set(in_micrometres) == set(GREY[2:10]) - {"eccentricity", "solidity"}
    for name in in_micrometres:
        np.testing.assert_array_equal(table[f"{name}_um"], table[name] / 2)


@pytest.mark.parametrize(
    ("shape", "options", "said"),
    [
        *(((10, 12), {"pixel_size": size}, "a positive number of micrometres") for size in (0, -1, np.nan, np.inf)),
        *((shape, {}, "do not fit an image of shape") for shape in ((10, 11), (12, 10), (10,))),
        *((shape, {}, "do not fit an image of shape") for shape in ((10, 12, 3, 1), (10, 12, 0))),
        ((10, 12, 3), {"channels": ("a", "b")}, "2 names for the 3 channels"),
    ],
)
def test_what_does_not_fit_is_an_error(shape, options, said):
    refused(said, measure, LABELS, np.ones(shape), **options)


@pytest.mark.parametrize(
    ("channels", "measured"),
    [(1, [""]), (2, [""]), (3, ["-0", "-1", "-2"]), (4, ["-0", "-1", "-2"]), (5, ["-0", "-1", "-2", "-3", "-4"])],
)
def test_intensity_of_each_channel_and_not_of_alpha(channels, measured):
    image = np.random.default_rng(0).uniform(0, 1, (10, 12, channels))
    table = measure(LABELS, image)
    assert intensities(table) == [f"intensity_mean{n}" for n in measured]
    for number, name in enumerate(measured):
        of_nuclei = [image[label == LABELS][:, number] for label in (1, 4)]
        np.testing.assert_allclose(table[f"intensity_mean{name}"], [values.mean() for values in of_nuclei])
        np.testing.assert_allclose(table[f"intensity_sum{name}"], [values.sum() for values in of_nuclei])


@pytest.mark.parametrize(
    ("names", "measured"),
    [
        (("DAPI", "GFP"), ["-DAPI", "-GFP"]),
        (("DAPI", "GFP", "RFP", "Cy5"), ["-DAPI", "-GFP", "-RFP", "-Cy5"]),
        (("one",), [""]),
        (("same", "same"), ["-0", "-1"]),
        (("", "DAPI"), ["-0", "-1"]),
    ],
)
def test_channels_with_names_are_all_measured(names, measured):
    image = np.stack([np.full((10, 12), number, np.uint16) for number in range(len(names))], axis=-1)
    table = measure(LABELS, image, channels=names)
    assert intensities(table) == [f"intensity_mean{name}" for name in measured]
    assert [table[f"intensity_mean{name}"][0] for name in measured] == list(range(len(names)))


def test_an_image_without_nuclei_has_the_same_columns():
    some, none = (measure(labels, np.ones((10, 12)), pixel_size=1) for labels in (LABELS, np.zeros_like(LABELS)))
    assert list(none) == list(some) and {len(column) for column in none.values()} == {0}
    assert none["label"].dtype == some["label"].dtype


def test_nuclei_of_one_pixel():
    labels = np.eye(5, dtype=np.uint32) * np.arange(1, 6, dtype=np.uint32)
    table = measure(labels, np.ones((5, 5)))
    assert table["area"].tolist() == [1] * 5 and table["intensity_sum"].tolist() == [1] * 5
    assert all(np.isfinite(column).all() for column in table.values())


def test_large_labels_and_values_stay_what_they_are():
    # A list as long as the highest number would take 32 GB.
    wide = LABELS.astype(np.uint32) * 1_000_000_000
    table, expected = measure(wide, np.ones((10, 12))), measure(LABELS, np.ones((10, 12)))
    assert table.pop("label").tolist() == [1_000_000_000, 4_000_000_000]
    for name, column in table.items():
        np.testing.assert_array_equal(column, expected[name])
    assert measure(LABELS, np.full((10, 12), 1e300))["intensity_sum"].tolist() == pytest.approx([2.4e301, 4e300])


def test_diameters_of_circles_and_labels_with_gaps():
    labels = np.zeros((1200, 30), np.uint32)
    labels[500:530, :10] = 7  # across two strips
    labels[1000:1004, 4:6] = 70_000
    assert diameters(labels) == pytest.approx([2 * np.sqrt(300 / np.pi), 2 * np.sqrt(8 / np.pi)])
    assert diameters(np.zeros((4, 5), np.uint16)).size == 0
