import struct
from types import SimpleNamespace

import nd2
import numpy as np
import pytest
from pylibCZIrw import czi

from nuclei_unet.formats.planes import planes
from nuclei_unet.formats.reading import open_images
from tests.refusals import refused

ARRAY = np.random.default_rng(0).integers(0, 60_000, (2, 3, 2, 40, 60), np.uint16)  # TZCYX
RGB = ARRAY[0, :, 0].astype(np.uint8).transpose(1, 2, 0)


def write_czi(path, names=(), **metadata):
    with czi.create_czi(str(path)) as document:
        for t, z, c in np.ndindex(2, 3, 2):
            document.write(ARRAY[t, z, c, :, :, None], plane={"T": t, "Z": z, "C": c})
        document.write_metadata(channel_names=dict(enumerate(names)), **metadata)
    return path


def test_czi(tmp_path):
    (image,) = open_images(write_czi(tmp_path / "a.czi", ("EGFP", "DAPI"), scale_x=0.25e-6, scale_y=0.25e-6))
    expected = ARRAY.transpose(0, 2, 1, 3, 4)
    assert (image.axes, image.shape, image.dtype, image.scene) == ("TCZYX", expected.shape, np.uint16, "")
    assert (image.channels, image.pixel_size_from) == (("EGFP", "DAPI"), "CZI metadata")
    assert image.pixel_size == pytest.approx(0.25)
    np.testing.assert_array_equal(image.load(), expected)
    np.testing.assert_array_equal(image.load(T=1, Z=2), expected[1, :, 2])
    np.testing.assert_array_equal(image.load(C=1), expected[:, 1])
    np.testing.assert_array_equal(planes(image)[-1].read()[0], ARRAY[1, 2, 1])


def test_scenes_that_overlap_and_colours_of_czi(tmp_path):
    with czi.create_czi(str(tmp_path / "a.czi")) as document:
        for scene in range(11):
            document.write(ARRAY[0, 0, 0, : 20 + scene, :, None], location=(scene * 30, 7 * scene), scene=scene)
    images = open_images(tmp_path / "a.czi")
    assert [image.scene for image in images][1:] == [f"scene{number:02}" for number in range(1, 11)]
    for number, image in enumerate(images):
        np.testing.assert_array_equal(image.load(), ARRAY[0, 0, 0, : 20 + number])
    with czi.create_czi(str(tmp_path / "b.czi")) as document:
        document.write(RGB[..., ::-1])  # it stores blue first
    (image,) = open_images(tmp_path / "b.czi")
    assert image.axes == "YXS"
    np.testing.assert_array_equal(image.load(), RGB)


def test_tiles_of_czi_are_joined_unless_they_mix_grey_and_colour(tmp_path):
    with czi.create_czi(str(tmp_path / "tiles.czi")) as document:
        document.write(ARRAY[0, 0, 0, :, :30, None], location=(-5, 3))
        document.write(ARRAY[0, 0, 0, :, 30:, None], location=(25, 3))
    (image,) = open_images(tmp_path / "tiles.czi")
    np.testing.assert_array_equal(image.load(), ARRAY[0, 0, 0])
    with czi.create_czi(str(tmp_path / "a.czi")) as document:
        document.write(RGB, plane={"C": 0})
        document.write(RGB[..., :1], plane={"C": 1})
    refused(r"a\.czi: its pixels are Bgr24, Gray8, which cannot be read together", open_images, tmp_path / "a.czi")


