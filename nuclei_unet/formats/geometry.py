"""Outlines of nuclei along the edges of pixels: polygons that hold exactly the pixels of the label image.

A vertex is a corner of pixels: (0, 0) is the top left corner of the image, x runs right and y down, so the pixel in row
r and column c is the square from (c, r) to (c + 1, r + 1). Pixels of a nucleus that touch only diagonally lie in
separate parts. With that, every polygon is valid by the rules of OGC (Simple Features): its rings are simple, and touch
one another in single points at most. `rasterise` is the way back.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike
from skimage.measure import label as connect

from nuclei_unet.errors import InputError
from nuclei_unet.formats.label_image import check_size
from nuclei_unet.formats.run_lengths import ranges

# One part of a nucleus: its exterior ring, then its holes. A ring is (N, 2) x, y; the first vertex is not repeated.
Part = list[np.ndarray]
# label -> parts; one part, unless the nucleus is in pieces.
Outlines = dict[int, list[Part]]

# The sides of a pixel, top, right, bottom and left, as they are walked with the pixel on the right: (row, column) from
# the pixel to its neighbour behind the side, and from its top left corner to the vertex where the side starts.
BEHIND = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
START = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])


def outlines(labels: np.ndarray) -> Outlines:
    """Return the outlines of all nuclei of a label image, integer (H, W): label -> parts, labels in ascending order.

    A part is a list of rings, int32 (N, 2) x, y in pixels: the exterior, then its holes. A ring starts at its top left
    vertex and has no vertex on a straight line. Exteriors run clockwise on the screen, holes the other way; read with y
    upwards that is the order of RFC 7946.
    """
    parts: Outlines = {}
    holes: dict[int, list[np.ndarray]] = {}
    # sorted() is stable, so from top to bottom within a nucleus.
    for label, ring in sorted(_rings(labels), key=lambda item: item[0]):
        # From its top left vertex, an exterior goes right and a hole down.
        if ring[0, 1] == ring[1, 1]:
            parts.setdefault(label, []).append([ring])
        else:
            holes.setdefault(label, []).append(ring)
    pieces = None
    for label, inner in holes.items():
        if len(parts[label]) == 1:
            parts[label][0] += inner
            continue
        # Rare: a hole belongs to the part whose pixels lie beside it.
        if pieces is None:
            pieces = connect(labels, connectivity=1)
        by_piece = {pieces[part[0][0][1], part[0][0][0]]: part for part in parts[label]}
        for ring in inner:
            x, y = ring[0]
            by_piece[pieces[y, x - 1]].append(ring)
    return parts


def _rings(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield label and ring of all rings from top to bottom."""
    label, points, following, meets = _edges(labels)
    if not label.size:
        return
    order, ends = _cycles(following, np.lexsort(points.T))
    starts = np.concatenate([[0], ends[:-1]])
    # A ring of one nucleus that meets itself in a point is split there.
    met = np.logical_or.reduceat(meets[order], starts)
    owners = label[order[starts]].tolist()
    points = points[order]
    for owner, start, end, meeting in zip(owners, starts.tolist(), ends.tolist(), met, strict=True):
        if not meeting:
            yield owner, points[start:end]
            continue
        for piece in map(np.int32, _simple_rings(points[start:end].tolist())):
            yield owner, np.roll(piece, -np.lexsort(piece.T)[0], axis=0)


