"""Decode PNGs from untrusted sources: each is checked before it is decoded."""

import struct

import cv2
import numpy as np

from nuclei_unet.errors import InputError

MAX_SIDE = 20_000
MAX_PIXELS = 200_000_000
PNG_START = b"\x89PNG\r\n\x1a\n"


def decode(data: bytes, name: str) -> np.ndarray:
    """Return the pixels of a PNG file's content, uint8 or uint16 (H, W), RGB (H, W, 3) or RGBA (H, W, 4), as stored.

    Raises InputError that starts with `name`: not a PNG, cut short, undecodable, or more than 20,000 pixels on a side
    or 200 million in all. The size is read from the header before any memory is allocated for pixels.
    """
    if not data.startswith(PNG_START):
        raise InputError(f"{name}: not a PNG")
    # IHDR comes first in every PNG: length, type, width, height, big-endian (PNG specification, 11.2.2).
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise InputError(f"{name}: PNG without a header")
    width, height = struct.unpack(">II", data[16:24])
    check_size(width, height, name)
    # Chunks: length, type, content, checksum. OpenCV allocates whatever length a chunk claims.
    end, kind = len(PNG_START), b""
    while kind != b"IEND" and end + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[end : end + 8])
        end += 12 + length
    if kind != b"IEND" or end > len(data):
        raise InputError(f"{name}: PNG is cut short")
    return decode_checked(data, (height, width), f"{name}: PNG")


def check_size(width: int, height: int, name: str) -> None:
    """Raise InputError for a picture that is too large to be read at once."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise InputError(
            f"{name}: {width} x {height} pixels; at most {MAX_SIDE:,} a side, {MAX_PIXELS:,} in all. "
            "Larger images can be read as TIFF"
        )


def decode_checked(data: bytes, shape: tuple[int, int], what: str) -> np.ndarray:
    """Return the pixels of a picture of this height and width, grey, RGB or RGBA; see `decode`."""
    try:
        # Unchanged also means: not turned by an orientation tag.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None or image.shape[:2] != shape:
        raise InputError(f"{what} cannot be decoded")
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return image
