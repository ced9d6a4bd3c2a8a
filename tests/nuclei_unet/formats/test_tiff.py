import contextlib
import logging
import os
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from nuclei_unet import InputError
from nuclei_unet.formats.planes import planes
from nuclei_unet.formats.reading import open_images
from tests import ROOT
from tests.refusals import refused

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 60_000, (40, 60), np.uint16)
RGB = RNG.integers(0, 256, (40, 60, 3), np.uint8)
STACK = RNG.integers(0, 60_000, (5, 40, 60), np.uint16)
HYPER = RNG.integers(0, 60_000, (2, 3, 2, 40, 60), np.uint16)  # TZCYX
PLAIN = {"metadata": None, "photometric": "minisblack"}


def only(path, axes=None):
    (image,) = open_images(path, axes)
    return image


def loaded(path):
    return [image.load() for image in open_images(path)]


def same(path, array, axes, given=None):
    image = only(path, given)
    assert (image.axes, image.shape, image.dtype) == (axes, array.shape, array.dtype)
    np.testing.assert_array_equal(image.load(), array)
    return image


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])  # none, LZW, deflate, PackBits
@pytest.mark.parametrize(
    ("array", "axes"),
    [(GREY, "YX"), (RGB, "YXS"), (RGB[..., 0], "YX"), (GREY.astype(np.float32), "YX")],
    ids=["16", "rgb", "8", "float"],
)
def test_what_opencv_writes(tmp_path, compression, array, axes):
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array, [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    same(path, array, axes)


def test_byte_order_and_bigtiff(tmp_path):
    for more in ({}, {"bigtiff": True, "compression": "zlib"}):
        tifffile.imwrite(tmp_path / "a.tif", GREY, byteorder=">", **PLAIN, **more)
        same(tmp_path / "a.tif", GREY, "YX")


def test_jpeg_inside_tiff_and_colour_tables_become_rgb(tmp_path):
    smooth = cv2.GaussianBlur(RGB, (0, 0), 8)
    Image.fromarray(smooth).save(tmp_path / "a.tif", compression="jpeg", quality=100)
    assert np.abs(only(tmp_path / "a.tif").load().astype(int) - smooth).max() < 30
    few = Image.fromarray(RGB).quantize(16)
    few.save(tmp_path / "a.tif")
    same(tmp_path / "a.tif", np.asarray(few.convert("RGB")), "YXS")


def test_a_colour_table_for_display_changes_no_grey_value(tmp_path):
    table = np.zeros((3, 256), np.uint16)
    table[2] = np.arange(256) * 257  # blue, as Fiji shows DAPI
    options = {"photometric": "palette", "colormap": table, "description": "ImageJ=1.54f\n"}
    tifffile.imwrite(tmp_path / "a.tif", RGB[..., 0], **options)
    same(tmp_path / "a.tif", RGB[..., 0], "YX")


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_other_colours_are_refused(tmp_path, mode):
    Image.fromarray(RGB).convert(mode).save(tmp_path / "a.tif")
    refused(r"a\.tif: its colours are (SEPARATED|CIELAB); save it as grey or RGB", open_images, tmp_path / "a.tif")


def test_pages_of_several_sizes_are_scenes(tmp_path):
    first, second = Image.fromarray(RGB), Image.fromarray(GREY[:30])
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    images = open_images(tmp_path / "a.tif")
    assert [(image.scene, image.axes) for image in images] == [("scene0", "YXS"), ("scene1", "YX")]
    np.testing.assert_array_equal(images[1].load(), GREY[:30])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_stack_without_axes_is_refused_with_the_choices(tmp_path, compression):
    tifffile.imwrite(tmp_path / "a.tif", STACK, **PLAIN, compression=compression)
    refused(r"3 dimensions \(5, 40, 60\) are; give the axes as ZYX, TYX or CYX$", open_images, tmp_path / "a.tif")
    for axes in ("ZYX", "tyx", "CYX"):
        image = same(tmp_path / "a.tif", STACK, axes.upper(), axes)
        assert image.channels == (("0", "1", "2", "3", "4") if axes == "CYX" else ())


def test_choices_fit_the_shape(tmp_path):
    for shape, choices in (
        ((3, 40, 60), "ZYX, TYX, CYX or SYX (colours)"),
        ((2, 3, 40, 60), "TZYX, TCYX, ZCYX or CZYX"),
        ((2, 3, 2, 40, 60), "TZCYX or TCZYX"),
    ):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint16), photometric="minisblack")
        assert refused(None, open_images, tmp_path / "a.tif").endswith(f"give the axes as {choices}")


