"""Decode PNG, JPEG and BMP files; each is checked before it is decoded."""

import re
import struct
from pathlib import Path

from nuclei_unet.errors import InputError
from nuclei_unet.formats import png
from nuclei_unet.formats.imagefile import ImageFile

# A frame header, which holds the size: SOF0 to SOF15, without DHT, JPG and DAC (ITU-T T.81, table B.1).
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Within coded data, FF is followed by 00 or a restart marker; anything else but FF ends it.
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def open_picture(path: Path) -> ImageFile:
    """Read a PNG, JPEG or BMP file; the content decides which it is.

    Values are those stored: orientation tags (EXIF) are ignored, as in ImageJ, so that labels fit the stored pixels.
    Colours come as RGB or RGBA, palettes as the colours that they mean. Such files say nothing reliable of their
    pixel size.

    Raises InputError if the file is cut short or cannot be decoded, or if it has more than 20,000 pixels on a side
    or 200 million in all (`png.MAX_SIDE`, `png.MAX_PIXELS`). The size is read from the header before any memory is
    allocated for pixels.
    """
    data = path.read_bytes()
    if data.startswith(png.PNG_START):
        array = png.decode(data, str(path))
    else:
        read_header = _jpeg_size if data.startswith(b"\xff\xd8") else _bmp_size
        try:
            size = read_header(data)
        except (struct.error, IndexError):
            size = None
        if size is None:
            raise InputError(f"{path}: the picture is cut short or damaged")
        png.check_size(*size, str(path))
        array = png.decode_checked(data, size[::-1], f"{path}: the picture")
    axes = "YX" if array.ndim == 2 else "YXS"
    return ImageFile(path, "", axes, array.shape, array.dtype, (), None, "unknown", lambda: array)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a JPEG that is complete up to its end marker, else None.

    OpenCV decodes a JPEG that is cut short without a word; what is missing comes out grey.
    """
    size, at = None, 2
    while True:
        kind = data[at + 1]
        if data[at] != 0xFF:
            return None
        if kind == 0xFF:  # padding
            at += 1
            continue
        if kind == 0xD9:
            return size
        (length,) = struct.unpack_from(">H", data, at + 2)
        if kind in FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = width, height
        at += 2 + length
        if kind == 0xDA:  # a scan: coded data follow
            found = NEXT_MARKER.search(data, at)
            if found is None:
                return None
            at = found.start()


def _bmp_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a BMP whose pixels are all there, else None (Microsoft's BITMAPINFOHEADER)."""
    start, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)  # negative: rows from top to bottom
    row = (width * bits + 31) // 32 * 4
    # 1 and 2 are run lengths; OpenCV refuses those that end too early.
    if compression not in (1, 2) and start + row * height > len(data):
        return None
    return width, height
