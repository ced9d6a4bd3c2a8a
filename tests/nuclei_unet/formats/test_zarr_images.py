import json
import shutil

import numpy as np
import pytest
import zarr

from nuclei_unet.formats.planes import planes
from nuclei_unet.formats.reading import open_images
from nuclei_unet.formats.zarr_images import one_channel, open_levels, window
from tests.refusals import refused

ARRAY = np.random.default_rng(0).integers(0, 60_000, (2, 2, 3, 40, 60), np.uint16)  # TCZYX


def axes(letters="tczyx", unit="micrometer"):
    kinds = {"t": "time", "c": "channel"}
    return [
        {"name": name, "type": kinds.get(name, "space"), **({} if name in "tc" else {"unit": unit})} for name in letters
    ]


def write(path, array=ARRAY, described=None, scale=(1, 1, 2, 0.5, 0.5), version="0.5", names=("GFP", "DAPI"), **more):
    group = zarr.open_group(str(path), mode="w", zarr_format=3 if version == "0.5" else 2)
    for level in range(2):
        chunks = tuple(min(size, 32) for size in array.shape)
        group.create_array(str(level), data=array[..., :: 2**level, :: 2**level], chunks=chunks)
    scaled = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": list(scale)}]}
    multiscales = {"version": version, "axes": described or axes(), "datasets": [scaled, {"path": "1"}], **more}
    about = {"multiscales": [multiscales], "omero": {"channels": [{"label": name} for name in names]}}
    group.attrs.update({"ome": {"version": version, **about}} if version == "0.5" else about)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_full_resolution_with_its_metadata(tmp_path, version):
    (image,) = open_images(write(tmp_path / "a.zarr", version=version))
    assert (image.axes, image.shape, image.dtype, image.scene) == ("TCZYX", ARRAY.shape, np.uint16, "")
    assert (image.channels, image.pixel_size, image.pixel_size_from) == (("GFP", "DAPI"), 0.5, "OME-Zarr metadata")
    np.testing.assert_array_equal(image.load(), ARRAY)
    np.testing.assert_array_equal(image.load(T=1, Z=2), ARRAY[1, :, 2])
    np.testing.assert_array_equal(planes(image)[-1].read()[0], ARRAY[1, 1, 2])


def test_scales_multiply_and_units_are_converted(tmp_path):
    more = {"coordinateTransformations": [{"type": "scale", "scale": [2.0, 2.0]}]}
    path = write(tmp_path / "a.zarr", ARRAY[0, 0, 0], axes("yx", "nanometer"), (250, 250), "0.4", **more)
    (image,) = open_images(path)
    assert (image.axes, image.pixel_size, image.channels) == ("YX", 0.5, ())


@pytest.mark.parametrize(
    ("unit", "scale", "source"),
    [("pixel", (0.5, 0.5), "unknown"), ("", (0.5, 0.5), "unknown"), ("micrometer", (0.5, 1), "not square")],
)
def test_what_is_no_pixel_size(tmp_path, unit, scale, source):
    (image,) = open_images(write(tmp_path / "a.zarr", ARRAY[0, 0, 0], axes("yx", unit), scale))
    assert image.pixel_size is None and source in image.pixel_size_from


def test_older_metadata(tmp_path):
    (image,) = open_images(write(tmp_path / "a.zarr", ARRAY[0, 0], ["z", "y", "x"], version="0.4", names=()))
    assert (image.axes, image.pixel_size) == ("ZYX", None)
    path = write(tmp_path / "b.zarr", version="0.4", names=())
    about = json.loads((path / ".zattrs").read_text())
    del about["multiscales"][0]["axes"], about["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    (path / ".zattrs").write_text(json.dumps(about))
    (image,) = open_images(path)
    assert (image.axes, image.channels, image.pixel_size) == ("TCZYX", ("0", "1"), None)


def test_images_of_bioformats(tmp_path):
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    for number in (0, 1):
        write(tmp_path / "a.zarr" / str(number), ARRAY + number, version="0.4")
    images = open_images(tmp_path / "a.zarr")
    assert [image.scene for image in images] == ["scene0", "scene1"]
    np.testing.assert_array_equal(images[1].load(), ARRAY + 1)
    # One of them by itself.
    assert open_images(tmp_path / "a.zarr" / "1")[0].scene == ""


def test_what_is_no_image(tmp_path):
    zarr.open_group(str(tmp_path / "empty.zarr"), mode="w")
    zarr.open_group(str(tmp_path / "plate.zarr"), mode="w").attrs["ome"] = {"plate": {}}
    zarr.create_array(str(tmp_path / "array.zarr"), shape=(4, 4), dtype="u1")
    (tmp_path / "folder.zarr").mkdir()
    write(tmp_path / "axes.zarr", described=axes("zyx"))
    shutil.rmtree(write(tmp_path / "level.zarr") / "0")
    (write(tmp_path / "json.zarr") / "zarr.json").write_text("{")
    for name, said in (
        ("empty.zarr", "no images by OME-Zarr's metadata"),
        ("plate.zarr", "is a plate; give its images"),
        ("axes.zarr", "3 axes are named for 5 dimensions"),
        *((f"{name}.zarr", "not an OME-Zarr") for name in ("array", "folder", "level", "json")),
    ):
        refused(rf"{name}: .*{said}", open_images, tmp_path / name)


def test_a_damaged_chunk(tmp_path):
    path = write(tmp_path / "a.zarr")
    (image,) = open_images(path)
    chunk = next(file for file in sorted((path / "0" / "c").rglob("*")) if file.is_file())
    chunk.write_bytes(chunk.read_bytes()[:50])
    refused(r"a\.zarr: cannot be read", image.load)


def test_levels_windows_and_channels(tmp_path):
    levels = open_levels(write(tmp_path / "a.zarr", ARRAY[0, :, 0], axes("cyx"), (1, 0.5, 0.5)))
    assert [level.shape for level in levels] == [(2, 40, 60), (2, 20, 30)]
    assert [level.pixel_size for level in levels] == [0.5, None]  # the second has no scale here
    part = window(levels[1], slice(3, 9), slice(10, 30))
    assert part.shape == (2, 6, 20)
    np.testing.assert_array_equal(part.load(), ARRAY[0, :, 0, 6:18:2, 20::2])
    alone = one_channel(part, 1)
    assert (alone.axes, alone.shape, alone.channels) == ("YX", (6, 20), ())
    np.testing.assert_array_equal(planes(alone)[0].read()[0], ARRAY[0, 1, 0, 6:18:2, 20::2])


@pytest.mark.parametrize("names", [(), ("Red", "Green", "Blue")])
def test_three_channels_that_are_colours(tmp_path, names):
    array = (ARRAY[0, 0] // 256).astype(np.uint8)
    (level, _) = open_levels(write(tmp_path / "a.zarr", array, axes("cyx"), (1, 0.5, 0.5), names=names))
    assert (level.axes, level.channels) == ("SYX", ())
    (plane,) = planes(window(level, slice(0, 8), slice(4, 9)))
    np.testing.assert_array_equal(plane.read()[0], np.moveaxis(array, 0, -1)[:8, 4:9])
    # Other names, or other values, are channels.
    (level, _) = open_levels(write(tmp_path / "b.zarr", array, axes("cyx"), (1, 0.5, 0.5), names=("a", "b", "c")))
    assert level.axes == "CYX"