def _edges(labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return all straight edges of outlines: label, start (N, 2), number of the next, and whether a ring meets there.

    A straight edge is a run of sides of pixels of one nucleus.
    """
    padded = np.pad(labels, 1)
    flat, stride = padded.ravel(), padded.shape[1]
    step = BEHIND @ (stride, 1)
    pixels = [np.flatnonzero((flat != 0) & (flat != np.roll(flat, -behind))) for behind in step]
    pixel, side = np.concatenate(pixels), np.repeat(np.arange(4), [len(one) for one in pixels])
    # Behind a side the nucleus goes on around the diagonal pixel, straight on, or around this pixel's next corner.
    ahead = pixel + step[(side + 1) % 4]
    diagonal = ahead + step[side]
    right = flat[ahead] != flat[pixel]
    touches = flat[diagonal] == flat[pixel]
    left = ~right & touches
    straight = ~right & ~touches
    next_pixel = np.where(right, pixel, np.where(left, diagonal, ahead))
    next_side = (side + right - left) % 4
    # The sides are sorted by this key.
    following = np.searchsorted(side * flat.size + pixel, next_side * flat.size + next_pixel)
    meets, first = np.zeros(len(pixel), bool), np.ones(len(pixel), bool)
    meets[following[right & touches]] = True
    first[following[straight]] = False
    # From the first side of a run to the first one of the next, in steps of double length.
    while (at := np.flatnonzero(straight)).size:
        following[at], straight[at] = following[following[at]], straight[following[at]]
    number = np.cumsum(first) - 1
    start = np.stack(np.divmod(pixel[first], stride), axis=1) - 1 + START[side[first]]
    return flat[pixel[first]], start[:, ::-1].astype(np.int32), number[following[first]], meets[first]


def _cycles(following: np.ndarray, begin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all items in the order in which they follow one another, and where each cycle ends in it.

    A cycle starts at that of its items that comes first in `begin`.
    """
    # A plain loop: 100,000 nuclei have some 4 million edges, which it walks in two seconds.
    follow, seen, order, ends = following.tolist(), bytearray(len(following)), [], []
    for start in begin.tolist():
        if not seen[start]:
            item = start
            while not seen[item]:
                seen[item] = 1
                order.append(item)
                item = follow[item]
            ends.append(len(order))
    return np.array(order, np.int64), np.array(ends, np.int64)


def _simple_rings(ring: list[list[int]]) -> Iterator[list[tuple[int, int]]]:
    """Split a ring wherever it comes to a vertex a second time."""
    path: list[tuple[int, int]] = []
    position: dict[tuple[int, int], int] = {}
    for x, y in ring:
        vertex = x, y
        if vertex in position:
            start = position[vertex]
            yield path[start:]
            for passed in path[start:]:
                del position[passed]
            del path[start:]
        position[vertex] = len(path)
        path.append(vertex)
    yield path


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


def rasterise(nuclei: Mapping[int, list[Part]], shape: tuple[int, int]) -> np.ndarray:
    """Return the label image of outlines, as written by `outlines` or by any other program.

    A pixel belongs to a part if its centre lies inside, by the even-odd rule over the part's rings; a centre on the
    line belongs to the polygon on its right or below. A pixel of two nuclei goes to the one that comes first.
    What lies outside the image is cut off.

    Parameters
    ----------
    nuclei : label -> parts; rings (N, 2) x, y in pixels, integer or float
    shape : height and width in pixels

    Returns
    -------
    uint16 (H, W), or uint32 if a label is above 65,535; 0 = background

    Raises
    ------
    InputError : the outlines cross more than 100 million rows of pixels
    """
    height, width = shape
    labels = np.zeros(shape, np.uint16 if max(nuclei, default=0) < 2**16 else np.uint32)
    parts = [(label, part) for label, pieces in nuclei.items() for part in pieces]
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


def label_image(nuclei: Mapping[int, list[Part]], shape: tuple[int, int] | None, where: str) -> np.ndarray:
    """Return the label image of a file's outlines; without `shape`, the smallest that holds all. See `rasterise`.

    Raises InputError that starts with `where` if the image would be too large.
    """
    shape = shape or extent(nuclei)
    check_size(shape, where)
    return rasterise(nuclei, shape)


def extent(nuclei: Mapping[int, list[Part]]) -> tuple[int, int]:
    """Return height and width of the smallest image from (0, 0) that holds all outlines; at least one pixel."""
    corners = [ring.max(axis=0) for parts in nuclei.values() for part in parts for ring in part if len(ring)]
    x, y = np.ceil(np.max(corners, axis=0)) if corners else (1, 1)
    return max(int(y), 1), max(int(x), 1)
