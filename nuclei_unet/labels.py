"""Label images: integer arrays (H, W), 0 = background, every other value one nucleus."""

import cv2
import numpy as np
from scipy import ndimage

from nuclei_unet.images import resize
from nuclei_unet.measurements import diameters


def resize_labels(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a uint16 label image at another size; every pixel takes the label nearest to it."""
    return cv2.resize(labels, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT) if labels.shape != shape else labels


def at_one_size(image: np.ndarray, labels: np.ndarray, diameter: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Resize an image and its label image, (H, W), so that the median nucleus has this diameter, px.

    They are enlarged or shrunk three times at most, and not at all if there are no nuclei or the diameter is None.
    """
    if diameter is None:
        return image, labels
    sizes = diameters(labels)
    factor = np.clip(diameter / np.median(sizes), 1 / 3, 3) if sizes.size else 1.0
    shape = tuple(max(round(side * factor), 1) for side in labels.shape)
    return resize(image, shape), resize_labels(labels, shape)


def renumber(labels: np.ndarray) -> np.ndarray:
    """Return the same nuclei as uint16 with labels 1 ... n without gaps."""
    values = np.union1d(labels, 0)
    _check_count(values.size - 1)
    return np.searchsorted(values, labels).astype(np.uint16)


def without_small(labels: np.ndarray, min_area: int) -> np.ndarray:
    """Return the nuclei with at least `min_area` pixels as uint16 with labels 1 ... n without gaps.

    `labels` is int (H, W), and its highest number is not much higher than the number of nuclei.
    """
    kept = np.bincount(labels.ravel()) >= max(min_area, 1)
    kept[0] = False
    numbers = np.cumsum(kept)
    _check_count(numbers[-1])
    return (numbers * kept).astype(np.uint16)[labels]


def _check_count(count: int) -> None:
    if count >= 2**16:
        raise ValueError(f"{count} nuclei do not fit into a 16-bit label image")


# A pixel and its four neighbours.
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def components(mask: np.ndarray, connectivity: int) -> np.ndarray:
    """Return the connected components of a mask, int32 (H, W): 0 outside, then 1, 2 ...; connectivity is 4 or 8."""
    return cv2.connectedComponents(mask.view(np.uint8), connectivity=connectivity)[1]


def relative_distance(labels: np.ndarray) -> np.ndarray:
    """Return each pixel's distance to the edge of its nucleus, divided by the largest one there, float32 (H, W)."""
    # OpenCV's morphology has no int32; float32 holds all labels up to 2**24.
    exact = labels.astype(np.float32)
    window = np.ones((3, 3), np.uint8)
    inner = (exact > 0) & (cv2.dilate(exact, window) == exact) & (cv2.erode(exact, window) == exact)
    distance = (cv2.distanceTransform(inner.astype(np.uint8), cv2.DIST_L2, 5) + 1) * (exact > 0)
    highest = np.ones(int(labels.max()) + 1, np.float32)
    inside = labels > 0
    # Many times faster than ndimage.maximum, which sorts.
    np.maximum.at(highest, labels[inside], distance[inside])
    return distance / highest[labels]


def fill_holes(labels: np.ndarray) -> np.ndarray:
    """Return the label image with holes inside single nuclei filled."""
    filled = labels.copy()
    pieces = components(labels == 0, connectivity=4)
    outside = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    enclosed = np.ones(int(pieces.max()) + 1, bool)
    enclosed[[0, *outside]] = False
    if not enclosed.any():
        return filled
    # Only nuclei beside enclosed background can have holes; most nuclei have none.
    beside = np.unique(labels[cv2.dilate(enclosed[pieces].view(np.uint8), CROSS) > 0])
    boxes = ndimage.find_objects(labels)
    for number in beside[beside > 0]:
        box = boxes[number - 1]
        inside = labels[box] == number
        holes = ndimage.binary_fill_holes(inside) & ~inside & (labels[box] == 0)
        filled[box][holes] = number
    return filled
