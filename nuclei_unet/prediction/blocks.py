"""Cut images that are too large for memory into blocks, and join the nuclei found in them."""

from collections.abc import Iterator

import numpy as np


def blocks(shape: tuple[int, int], core: int, margin: int) -> Iterator[tuple[tuple[slice, slice], ...]]:
    """Cut an image into cores that tile it; yield each core and the block around it, both as (rows, columns)."""
    for top in range(0, shape[0], core):
        for left in range(0, shape[1], core):
            starts, ends = (top, left), (min(top + core, shape[0]), min(left + core, shape[1]))
            yield (
                tuple(slice(start, end) for start, end in zip(starts, ends, strict=True)),
                tuple(
                    slice(max(start - margin, 0), min(end + margin, side))
                    for start, end, side in zip(starts, ends, shape, strict=True)
                ),
            )


def add_block(labels: np.ndarray, part: np.ndarray, core: tuple[slice, ...], count: int) -> int:
    """Add the nuclei of one block to the label image, in place; return the number of nuclei so far.

    `labels` (H, W) is the block's part of the label image, with the nuclei of earlier blocks. `part` (H, W) has the
    nuclei found in this block. Nuclei that reach into the block's `core` are added; the others are left to the block
    whose core they are in. A nucleus is the same as an earlier one if they share more than half of its pixels, or
    more than half of the earlier one's pixels in this block. It then keeps the earlier number and may extend that
    nucleus beyond the earlier block.
    """
    both, free = (part > 0) & (labels > 0), labels == 0
    areas, room = np.bincount(part.ravel()), np.bincount(part[free], minlength=int(part.max()) + 1)
    earlier, earlier_areas = np.unique(labels, return_counts=True)
    pairs, shared = np.unique(np.stack([part[both], labels[both]]).astype(np.int64), axis=1, return_counts=True)
    numbers = np.zeros(len(areas), labels.dtype)
    # The pair that shares most comes last, so it decides.
    for pair in np.argsort(shared, kind="stable"):
        number, old = pairs[:, pair]
        if 2 * shared[pair] > min(areas[number], earlier_areas[np.searchsorted(earlier, old)]):
            numbers[number] = old
    inside = np.unique(part[core])
    for number in inside:
        # If earlier nuclei cover most of it, it is not a new one.
        if number and not numbers[number] and 2 * room[number] > areas[number]:
            count += 1
            numbers[number] = count
    reaches = np.zeros(len(areas), bool)
    reaches[inside] = True
    labels[free] = np.where(reaches, numbers, 0)[part[free]]
    return count


def relative(inner: tuple[slice, slice], outer: tuple[slice, slice]) -> tuple[slice, ...]:
    """Return where a core lies in its block, as (rows, columns) of the block."""
    return tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
