"""Cut images that are too large for memory into tiles, and join the nuclei found in them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


def tiles(shape: tuple[int, int], core: int, overlap: int) -> Iterator[tuple[tuple[slice, ...], ...]]:
    """Cut an image into cores that tile it; yield each core and the tile around it, both as (rows, columns)."""
    for top in range(0, shape[0], core):
        for left in range(0, shape[1], core):
            starts, ends = (top, left), (min(top + core, shape[0]), min(left + core, shape[1]))
            yield (
                tuple(slice(start, end) for start, end in zip(starts, ends, strict=True)),
                tuple(slice(max(start - overlap, 0), min(end + overlap, side))
                      for start, end, side in zip(starts, ends, shape, strict=True)),
            )  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """A tile of an image. Both windows are (rows, columns); the core is without the overlap around it."""

    number: int
    core: tuple[slice, slice]
    window: tuple[slice, slice]


def cut(shape: tuple[int, int], core: int, overlap: int) -> Iterator[Tile]:
    """Cut an image into tiles, row by row; see `tiles`."""
    return (Tile(number, *windows) for number, windows in enumerate(tiles(shape, core, overlap)))


def match(labels: np.ndarray, part: np.ndarray, core: tuple[slice, ...], count: int) -> tuple[np.ndarray, int]:
    """Number the nuclei of one tile as in the whole image.

    `labels` (H, W) is the tile's part of the label image, with the nuclei of earlier tiles; `part` (H, W) has the
    nuclei found in this tile, `count` is the number of nuclei so far. Returns the number of each nucleus of the part,
    (highest + 1,) of the label image's dtype, and the new count. Nuclei that reach into the tile's `core` get a number;
    the others are left to the tile whose core they are in, and get 0. A nucleus is the same as an earlier one if they
    share more than half of its pixels, or more than half of the earlier one's pixels in this tile. It then keeps the
    earlier number and may extend that nucleus beyond the earlier tile.
    """
    both, free = (part > 0) & (labels > 0), labels == 0
    areas, room = np.bincount(part.ravel()), np.bincount(part[free], minlength=int(part.max()) + 1)
    earlier, earlier_areas = np.unique(labels[~free], return_counts=True)
    # Pairs as one number each: sorted by the part's number, then by the earlier one.
    keys, shared = np.unique(part[both].astype(np.int64) << 32 | labels[both], return_counts=True)
    numbers = np.zeros(len(areas), labels.dtype)
    # The pair that shares most comes last, so it decides.
    for pair in np.argsort(shared, kind="stable"):
        number, old = divmod(int(keys[pair]), 2**32)
        if 2 * shared[pair] > min(areas[number], earlier_areas[np.searchsorted(earlier, old)]):
            numbers[number] = old
    inside = np.unique(part[core])
    for number in inside:
        # If earlier nuclei cover most of it, it is not a new one.
        if number and not numbers[number] and 2 * room[number] > areas[number]:
            count += 1
            numbers[number] = count
    numbers[np.setdiff1d(np.arange(len(numbers)), inside)] = 0
    return numbers, count


def paint(labels: np.ndarray, part: np.ndarray, numbers: np.ndarray) -> None:
    """Give free pixels of the label image (H, W) the numbers of the nuclei of `part` (H, W), in place."""
    np.copyto(labels, numbers[part], where=labels == 0)


def relative(inner: tuple[slice, ...], outer: tuple[slice, ...]) -> tuple[slice, ...]:
    """Return where a window lies in one that holds it, such as a core in its tile, as (rows, columns) of that one."""
    return tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
