"""Measure nuclei: one row per nucleus."""

import math
from collections.abc import Sequence

import numpy as np

from nuclei_unet.errors import InputError

# Measured for each nucleus, by scikit-image's names. Lengths in pixels; centroid-0 and centroid-1 are row and column.
SHAPE = ("label", "area", "centroid", "equivalent_diameter_area", "axis_major_length", "axis_minor_length",
         "eccentricity", "solidity", "perimeter")  # fmt: skip
# Also in micrometres if the pixel size is known.
LENGTHS = ("centroid-0", "centroid-1", "equivalent_diameter_area", "axis_major_length", "axis_minor_length",
           "perimeter")  # fmt: skip


def measure(
    labels: np.ndarray,
    image: np.ndarray,
    *,
    pixel_size: float | None = None,
    channels: Sequence[str] = (),
    origin: tuple[int, int] = (0, 0),
) -> dict[str, np.ndarray]:
    """Return the measurements of all nuclei of a label image; `pandas.DataFrame(measure(...))` makes a table of them.

    Takes less than a millisecond a nucleus, half of it for `solidity`, which needs the convex hull.

    Parameters
    ----------
    labels : integer (H, W), 0 = background; numbers may have gaps
    image : (H, W) or (H, W, C), any real dtype, of the same height and width
    pixel_size : micrometres per pixel; None: unknown
    channels : the names of the image's C channels. Without names, an image of 2 or 4 channels is grey or RGB with
        alpha, which is not measured, and the others are numbered 0, 1 ...
    origin : row and column of the first pixel, if this is a part of a larger image

    Returns
    -------
    Columns by name, one row per nucleus, in ascending order of labels: `label`; `area` in square pixels; lengths in
    pixels, with centroid-0 (row) and centroid-1 (column) from the centre of the image's top left pixel; `eccentricity`
    and `solidity` as defined by scikit-image; `intensity_mean` and `intensity_sum` in the image's own units, with
    several channels as `intensity_mean-DAPI` ... With a pixel size also `area_um2`, `perimeter_um` ...

    Raises
    ------
    InputError : image and labels differ in size, the image has other dimensions or another number of channels than
        names, or the pixel size is not a positive number
    """
    if image.ndim not in (2, 3) or image.shape[:2] != labels.shape or 0 in image.shape:
        raise InputError(f"labels of shape {labels.shape} do not fit an image of shape {image.shape}")
    if pixel_size is not None and not 0 < pixel_size < math.inf:
        raise InputError(f"pixel size {pixel_size}: must be a positive number of micrometres per pixel, or unknown")
    stack, names = _channels(image, channels)
    table = _regions(labels, stack)
    for axis, offset in enumerate(origin):
        table[f"centroid-{axis}"] = table[f"centroid-{axis}"] + offset
    means = [table.pop(f"intensity_mean-{number}") for number in range(len(names))]
    table |= {f"intensity_mean{name}": mean for name, mean in zip(names, means, strict=True)}
    table |= {f"intensity_sum{name}": mean * table["area"] for name, mean in zip(names, means, strict=True)}
    if pixel_size is not None:
        table["area_um2"] = table["area"] * pixel_size**2
        table |= {f"{name}_um": table[name] * pixel_size for name in LENGTHS}
    return table


def diameters(labels: np.ndarray) -> np.ndarray:
    """Return the equivalent diameter of each nucleus in px, float64 (n,): that of a circle of the same area."""
    count = int(labels.max()) + 1
    # In strips: bincount makes a copy with eight bytes a pixel.
    areas = np.zeros(count, np.int64)
    for top in range(0, len(labels), 512):
        areas += np.bincount(labels[top : top + 512].ravel(), minlength=count)
    return 2 * np.sqrt(areas[1:][areas[1:] > 0] / np.pi)


def _channels(image: np.ndarray, channels: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return what to measure, (H, W, C), and how the columns of each channel end."""
    stack = image[..., None] if image.ndim == 2 else image
    if channels and len(channels) != stack.shape[2]:
        raise InputError(f"{len(channels)} names for the {stack.shape[2]} channels of the image")
    if not channels and stack.shape[2] in (2, 4):
        stack = stack[..., :-1]
    count = stack.shape[2]
    # Files may name several channels the same, or not at all.
    distinct = len({*channels} - {""}) == count
    return stack, [f"-{name}" for name in (channels if distinct else range(count))] if count > 1 else [""]


def _regions(labels: np.ndarray, stack: np.ndarray) -> dict[str, np.ndarray]:
    from skimage.measure import regionprops_table  # takes 0.3 s

    # The library holds a list as long as the highest label: numbers with wide gaps would fill the memory.
    numbers = np.union1d(labels, 0) if labels.max() > labels.size else None
    dense = labels if numbers is None else np.searchsorted(numbers, labels)
    table = regionprops_table(dense, stack, properties=(*SHAPE, "intensity_mean"))
    if numbers is not None:
        table["label"] = numbers[table["label"]].astype(np.int64)
    return table
