import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from nuclei_unet.formats.reading import open_images
from tests.refusals import refused

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def write_jpeg(path, array, flags=()):
    path.write_bytes(cv2.imencode(".jpg", array, flags)[1].tobytes())
    return path


def only(path):
    (image,) = open_images(path)
    return image


@pytest.mark.parametrize(
    ("name", "array"),
    [
        *(("a.png", array) for array in (RGB, RGB[..., 0], np.dstack([RGB, RGB[..., :1]]))),
        *(("a.bmp", RGB), ("a.BMP", RGB[..., 0])),
    ],
)
def test_pictures_come_back_as_rgb(tmp_path, name, array):
    path = tmp_path / name
    Image.fromarray(array).save(path)
    image = only(path)
    assert (image.axes, image.shape, image.dtype) == ("YX" + "S" * (array.ndim == 3), array.shape, np.uint8)
    assert (image.scene, image.channels, image.pixel_size, image.pixel_size_from) == ("", (), None, "unknown")
    np.testing.assert_array_equal(image.load(), array)


def test_a_png_of_16_bits_and_one_with_a_palette(tmp_path):
    deep = np.arange(2000, dtype=np.uint16).reshape(40, 50) * 31
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    np.testing.assert_array_equal(only(tmp_path / "deep.png").load(), deep)
    few = Image.fromarray(RGB).quantize(16)
    few.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(only(tmp_path / "palette.png").load(), np.asarray(few.convert("RGB")))


def test_jpegs_grey_colour_and_turned(tmp_path):
    smooth = cv2.GaussianBlur(RGB, (0, 0), 8)
    image = only(write_jpeg(tmp_path / "a.jpg", smooth[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100]))
    assert image.axes == "YXS" and np.abs(image.load().astype(int) - smooth).max() < 30
    assert only(write_jpeg(tmp_path / "grey.jpeg", smooth[..., 0])).axes == "YX"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees; that is ignored
    Image.fromarray(RGB).save(tmp_path / "turned.jpg", exif=exif)
    assert only(tmp_path / "turned.jpg").shape == (40, 60, 3)


@pytest.mark.parametrize(
    "flags", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)], ids=["", "progressive", "rst"]
)
def test_a_jpeg_that_is_cut_short_is_refused_wherever_the_cut_is(tmp_path, flags):
    data = write_jpeg(tmp_path / "a.jpg", RGB, flags).read_bytes()
    for length in [*range(3, len(data), 101), len(data) - 2, len(data) - 1]:
        (tmp_path / "cut.jpg").write_bytes(data[:length])
        refused(r"cut\.jpg: the picture is cut short or damaged", open_images, tmp_path / "cut.jpg")


def test_a_thumbnails_end_is_not_the_pictures_end(tmp_path):
    small = write_jpeg(tmp_path / "small.jpg", RGB[:8, :8]).read_bytes()
    data = write_jpeg(tmp_path / "a.jpg", RGB).read_bytes()
    extra = b"\xff\xe1" + struct.pack(">H", len(small) + 2) + small
    (tmp_path / "b.jpg").write_bytes(data[:2] + extra + data[2:])
    assert only(tmp_path / "b.jpg").shape == (40, 60, 3)
    (tmp_path / "b.jpg").write_bytes(data[:2] + extra + data[2:-500])
    refused("cut short", open_images, tmp_path / "b.jpg")


def test_a_bmp_that_is_cut_short_is_refused_with_run_lengths_too(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.bmp")
    data = (tmp_path / "a.bmp").read_bytes()
    for length in (3, 20, 60, len(data) // 2, len(data) - 1):
        (tmp_path / "a.bmp").write_bytes(data[:length])
        refused("cut short", open_images, tmp_path / "a.bmp")
    palette = bytes(range(256)) * 4
    rows = b"\x08\x07\0\0" * 8 + b"\0\1"  # eight rows of eight times 7
    header = struct.pack("<iiHHIIiiII", 8, 8, 1, 8, 1, len(rows), 0, 0, 256, 0)
    data = b"BM" + struct.pack("<IHHII", 54 + 1024 + len(rows), 0, 0, 54 + 1024, 40) + header + palette + rows
    (tmp_path / "a.bmp").write_bytes(data)
    assert only(tmp_path / "a.bmp").shape[:2] == (8, 8)
    (tmp_path / "a.bmp").write_bytes(data[:-20])
    refused("cut short or damaged", open_images, tmp_path / "a.bmp")


def test_sizes_are_checked_before_pixels_are_allocated(tmp_path):
    data = bytearray(write_jpeg(tmp_path / "a.jpg", RGB).read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    (tmp_path / "a.jpg").write_bytes(data)
    Image.fromarray(RGB).save(tmp_path / "a.bmp")
    bmp = bytearray((tmp_path / "a.bmp").read_bytes())
    bmp[18:26] = struct.pack("<ii", 2**30, 1)
    bmp[30:34] = struct.pack("<I", 1)  # run lengths: the file may be short
    (tmp_path / "a.bmp").write_bytes(bmp)
    for name in ("a.jpg", "a.bmp"):
        refused("pixels; at most 20,000 a side", open_images, tmp_path / name)
