"""Decode PNG, JPEG and BMP files; each is checked before it is decoded."""

import io
from pathlib import Path

from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile

from nuclei_unet.formats import png
from nuclei_unet.formats.imagefile import ImageFile, clear_errors


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
        # OpenCV decodes a picture that is cut short without a word; what is missing comes out grey. Pillow tells.
        with clear_errors(path, "the picture is cut short or damaged"):
            picture = (JpegImageFile if data.startswith(b"\xff\xd8") else BmpImageFile)(io.BytesIO(data))
            png.check_size(*picture.size, str(path))
            picture.load()
        array = png.decode_checked(data, picture.size[::-1], f"{path}: the picture")
    axes = "YX" if array.ndim == 2 else "YXS"
    return ImageFile(path, "", axes, array.shape, array.dtype, (), None, "unknown", lambda: array)
