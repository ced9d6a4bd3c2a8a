"""Label images as TIFF: what tifffile, napari and Fiji find in them, and what is refused."""

import numpy as np
import pytest
import tifffile

from nuclei_unet.errors import InputError
from nuclei_unet.formats import label_image
from nuclei_unet.formats.label_tiff import read_labels, write_labels
from tests.images import png
from tests.nuclei_unet.formats.label_images import LABELS, same
from tests.refusals import refused

SMALL = LABELS.astype(np.int64) % 60_000


@pytest.mark.parametrize("size", [None, 0.325, 1.0])
def test_fiji_finds_pixel_size_and_range(tmp_path, size):
    path = tmp_path / "a.tif"
    write_labels(path, SMALL, size)
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == "YX" and file.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        about = file.imagej_metadata
        assert (about["min"], about["max"]) == (0, SMALL.max())
        assert about.get("unit") == (None if size is None else "um")
        pixels, unit = file.pages[0].tags["XResolution"].value
        assert pixels / unit == pytest.approx(1 if size is None else 1 / size)


@pytest.mark.parametrize("size", [None, 0.325])
def test_large_numbers_are_an_ome_tiff(tmp_path, size):
    path = tmp_path / "a.tif"
    write_labels(path, LABELS, size)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome and file.series[0].axes == "YX" and file.series[0].dtype == np.uint32
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        assert pixels.get("PhysicalSizeX") == pixels.get("PhysicalSizeY") == size
        assert pixels.get("PhysicalSizeXUnit") == (None if size is None else "µm")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.int64, np.uint64, np.float32, np.float64])
@pytest.mark.parametrize("how", [{}, {"bigtiff": True}, {"tile": (16, 16)}, {"compression": "zlib"}])
def test_files_of_other_tools(tmp_path, dtype, how):
    tifffile.imwrite(tmp_path / "a.tiff", (SMALL % 100).astype(dtype), **how)
    assert same(read_labels(tmp_path / "a.tiff"), SMALL % 100)


def test_further_dimensions_of_length_one_are_dropped(tmp_path):
    for shape in ((1, 1, 4, 5), (1, 1, 1, 5), (1, 5, 1), (1, 1, 1)):
        tifffile.imwrite(tmp_path / "a.tif", np.ones(shape, np.uint16), photometric="minisblack")
        assert read_labels(tmp_path / "a.tif").size == np.prod(shape)


def test_pngs(tmp_path):
    (tmp_path / "a.png").write_bytes(png(SMALL % 100))
    assert same(read_labels(tmp_path / "a.png"), SMALL % 100)
    (tmp_path / "a.png").write_bytes(png(np.zeros((4, 5, 3))))
    refused(r"a.png: not a label image: 4 x 5 x 3 pixels", read_labels, tmp_path / "a.png")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (np.zeros((4, 5, 3), np.uint8), "4 x 5 x 3 pixels"),
        (np.zeros((3, 4, 5), np.uint16), "3 x 4 x 5 pixels"),
        (np.full((4, 5), -1, np.int32), "labels from -1 to -1"),
        (np.full((4, 5), 0.5, np.float32), "fractions"),
        (np.full((4, 5), np.nan, np.float32), "labels from nan"),
        (np.full((4, 5), np.inf), "to inf"),
        (np.full((4, 5), 2**32, np.uint64), "to 4294967296"),
        (np.zeros((4, 5), bool), "its values are bool"),
        (np.zeros((4, 5), np.complex64), "its values are complex64"),
    ],
)
def test_what_is_no_label_image_is_refused(tmp_path, content, match):
    tifffile.imwrite(tmp_path / "a.tif", content)
    refused(f"a.tif: .*{match}", read_labels, tmp_path / "a.tif")
    refused(match, write_labels, tmp_path / "b.tif", content)
    assert not (tmp_path / "b.tif").exists()


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "a.tif"
    refused(r"a.tif: no such file", read_labels, path)
    for compression in (None, "zlib"):
        tifffile.imwrite(path, LABELS, compression=compression)
        whole = path.read_bytes()
        faults = 0
        for size in range(0, len(whole), 7):
            path.write_bytes(whole[:size])
            try:
                # What lies after the pixels may be missing.
                assert same(read_labels(path), LABELS)
            except InputError as error:
                assert str(error).startswith(f"{path}: ")
                faults += 1
        assert faults > len(whole) / 14
    refused("no such file|directory", read_labels, tmp_path)


def test_a_size_is_checked_before_memory_is_taken(tmp_path, monkeypatch):
    write_labels(tmp_path / "a.tif", SMALL)
    monkeypatch.setattr(label_image, "MAX_PIXELS", 48)
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lambda self: pytest.fail("was read"))
    refused("7 x 7 pixels", read_labels, tmp_path / "a.tif")
