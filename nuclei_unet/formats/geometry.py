"""Outlines of nuclei along the edges of pixels: polygons that hold exactly the pixels of the label image.

A vertex is a corner of pixels: (0, 0) is the top left corner of the image, x runs right and y down, so the pixel in row
r and column c is the square from (c, r) to (c + 1, r + 1). Pixels of a nucleus that touch only diagonally lie in
separate parts. With that, every polygon is valid by the rules of OGC (Simple Features): its rings are simple, and touch
one another in single points at most. `rasterise` is the way back.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike

from nuclei_unet.errors import InputError
from nuclei_unet.formats.label_image import check_size
from nuclei_unet.formats.run_lengths import ranges

# One part of a nucleus: its exterior ring, then its holes. A ring is (N, 2) x, y; the first vertex is not repeated.
Part = list[np.ndarray]
# label -> parts; one part, unless the nucleus is in pieces.
Outlines = dict[int, list[Part]]

# The sides of a pixel as they are walked, with the pixel on the right: (row, column) from the pixel to its neighbour
# behind the side, and from its top left corner to the vertex where the side starts.
TOP, RIGHT, BOTTOM, LEFT = range(4)
BEHIND = ((-1, 0), (0, 1), (1, 0), (0, -1))
START = ((0, 0), (0, 1), (1, 1), (1, 0))


def outlines(labels: np.ndarray) -> Outlines:
    """Return the outlines of all nuclei of a label image, integer (H, W): label -> parts, labels in ascending order.

    A part is a list of rings, int32 (N, 2) x, y in pixels: the exterior, then its holes. A ring starts at its top left
    vertex and has no vertex on a straight line. Exteriors run clockwise on the screen, holes the other way; read with y
    upwards that is the order of RFC 7946.
    """
    found: Outlines = {}
    holes: dict[int, list[np.ndarray]] = {}
    # sorted() is stable, so from top to bottom within a nucleus.
    for label, ring, area in sorted(_rings(labels), key=lambda ring: ring[0]):
        if area > 0:
            found.setdefault(label, []).append([ring])
        else:
            holes.setdefault(label, []).append(ring)
    pieces = None
    for label, inner in holes.items():
        parts = found[label]
        if len(parts) == 1:
            parts[0] += inner
            continue
        # Rare: a hole belongs to the part whose pixels lie beside it.
        if pieces is None:
            from skimage.measure import label as connect

            pieces = connect(labels, connectivity=1)
        by_piece = {pieces[part[0][0][1], part[0][0][0]]: part for part in parts}
        for ring in inner:
            # Its top left vertex starts the left side of the hole: the walk goes down, the nucleus lies to the left.
            x, y = ring[0]
            by_piece[pieces[y, x - 1]].append(ring)
    return found


def _rings(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray, float]]:
    """Yield (label, ring, signed area) of all rings from top to bottom."""
    label, x, y, following, meets = _walk(labels)
    if not label.size:
        return
    order, ends = _cycles(following, np.lexsort((x, y)))
    points = np.stack([x, y], axis=1).astype(np.int32)[order]
    starts = np.concatenate([[0], ends[:-1]])
    # A ring of one nucleus that meets itself in a point is split there.
    met = np.logical_or.reduceat(meets[order], starts)
    twice = _cross(points, starts, ends)
    areas = np.add.reduceat(twice, starts)
    owners = label[order[starts]].tolist()
    for owner, start, end, area, meeting in zip(owners, starts.tolist(), ends.tolist(), areas, met, strict=True):
        ring = points[start:end]
        if not meeting:
            yield owner, ring, area
            continue
        for piece in _simple_rings(ring.tolist()):
            piece = np.array(piece, np.int32)
            first = np.lexsort((piece[:, 0], piece[:, 1]))[0]
            piece = np.roll(piece, -first, axis=0)
            yield owner, piece, _cross(piece, np.array([0]), np.array([len(piece)])).sum()


def _walk(labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return label, start x and y, the straight edge that follows, and whether a ring may meet itself at its end.

    One item for each straight edge of an outline: a run of sides of pixels of one nucleus.
    """
    height, width = labels.shape
    padded = np.pad(labels, 1)
    flat, stride = padded.ravel(), width + 2
    step = [rows * stride + columns for rows, columns in BEHIND]
    inside = padded[1:-1, 1:-1] != 0
    firsts, lasts = [], []
    for side in (TOP, RIGHT, BOTTOM, LEFT):
        rows, columns = BEHIND[side]
        behind = padded[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]
        row, column = np.nonzero(inside & (behind != padded[1:-1, 1:-1]))
        pixel = (row + 1) * stride + column + 1
        if side in (RIGHT, LEFT):  # by columns, so that a straight edge is a run of neighbours
            pixel = pixel[np.argsort(column, kind="stable")]
        ahead = step[TOP] if side in (RIGHT, LEFT) else step[LEFT]  # towards the neighbour before, in this order
        joined = (pixel[:-1] == pixel[1:] + ahead) & (flat[pixel[:-1]] == flat[pixel[1:]])
        first = np.concatenate([[True], ~joined]) if pixel.size else np.zeros(0, bool)
        last = np.concatenate([~joined, [True]]) if pixel.size else first
        # Bottom and left sides are walked against the order of pixels.
        if side in (BOTTOM, LEFT):
            first, last = last, first
        firsts.append(pixel[first])
        lasts.append(pixel[last])
    table = np.empty(flat.size, np.int32)  # which straight edge starts at a pixel; one side at a time
    offsets = np.cumsum([0] + [len(pixels) for pixels in firsts])
    following = np.empty(offsets[-1], np.int32)
    meets = np.empty(offsets[-1], bool)
    # Behind the last pixel of an edge, the nucleus goes on around the diagonal pixel, or it does not.
    turns = []
    for side in (TOP, RIGHT, BOTTOM, LEFT):
        ahead = lasts[side] + step[(side + 1) % 4]
        diagonal = ahead + step[side]
        label = flat[lasts[side]]
        goes_on = flat[ahead] == label
        meets[offsets[side] : offsets[side + 1]] = ~goes_on & (flat[diagonal] == label)
        turns.append((goes_on, diagonal))
    for side in (TOP, RIGHT, BOTTOM, LEFT):
        table[firsts[side]] = np.arange(offsets[side], offsets[side + 1])
        before, after = (side - 1) % 4, (side + 1) % 4
        right = ~turns[before][0]
        following[offsets[before] : offsets[before + 1]][right] = table[lasts[before][right]]
        left, diagonal = turns[after]
        following[offsets[after] : offsets[after + 1]][left] = table[diagonal[left]]
    first = np.concatenate(firsts)
    start = np.repeat(START, np.diff(offsets), axis=0)
    return flat[first], first % stride - 1 + start[:, 1], first // stride - 1 + start[:, 0], following, meets


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


