"""From polygons to a label image."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from nuclei_unet.errors import InputError
from nuclei_unet.formats.label_image import check_size
from nuclei_unet.formats.outlines import Part
from nuclei_unet.formats.run_lengths import ranges

# All crossings of polygons with rows of pixels are in memory at once; 100 million take 5 GB.
MAX_CROSSINGS = 100_000_000
MAX_COORDINATE = 1e9


def ring_of(vertices: ArrayLike, where: str) -> np.ndarray:
    """Return a ring from a file as float64 (N, 2) x, y. Raises InputError that starts with `where` if it is none."""
    try:
        ring = np.asarray(vertices, np.float64)
    except (TypeError, ValueError, OverflowError):
        ring = np.zeros(0)
    # NaN fails the comparison, too.
    if ring.ndim != 2 or ring.shape[1] != 2 or not ring.size or not (np.abs(ring).max() <= MAX_COORDINATE):
        raise InputError(f"{where}: its coordinates are not rings of x, y")
    return ring


def rasterise(found: Mapping[int, list[Part]], shape: tuple[int, int]) -> np.ndarray:
    """Return the label image of outlines, as written by `outlines` or by any other program.

    A pixel belongs to a part if its centre lies inside, by the even-odd rule over the part's rings; a centre on the
    line belongs to the polygon on its right or below. A pixel of two nuclei goes to the one that comes first.
    What lies outside the image is cut off.

    Parameters
    ----------
    found : label -> parts; rings (N, 2) x, y in pixels, integer or float
    shape : height and width in pixels

    Returns
    -------
    uint16 (H, W), or uint32 if a label is above 65,535; 0 = background

    Raises
    ------
    InputError : the outlines cross more than 100 million rows of pixels
    """
    height, width = shape
    labels = np.zeros(shape, np.uint16 if max(found, default=0) < 2**16 else np.uint32)
    parts = [(label, part) for label, pieces in found.items() for part in pieces]
    rings = [(number, ring) for number, (_, part) in enumerate(parts) for ring in part if len(ring)]
    if not rings:
        return labels
    lengths = np.array([len(ring) for _, ring in rings])
    points = np.concatenate([ring for _, ring in rings]).astype(np.float64)
    ends = np.cumsum(lengths)
    after = np.arange(1, len(points) + 1)
    after[ends - 1] = ends - lengths
    owner = np.repeat([number for number, _ in rings], lengths)

    # Row r is crossed by an edge if r + 0.5 lies between its ends, the upper one included.
    (x0, y0), (x1, y1) = points.T, points[after].T
    upper, lower = np.minimum(y0, y1), np.maximum(y0, y1)
    first = np.clip(np.ceil(upper - 0.5), 0, height).astype(np.int64)
    count = np.clip(np.ceil(lower - 0.5), 0, height).astype(np.int64) - first
    if count.sum() > MAX_CROSSINGS:
        raise InputError(f"the outlines cross {count.sum():,} rows of pixels; at most {MAX_CROSSINGS:,}")
    row = ranges(first, count)
    edge = np.repeat(np.arange(len(points)), count)
    slope = (x1 - x0) / np.where(y1 == y0, 1, y1 - y0)
    column = np.ceil(x0[edge] + (row + 0.5 - y0[edge]) * slope[edge] - 0.5)
    column = np.clip(column, 0, width).astype(np.int64)
    # From the first crossing of a row to the second one the part is inside, from the third to the fourth, and so on.
    key = (owner[edge] * height + row) * (width + 1) + column
    key.sort()
    key, column = np.divmod(key, width + 1)
    number, row = np.divmod(key[::2], height)
    begin, length = row * width + column[::2], column[1::2] - column[::2]
    flat = labels.ravel()
    values = np.array([label for label, _ in parts], labels.dtype)
    # From the last part to the first, so that the first keeps its pixels; in pieces, to save memory.
    for end in range(len(begin), 0, -(2**18)):
        piece = slice(max(end - 2**18, 0), end)
        pixels = ranges(begin[piece][::-1], length[piece][::-1])
        flat[pixels] = np.repeat(values[number[piece]][::-1], length[piece][::-1])
    return labels


def label_image(found: Mapping[int, list[Part]], shape: tuple[int, int] | None, where: str) -> np.ndarray:
    """Return the label image of a file's outlines; without `shape`, the smallest that holds all. See `rasterise`.

    Raises InputError that starts with `where` if the image would be too large.
    """
    shape = shape or extent(found)
    check_size(shape, where)
    return rasterise(found, shape)


def extent(found: Mapping[int, list[Part]]) -> tuple[int, int]:
    """Return height and width of the smallest image from (0, 0) that holds all outlines; at least one pixel."""
    corners = [ring.max(axis=0) for parts in found.values() for part in parts for ring in part if len(ring)]
    x, y = np.ceil(np.max(corners, axis=0)) if corners else (1, 1)
    return max(int(y), 1), max(int(x), 1)