def test_axes_that_do_not_fit_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, **PLAIN)
    for axes in ("TZYX", "YX"):
        refused(rf"3 dimensions, which the axes {axes} do not fit", open_images, tmp_path / "a.tif", axes)
    for axes in ("ZXQ", "ZZYX", "CZT", "", "Z Y X"):
        refused("give a letter", open_images, tmp_path / "a.tif", axes)


def test_planar_colours_are_rgb_but_three_channels_are_not(tmp_path):
    three = np.moveaxis(RGB, -1, 0)
    tifffile.imwrite(tmp_path / "rgb.tif", three, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(planes(same(tmp_path / "rgb.tif", three, "SYX"))[0].read()[0], RGB)
    tifffile.imwrite(tmp_path / "a.tif", three, photometric="minisblack", metadata={"axes": "CYX"})
    assert only(tmp_path / "a.tif").channels == ("0", "1", "2")
    # Samples of grey: channels too, whether stored pixel by pixel or plane by plane.
    tifffile.imwrite(tmp_path / "b.tif", RGB, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(same(tmp_path / "b.tif", RGB, "YXC").load(C=1), RGB[..., 1])
    tifffile.imwrite(tmp_path / "c.tif", three, photometric="minisblack", planarconfig="separate")
    np.testing.assert_array_equal(same(tmp_path / "c.tif", three, "CYX").load(C=2), three[2])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_hyperstacks_of_imagej_plane_by_plane(tmp_path, compression):
    labels = [name for _ in range(6) for name in ("GFP", "DAPI")]
    tifffile.imwrite(
        *(tmp_path / "a.tif", HYPER),
        **{"imagej": True, "compression": compression, "resolution": (4, 4)},
        metadata={"axes": "TZCYX", "unit": "\\u00B5m", "Labels": labels},
    )
    image = same(tmp_path / "a.tif", HYPER, "TZCYX")
    assert (image.channels, image.pixel_size, image.pixel_size_from) == (("GFP", "DAPI"), 0.25, "ImageJ metadata")
    np.testing.assert_array_equal(image.load(T=1, C=0), HYPER[1, :, 0])
    found = planes(image)
    assert [plane.suffix for plane in found][-1] == "_t1_z2"
    np.testing.assert_array_equal(found[-1].read()[0], HYPER[1, 2, 1])
    np.testing.assert_array_equal(found[-1].read()[1], np.moveaxis(HYPER[1, 2], 0, -1))


def resolution(path, description="ImageJ=1.54f\n", **options):
    tifffile.imwrite(path, GREY, description=description, metadata=None, **options)
    image = only(path)
    return image.pixel_size, image.pixel_size_from


def test_what_is_no_pixel_size(tmp_path):
    path = tmp_path / "a.tif"
    assert resolution(path) == (None, "unknown")
    assert resolution(path, "ImageJ=1.54f\nunit=pixel\n", resolution=(2, 2), resolutionunit=1) == (None, "unknown")
    assert resolution(path, "ImageJ=1.54f\nunit=inch\n", resolution=(72, 72), resolutionunit=2) == (None, "unknown")
    assert resolution(path, "ImageJ=1.54f\nunit=um\n", resolution=(1, 1))[0] is None
    size, source = resolution(path, "ImageJ=1.54f\nunit=um\n", resolution=(2, 4))
    assert size is None and "0.5 x 0.25 µm are not square" in source


def test_tiffs_own_resolution_counts_unless_it_is_that_of_a_printer(tmp_path):
    sizes = {(2, 50_800): 0.5, (3, 40_000): 0.25}
    for unit, per_unit in (*sizes, (2, 72), (2, 300), (2, 1200), (3, 118), (1, 40_000), (3, 10**9)):
        size, source = resolution(tmp_path / "a.tif", None, resolution=(per_unit, per_unit), resolutionunit=unit)
        assert size == (pytest.approx(sizes[unit, per_unit]) if (unit, per_unit) in sizes else None)
        assert size is None or source == "TIFF resolution"


# OME-TIFF, with handwritten metadata.

OME = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{}</OME>'


def pixels(sizes, inside, size='PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="250" PhysicalSizeYUnit="nm"'):
    given = " ".join(f'Size{axis}="{count}"' for axis, count in zip("XYZCT", sizes, strict=True))
    return (
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" {given} {size}>'
        f"{inside}</Pixels></Image>"
    )


def channels(*names):
    return "".join(f'<Channel ID="Channel:0:{at}" Name="{name}"/>' for at, name in enumerate(names))


def write_ome(path, pages, *images, **options):
    with tifffile.TiffWriter(path) as writer:
        for number, page in enumerate(pages):
            text = OME.format("".join(images)) if number == 0 else None
            writer.write(page, description=text, metadata=None, **options)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_ome_tiff(tmp_path, compression):
    # DimensionOrder XYZCT: Z runs fastest.
    pages = HYPER.transpose(0, 2, 1, 3, 4)
    about = pixels((60, 40, 3, 2, 2), channels("mCherry", "Hoechst 33342") + "<TiffData/>")
    write_ome(tmp_path / "a.ome.tif", pages.reshape(-1, 40, 60), about, compression=compression)
    image = same(tmp_path / "a.ome.tif", pages, "TCZYX")
    assert image.channels == ("mCherry", "Hoechst 33342")
    assert (image.pixel_size, image.pixel_size_from) == (0.25, "OME metadata")
    np.testing.assert_array_equal(planes(image)[4].read()[0], HYPER[1, 1, 1])


def test_an_only_channel_keeps_its_name(tmp_path):
    write_ome(tmp_path / "a.ome.tif", [GREY], pixels((60, 40, 1, 1, 1), channels("DAPI") + "<TiffData/>"))
    image = only(tmp_path / "a.ome.tif")
    assert (image.axes, image.shape, image.channels) == ("CYX", (1, 40, 60), ("DAPI",))
    chosen, everything = planes(image, "dapi")[0].read()
    assert chosen.shape == (40, 60) and everything.shape == (40, 60, 1)


def test_series_are_scenes_each_with_its_own_metadata(tmp_path):
    first = pixels((60, 40, 1, 2, 1), channels("a", "b") + '<TiffData IFD="0" PlaneCount="2"/>')
    second = pixels((30, 20, 1, 1, 1), channels("c") + '<TiffData IFD="2" PlaneCount="1"/>', 'PhysicalSizeX="1"')
    write_ome(tmp_path / "a.ome.tif", [*HYPER[0, 0], GREY[:20, :30]], first, second)
    images = open_images(tmp_path / "a.ome.tif")
    assert [(image.scene, image.channels) for image in images] == [("scene0", ("a", "b")), ("scene1", ("c",))]
    assert [image.pixel_size for image in images] == [0.25, None]
    np.testing.assert_array_equal(images[1].load(C=0), GREY[:20, :30])


def test_series_beside_the_image_are_left_out(tmp_path):
    image = pixels((60, 40, 1, 1, 1), '<TiffData IFD="0" PlaneCount="1"/>')
    others = []
    for at, width, name in ((1, 30, "label image"), (2, 20, "macrophages")):
        about = pixels((width, 20, 1, 1, 1), f'<TiffData IFD="{at}" PlaneCount="1"/>')
        others.append(about.replace("<Image", f'<Image Name="{name}"'))
    write_ome(tmp_path / "a.ome.tif", [GREY, GREY[:20, :30], GREY[:20, :20]], image, *others)
    assert [image.shape for image in open_images(tmp_path / "a.ome.tif")] == [(40, 60), (20, 20)]


def test_a_pyramids_full_resolution(tmp_path):
    large = np.add.outer(np.arange(256, dtype=np.uint16), np.arange(256, dtype=np.uint16))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        writer.write(np.stack([large, large + 1]), subifds=1, tile=(64, 64), metadata={"axes": "CYX"})
        writer.write(np.stack([large, large])[:, ::2, ::2], subfiletype=1, tile=(64, 64))
    np.testing.assert_array_equal(only(tmp_path / "a.ome.tif").load(C=1), large + 1)
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        writer.write(np.dstack([large.astype(np.uint8)] * 3), tile=(64, 64), photometric="rgb")
        writer.write(RGB, subfiletype=1, photometric="rgb")
    assert only(tmp_path / "b.tif").shape == (256, 256, 3)


def test_an_image_in_several_files_belongs_to_the_first(tmp_path):
    data = "".join(
        f'<TiffData FirstC="{at}" IFD="0" PlaneCount="1"><UUID FileName="{at}.ome.tif">urn:uuid:{at}</UUID></TiffData>'
        for at in range(2)
    )
    for at in range(2):
        text = OME.format(pixels((60, 40, 1, 2, 1), channels("a", "b") + data))
        text = text.replace("<OME", f'<OME UUID="urn:uuid:{at}"')
        tifffile.imwrite(tmp_path / f"{at}.ome.tif", HYPER[0, 0, at], description=text, metadata=None)
    same(tmp_path / "0.ome.tif", HYPER[0, 0], "CYX")
    assert open_images(tmp_path / "1.ome.tif") == []
    (tmp_path / "1.ome.tif").unlink()
    np.testing.assert_array_equal(only(tmp_path / "0.ome.tif").load(C=0), HYPER[0, 0, 0])
    refused("a plane of the image is missing", only(tmp_path / "0.ome.tif").load, C=1)


@pytest.mark.parametrize("silence", ["disabled", "level"])
def test_a_cut_file_is_refused_whatever_was_done_to_its_logger(silence, tmp_path, monkeypatch):
    # As logging.config.fileConfig does to all loggers that it does not know.
    monkeypatch.setattr(logging.getLogger("tifffile"), silence, True if silence == "disabled" else logging.CRITICAL)
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY] * 3), imagej=True, metadata={"axes": "ZYX"})
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[: -GREY.nbytes])
    refused(r"a\.tif: the file is damaged or cut short", loaded, tmp_path / "a.tif")