def _cross(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return, for each vertex of some rings, its share of twice the signed area (shoelace formula)."""
    after = np.arange(1, len(points) + 1)
    after[ends - 1] = starts
    x, y = points.astype(np.int64).T
    return x * y[after] - x[after] * y


def _simple_rings(ring: list[list[int]]) -> Iterator[list[tuple[int, int]]]:
    """Split a ring wherever it comes to a vertex a second time."""
    path: list[tuple[int, int]] = []
    position: dict[tuple[int, int], int] = {}
    for vertex in map(tuple, ring):
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


def rasterise(found: Mapping[int, list[Part]], shape: tuple[int, int]) -> np.ndarray:
    """Return the label image of outlines, as written by `outlines` or by any other program.

    A pixel belongs to a part if its centre lies inside, by the even-odd rule over the part's rings; a centre on the
    line belongs to the polygon on its right or below. A pixel of two nuclei goes to the one that comes first.
    What lies outside the image is cut off.

    `found` is label -> parts, rings (N, 2) x, y in pixels, integer or float; `shape` is height and width. The labels
    are uint16 (H, W), or uint32 if one is above 65,535. Raises InputError if the outlines cross more than 100 million
    rows of pixels.
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
    if shape is None:
        corners = [ring.max(axis=0) for parts in found.values() for part in parts for ring in part if len(ring)]
        x, y = np.ceil(np.max(corners, axis=0)) if corners else (1, 1)
        shape = max(int(y), 1), max(int(x), 1)
    check_size(shape, where)
    return rasterise(found, shape)
