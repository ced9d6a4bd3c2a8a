from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_unet.formats.imagefile import ImageFile, pick
from nuclei_unet.formats.planes import planes
from tests.refusals import refused


def image(axes, shape, channels=(), dtype=np.uint16, scene="", array=None):
    if array is None:
        array = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    return ImageFile(
        Path("a.tif"), scene, axes, shape, array.dtype, channels, None, "unknown", lambda **at: pick(array, axes, at)
    )


def names(file, **options):
    return [plane.suffix for plane in planes(file, **options)]


@pytest.mark.parametrize(
    ("axes", "shape", "seen"),
    [
        *(
            (axes, shape, lambda array: array)
            for axes, shape in (("YX", (4, 5)), ("YXS", (4, 5, 3)), ("YXS", (4, 5, 4)))
        ),
        ("SYX", (3, 4, 5), lambda array: np.moveaxis(array, 0, -1)),  # planar colours
        ("YXS", (4, 5, 2), lambda array: array[..., 0]),  # grey, without its alpha
        ("CYXS", (2, 4, 5, 3), lambda array: array[1]),
    ],
)
def test_an_image_without_further_axes_is_one_plane(axes, shape, seen):
    channels = ("H&E", "DAPI") if "C" in axes else ()
    file = image(axes, shape, channels)
    (plane,) = planes(file)
    assert plane.suffix == "" and (channels or plane.channels == ())
    for array in plane.read():
        np.testing.assert_array_equal(array, seen(file.load()))


def test_suffixes_count_only_axes_with_more_than_one_entry():
    assert names(image("TZYX", (2, 12, 4, 5)))[:2] == ["_t0_z00", "_t0_z01"]
    assert names(image("ZTYX", (2, 100, 4, 5)))[:3] == ["_t00_z0", "_t00_z1", "_t01_z0"]
    assert names(image("TZYX", (1, 2, 4, 5), scene="scene3")) == ["_scene3_z0", "_scene3_z1"]
    assert names(image("TZYX", (1, 1, 4, 5))) == [""]


@given(st.permutations("TCZYX"), st.integers(0, 2), st.sampled_from([None, "max"]))
def test_any_order_of_axes(order, channel, project):
    sizes = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}
    file = image("".join(order), tuple(sizes[axis] for axis in order), ("a", "b", "c"))
    plain = file.load().transpose([order.index(axis) for axis in "TZYXC"])
    found = planes(file, channel, project)
    assert len(found) == (8 if project is None else 2)
    for number, plane in enumerate(found):
        expected = plain[number // 4, number % 4] if project is None else plain[number].max(axis=0)
        chosen, everything = plane.read()
        np.testing.assert_array_equal(everything, expected)
        np.testing.assert_array_equal(chosen, expected[..., channel])


def test_projections():
    stack = image("TZYX", (2, 3, 4, 5))
    assert names(stack, project="max") == ["_t0", "_t1"]
    np.testing.assert_array_equal(planes(stack, project="max")[1].read()[0], stack.load()[1].max(axis=0))
    mean = planes(stack, project="mean")[1].read()[0]
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, stack.load()[1].mean(axis=0))
    series = image("TYX", (3, 4, 5))
    assert names(series, project="max") == [""]
    np.testing.assert_array_equal(planes(series, project="max")[0].read()[1], series.load().max(axis=0))
    # A stack of one plane is none; then there is nothing but time.
    assert names(image("TZYX", (3, 1, 4, 5)), project="max") == [""]
    assert names(image("YX", (4, 5)), project="mean") == [""]
    assert planes(image("YX", (4, 5)), project="mean")[0].read()[0].dtype == np.uint16
    refused("median: give max or mean", planes, stack, project="median")


