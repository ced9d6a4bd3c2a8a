"""PNG files, also damaged ones and such as are made to do damage."""

import io
import struct
import zlib

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from nuclei_unet.errors import InputError
from nuclei_unet.formats.png import PNG_START, decode
from tests.images import GREY
from tests.refusals import refused


def written(image: Image.Image, form: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


def test_decode_takes_palettes_and_bits_for_what_they_show():
    shades = Image.new("L", (3, 1))
    shades.putdata([0, 128, 255])
    for form in ("L", "P", "LA", "RGB", "RGBA"):
        pixels = decode(written(shades.convert(form), "PNG"), "x")
        values = pixels if pixels.ndim == 2 else pixels[..., 0]
        assert values.tolist() == [[0, 128, 255]], form
    assert decode(written(Image.new("1", (1, 1), 1), "PNG"), "x").reshape(-1)[0] == 255


def test_decode_refuses_what_is_no_sound_png():
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    bomb = PNG_START + chunk + GREY[-12:]
    # A chunk that claims two gigabytes.
    place = GREY.index(b"IDAT") - 4
    claims = GREY[:place] + struct.pack(">I", 2**31 - 1) + GREY[place + 4 :]
    wrong = bytearray(GREY)
    wrong[GREY.index(b"IDAT") + 6] ^= 255
    for data, match in [
        *((data, "x.png: not a PNG") for data in (b"GIF89a", b"", written(Image.new("CMYK", (3, 2)), "JPEG"))),
        (written(Image.new("F", (3, 2), float("nan")), "TIFF"), "not a PNG"),
        (GREY[:20], "without a header"),
        (GREY[:-5], "cut short"),
        (claims, "cut short"),
        (bomb, "20000 x 20000 pixels"),
        (bytes(wrong), "cannot be decoded"),
    ]:
        refused(match, decode, data, "x.png")


pictures = npst.arrays(
    st.sampled_from([np.uint8, np.uint16]), st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4]))
)


@given(pictures, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), st.integers(0, 400))
def test_decode_of_a_png_with_other_bytes_is_an_input_error_or_an_image(image, changes, cut):
    data = bytearray(cv2.imencode(".png", image)[1].tobytes())
    for position, value in changes:
        data[position % len(data)] = value
    try:
        pixels = decode(bytes(data[: len(data) - cut % len(data)] if cut % 2 else data), "x.png")
    except InputError as error:
        assert str(error).startswith("x.png: ")
    else:
        assert pixels.dtype in (np.uint8, np.uint16) and pixels.shape[:2] == struct.unpack(">II", data[16:24])[::-1]
