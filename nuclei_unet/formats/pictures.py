"""Decode PNG, JPEG and BMP files; the size is checked before pixels are decoded."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from nuclei_unet.errors import InputError
from nuclei_unet.formats import png
from nuclei_unet.formats.imagefile import ImageFile


def open_picture(path: Path) -> ImageFile:
    """Read a PNG, JPEG or BMP file; the content decides which it is.

    Values are those stored: orientation tags (EXIF) are ignored, as in ImageJ, so that labels fit the stored pixels.
    Colours come as RGB or RGBA, palettes as the colours that they mean. Such files say nothing reliable of their
    pixel size.

    Raises InputError if the file is cut short or cannot be decoded, or if it has more than 20,000 pixels on a side
    or, about, 180 million in all. The size is read from the header before any memory is allocated for pixels.
    """
    with path.open("rb") as file:
        start = file.read(len(png.PNG_START))
    # Pillow would take eight bits of the sixteen of a PNG's colours.
    array = png.decode(path.read_bytes(), str(path)) if start == png.PNG_START else _decode(path)
    axes = "YX" if array.ndim == 2 else "YXS"
    return ImageFile(path, "", axes, array.shape, array.dtype, (), None, "unknown", lambda: array)


def _decode(path: Path) -> np.ndarray:
    too_large = f"at most {png.MAX_SIDE:,} a side, {png.MAX_PIXELS:,} in all. Larger images can be read as TIFF"
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=("JPEG", "BMP")) as picture:
            if max(picture.size) > png.MAX_SIDE:
                raise InputError(f"{path}: {picture.width} x {picture.height} pixels; {too_large}")
            return np.asarray(picture if picture.mode in ("L", "RGB", "RGBA") else picture.convert("RGB"))
    except Image.DecompressionBombError:
        raise InputError(f"{path}: too many pixels; {too_large}") from None
    # Pillow raises nearly anything for a damaged file.
    except (OSError, SyntaxError, ValueError, IndexError) as error:
        raise InputError(f"{path}: the picture is cut short or damaged ({error})") from None