def test_broken_ome_metadata(tmp_path):
    about = pixels((60, 40, 1, 1, 1), "<TiffData/>")
    for text in (OME.format(about).replace("</Pixels>", ""), OME.format(about)[:-20]):
        tifffile.imwrite(tmp_path / "a.ome.tif", GREY, description=text, metadata=None)
        refused(r"a\.ome\.tif: .*(damaged|OME metadata are cut short)", open_images, tmp_path / "a.ome.tif")


def variants(folder):
    cv2.imwrite(str(folder / "lzw.tif"), STACK[0])
    Image.fromarray(GREY).save(folder / "raw.tif")
    tifffile.imwrite(folder / "imagej.tif", HYPER, imagej=True, metadata={"axes": "TZCYX"})
    tifffile.imwrite(folder / "ome.ome.tif", HYPER, metadata={"axes": "TZCYX"}, compression="zlib")
    tifffile.imwrite(folder / "big.tif", GREY, bigtiff=True, tile=(16, 16))
    tifffile.imwrite(folder / "axes.tif", STACK, metadata={"axes": "ZYX"}, compression="zlib")
    return sorted(folder.glob("*.tif"))


def test_a_file_that_is_cut_short_is_refused_wherever_the_cut_is(tmp_path, capfd, caplog):
    (tmp_path / "whole").mkdir()
    for whole in variants(tmp_path / "whole"):
        data, expected = whole.read_bytes(), only(whole).load()
        for length in {1, 4, 8, 9, 100, 500, *range(1000, len(data), len(data) // 40), len(data) - 1}:
            path = tmp_path / whole.name
            path.write_bytes(data[:length])
            try:
                found = loaded(path)
            except InputError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            else:
                # Cut where nothing of the image is.
                np.testing.assert_array_equal(found[0], expected)
                assert length > len(data) * 0.9
    assert capfd.readouterr().err == "" and not caplog.records


@pytest.mark.parametrize("compression", ["zlib", "lzw", "jpeg"])
def test_coded_data_that_are_cut_short(tmp_path, compression):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", compression=compression, metadata=None)
    data = (tmp_path / "a.tif").read_bytes()
    for lost in (1, 10, 500):
        (tmp_path / "a.tif").write_bytes(data[:-lost])
        refused(r"a\.tif: the file is cut short$", loaded, tmp_path / "a.tif")


@pytest.mark.slow
def test_damaged_bytes_never_end_in_a_traceback(tmp_path):
    (tmp_path / "whole").mkdir()
    for whole in variants(tmp_path / "whole"):
        data = whole.read_bytes()
        for _ in range(40):
            damaged = bytearray(data)
            for at in RNG.integers(4, min(len(data), 600), 4):
                damaged[at] = RNG.integers(256)
            (tmp_path / "a.tif").write_bytes(damaged)
            with contextlib.suppress(InputError):
                for image in open_images(tmp_path / "a.tif"):
                    planes(image, 0)[0].read()


def tiff_header(width, height, data=b"\0" * 64, compression=1):
    """A small TIFF that claims any size."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def test_a_header_that_claims_a_million_by_a_million_pixels(tmp_path):
    path = tmp_path / "a.tif"
    for compression in (1, 8):
        path.write_bytes(tiff_header(10**6, 10**6, compression=compression))
        refused(r"1,000,000,000,000 values in a plane", planes, only(path))
    path.write_bytes(tiff_header(40_000, 40_000))
    (plane,) = planes(only(path))
    refused("cut short", plane.read)
    path.write_bytes(tiff_header(8, 8))
    assert planes(only(path))[0].read()[0].shape == (8, 8)


LACKING = """
import sys
from pathlib import Path
sys.modules["imagecodecs"] = None
from nuclei_unet.formats.reading import open_images
for name in sys.argv[1:]:
    try:
        print(open_images(Path(name))[0].load().shape)
    except Exception as error:
        print(error)
"""


def test_without_imagecodecs(tmp_path):
    cv2.imwrite(str(tmp_path / "lzw.tif"), GREY)
    Image.fromarray(RGB).save(tmp_path / "jpeg.tif", compression="jpeg")
    tifffile.imwrite(tmp_path / "zlib.tif", GREY, compression="zlib")
    command = [sys.executable, "-c", LACKING, "lzw.tif", "jpeg.tif", "zlib.tif"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=variables)
    needs = "its compression needs imagecodecs: pip install 'nuclei-unet[codecs]'"
    assert done.stdout.splitlines() == [f"lzw.tif: {needs}", f"jpeg.tif: {needs}", "(40, 60)"]
    assert done.stderr == ""


def test_no_file_stays_open_and_logging_is_left_as_it_was(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", HYPER, metadata={"axes": "TZCYX"}, compression="zlib")
    logger = logging.getLogger("tifffile")
    before = (list(logger.handlers), logger.propagate)
    image = only(tmp_path / "a.ome.tif")
    image.load(T=1)
    assert (list(logger.handlers), logger.propagate) == before
    assert image.load.args[1].filehandle.closed