def test_a_czi_that_is_cut_short(tmp_path):
    data = write_czi(tmp_path / "a.czi").read_bytes()
    for length in (20, 600, len(data) // 2, len(data) - 100):
        (tmp_path / "a.czi").write_bytes(data[:length])
        refused(r"a\.czi: is not a CZI that can be read \(Not enough data", open_images, tmp_path / "a.czi")


# No library writes ND2. This stands for nd2's reader: 2 times, 3 positions, 4 planes of 2 channels.
FRAMES = np.random.default_rng(1).integers(0, 60_000, (2, 3, 4, 2, 10, 12), np.uint16)


class StandInForND2:
    dtype = FRAMES.dtype
    calibrated = True

    def __init__(self, path):
        self.sizes = dict(zip("TPZCYX", FRAMES.shape, strict=True))
        volume = SimpleNamespace(axesCalibrated=(self.calibrated, True, False), axesCalibration=(0.3, 0.3, 1.0))
        names = [SimpleNamespace(channel=SimpleNamespace(name=name), volume=volume) for name in ("DAPI", "FITC")]
        self.metadata = SimpleNamespace(channels=names)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read_frame(self, number):
        return FRAMES.reshape(-1, 2, 10, 12)[number]


def test_positions_of_nd2(tmp_path, monkeypatch):
    monkeypatch.setattr(nd2, "ND2File", StandInForND2)
    (tmp_path / "a.nd2").write_bytes(b"\xda\xce\xbe\x0a")
    images = open_images(tmp_path / "a.nd2")
    assert [image.scene for image in images] == ["scene0", "scene1", "scene2"]
    for position, image in enumerate(images):
        assert (image.axes, image.shape, image.channels) == ("TZCYX", (2, 4, 2, 10, 12), ("DAPI", "FITC"))
        assert (image.pixel_size, image.pixel_size_from) == (0.3, "ND2 metadata")
        np.testing.assert_array_equal(image.load(), FRAMES[:, position])
        np.testing.assert_array_equal(image.load(T=1, Z=3), FRAMES[1, position, 3])
        np.testing.assert_array_equal(image.load(Z=2, C=1), FRAMES[:, position, 2, 1])
    monkeypatch.setattr(StandInForND2, "calibrated", False)
    assert open_images(tmp_path / "a.nd2")[0].pixel_size is None


def write_lif(path, *images):
    """A LIF as Leica describes it: an XML header, then a block of memory for each image, all with markers.

    `images` are name, the array, its axes from the outermost, and the XML of its channels.
    """
    elements, blocks = "", b""
    for number, (name, array, axes, about) in enumerate(images):
        ids = {"X": 1, "Y": 2, "Z": 3, "T": 4, "λ": 5, "M": 10}
        dimensions = "".join(
            f'<DimensionDescription DimID="{ids[axis]}" NumberOfElements="{size}" Origin="0" '
            f'Length="{(size - 1) * 0.5e-6}" Unit="m" BitInc="0" BytesInc="{step}"/>'
            for axis, size, step in zip(axes, array.shape, array.strides, strict=True)
            if axis != "C"
        )
        elements += (
            f'<Element Name="{name}"><Memory Size="{array.nbytes}" MemoryBlockID="block{number}"/><Data><Image>'
            f"<ImageDescription><Channels>{about}</Channels><Dimensions>{dimensions}</Dimensions></ImageDescription>"
            "</Image></Data></Element>"
        )
        key = f"block{number}".encode("utf-16-le")
        blocks += struct.pack("<IIBQBI", 0x70, 0, 0x2A, array.nbytes, 0x2A, len(key) // 2) + key + array.tobytes()
    text = (
        '<LMSDataContainerHeader Version="2"><Element Name="a.lif"><Children>'
        f"{elements}</Children></Element></LMSDataContainerHeader>"
    ).encode("utf-16-le")
    path.write_bytes(struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, len(text) // 2) + text + blocks)
    return path


def lif_channel(step, colour="Blue", dye=None, bits=16):
    inside = f"<ChannelProperty><Key>DyeName</Key><Value>{dye}</Value></ChannelProperty>" if dye else ""
    return (
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{bits}" NameOfMeasuredQuantity="" '
        f'Min="0" Max="1" Unit="" LUTName="{colour}" IsLUTInverted="0" BytesInc="{step}" BitInc="0">'
        f"{inside}</ChannelDescription>"
    )


def test_lif(tmp_path):
    step = 40 * 60 * 2
    both = lif_channel(0, "Green", "Leica/ALEXA 488") + lif_channel(step, "Blue", "Leica/DAPI")
    path = write_lif(
        tmp_path / "a.lif",
        ("stack", ARRAY[0], "ZCYX", both),
        ("plain", ARRAY[0, 0, 0], "YX", lif_channel(0, "Gray")),
        ("tiles", ARRAY[0, :, 0].copy(), "MYX", lif_channel(0)),
        ("wavelengths", ARRAY[0, :, 0].copy(), "λYX", lif_channel(0)),
    )
    stack, plain, *tiles, odd = open_images(path)
    assert (stack.scene, stack.axes, stack.shape, stack.dtype) == ("scene0", "ZCYX", (3, 2, 40, 60), np.uint16)
    assert (stack.channels, stack.pixel_size_from) == (("ALEXA 488", "DAPI"), "LIF metadata")
    assert stack.pixel_size == pytest.approx(0.5)
    np.testing.assert_array_equal(stack.load(), ARRAY[0])
    np.testing.assert_array_equal(planes(stack)[2].read()[0], ARRAY[0, 2, 1])
    assert plain.axes == "YX" and plain.channels == ()
    np.testing.assert_array_equal(plain.load(), ARRAY[0, 0, 0])
    assert [tile.scene for tile in tiles] == ["scene2", "scene3", "scene4"]
    for number, tile in enumerate(tiles):
        np.testing.assert_array_equal(tile.load(), ARRAY[0, number, 0])
    # One image that cannot be read does not stop the others.
    refused(r"a\.lif \(scene5\): has the axes λYX", planes, odd)


def test_a_lif_that_is_cut_short(tmp_path):
    data = write_lif(tmp_path / "a.lif", ("plain", ARRAY[0, 0, 0], "YX", lif_channel(0, dye="DAPI"))).read_bytes()
    for length in (12, 100, len(data) - 1000, len(data) - 1):
        (tmp_path / "a.lif").write_bytes(data[:length])
        refused(r"a\.lif: ", lambda: open_images(tmp_path / "a.lif")[0].load())