@pytest.mark.parametrize(
    ("channels", "wanted", "expected"),
    [
        (("GFP", "DAPI"), None, 1),
        (("Hoechst 33342", "GFP"), None, 0),
        (("actin", "Nuclei"), None, 1),
        (("DNA", "actin"), None, 0),
        (("cDNA probe", "H2B-mCherry"), None, 1),
        (("EGFP", "H3342-T1"), None, 1),
        (("GFP", "DAPI"), 0, 0),
        (("GFP", "DAPI"), "1", 1),
        (("GFP", "DAPI"), "gfp", 0),
        (("DAPI (405)", "GFP"), "dapi", 0),
        (("488", "561"), "561", 1),  # no channel has that number
        (("1", "0"), "1", 1),  # numbers before names
        (("GFP", "GFP-2"), "gfp", 0),  # a whole name before a part
        (("only",), None, 0),
    ],
)
def test_the_channel(channels, wanted, expected):
    file = image("CYX", (len(channels), 4, 5), channels)
    (plane,) = planes(file, wanted)
    chosen, everything = plane.read()
    assert plane.channels == channels and everything.shape == (4, 5, len(channels))
    np.testing.assert_array_equal(chosen, file.load()[expected])


@pytest.mark.parametrize(
    ("channels", "wanted", "said"),
    [
        (("GFP", "RFP"), None, "no channel's name says that it shows nuclei; choose a channel: 0 GFP, 1 RFP"),
        (("0", "1", "2"), None, "choose a channel: 0, 1, 2"),
        (("DAPI", "H2B-GFP"), None, "the names of several channels say that .*: 0 DAPI, 1 H2B-GFP"),
        (("GFP", "DAPI"), "cy5", "no channel cy5; it has 0 GFP, 1 DAPI"),
        (("GFP", "DAPI"), 2, "no channel 2; it has"),
        (("GFP", "DAPI"), -1, "no channel -1; it has"),
        (("DAPI 1", "DAPI 2"), "dapi", "several channels dapi; it has"),
        (("GFP", "DAPI"), "", "channel"),
    ],
)
def test_an_unclear_channel_is_refused_with_the_choices(channels, wanted, said):
    refused(rf"^a\.tif: .*{said}", planes, image("CYX", (len(channels), 4, 5), channels), wanted)


def test_channels_of_images_without_that_axis():
    colour, grey = image("YXS", (4, 5, 3)), image("YX", (4, 5))
    for wanted in ("blue", 2):
        chosen, everything = planes(colour, wanted)[0].read()
        np.testing.assert_array_equal(chosen, colour.load()[..., 2])
        assert everything.shape == (4, 5, 3)
    np.testing.assert_array_equal(planes(grey, 0)[0].read()[0], grey.load())
    for file, wanted in ((grey, "DAPI"), (grey, 1), (colour, "DAPI"), (colour, 3)):
        refused("no channel", planes, file, wanted)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (image("YX", (4, 5), dtype=bool), "a mask, not an image"),
        (image("YX", (4, 5), dtype=np.complex64), "type complex64"),
        (image("YX", (4, 5), dtype=object), "type object"),
        (image("YX", (0, 5)), "no pixels"),
        (image("ZYX", (0, 4, 5)), "no pixels"),
        (image("λYX", (2, 4, 5)), "axes λYX"),
        (image("ZX", (4, 5)), "axes ZX"),
        (image("YXS", (4, 5, 5)), "pixels of 5 samples"),
        (image("YX", (2**17, 2**16), array=np.broadcast_to(np.uint8(0), (2**17, 2**16))), "at most 4,294,967,296"),
    ],
)
def test_what_cannot_be_segmented_is_refused(file, said):
    refused(rf"^a\.tif: .*{said}", planes, file)


def test_a_large_scan_and_other_types_of_numbers_are_allowed():
    scan = np.broadcast_to(np.uint16(0), (4, 30_000, 30_000))
    assert len(planes(image("CYX", scan.shape, ("DAPI", "a", "b", "c"), array=scan))) == 1
    for dtype in (np.int64, np.uint64, np.float16, np.float64, ">u2"):
        assert planes(image("YX", (4, 5), dtype=dtype))[0].read()[0].dtype == np.dtype(dtype)


def test_only_what_is_asked_for_is_read():
    asked = []
    file = image("TZYX", (2, 3, 4, 5))
    spy = ImageFile(**{**vars(file), "load": lambda **at: asked.append(at) or file.load(**at)})
    found = planes(spy)
    assert not asked
    found[4].read()
    assert asked == [{"T": 1, "Z": 1}]
