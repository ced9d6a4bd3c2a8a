"""Between label images and what the network learns: nuclei to target maps, predicted maps back to nuclei."""

import cv2
import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.segmentation import watershed

from pipeline.params import EvaluateParams


def target_maps(labels: np.ndarray) -> np.ndarray:
    """Return what the network learns from a label image (H, W), as uint8 (H, W, 3), 0 ... 255 for 0 ... 1.

    Channels: foreground; border between touching nuclei (not all outlines: that is where nuclei merge, see the
    winners of the 2018 Data Science Bowl); distance to the nucleus' edge over its maximum in the nucleus.
    """
    # OpenCV's morphology has no int32; float32 holds all labels up to 2**24.
    exact = labels.astype(np.float32)
    return np.dstack([(labels > 0) * np.uint8(255), _touching_border(exact), _relative_distance(exact, labels)])


TARGETS = ("foreground", "border", "distance")


def _touching_border(labels: np.ndarray) -> np.ndarray:
    """255 where two nuclei lie within a few pixels, more for larger nuclei."""
    areas = np.bincount(labels.astype(np.int64).ravel())[1:]
    areas = areas[areas > 0]
    if areas.size < 2:
        return np.zeros(labels.shape, np.uint8)
    # An eighth of the typical diameter to either side.
    reach = int(np.clip(np.sqrt(np.median(areas)) / 8, 1, 4))
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    highest = cv2.dilate(labels, window)
    lowest = cv2.erode(np.where(labels > 0, labels, np.float32(2**24)), window)
    return ((highest > 0) & (lowest < 2**24) & (highest != lowest)) * np.uint8(255)


def _relative_distance(exact: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """255 at the innermost pixel of each nucleus, falling to little at its edge and 0 outside."""
    window = np.ones((3, 3), np.uint8)
    inner = (exact > 0) & (cv2.dilate(exact, window) == exact) & (cv2.erode(exact, window) == exact)
    distance = (cv2.distanceTransform(inner.astype(np.uint8), cv2.DIST_L2, 5) + 1) * (exact > 0)
    count = int(labels.max())
    if count == 0:
        return np.zeros(labels.shape, np.uint8)
    highest = np.ones(count + 1, np.float32)
    highest[1:] = np.maximum(ndimage.maximum(distance, labels, np.arange(1, count + 1)), 1)
    return np.rint(distance / highest[labels] * 255).astype(np.uint8)


def label_nuclei(maps: dict[str, np.ndarray], params: EvaluateParams) -> np.ndarray:
    """Turn predicted maps into a label image.

    Parameters
    ----------
    maps : 'foreground' and maybe 'border' and 'distance', each float (H, W) in [0, 1]
    params : thresholds, the `evaluate` section

    Returns
    -------
    uint16 (H, W), 0 = background, nuclei 1 ... n without gaps. With a foreground map alone a nucleus is a connected
    component. With border or distance, seeds are the parts of the foreground that lie deep inside and off the
    borders, and a watershed grows them to the edge of the foreground; a component without seed is kept whole.
    """
    mask = maps["foreground"] > params.foreground_threshold
    components = label(mask, connectivity=1)
    if "border" in maps or "distance" in maps:
        depth = maps.get("distance", maps["foreground"])
        if "border" in maps:
            depth = depth - params.border_weight * maps["border"]
        seeds = label(mask & (depth > params.seed_threshold), connectivity=1)
        seeds[small_labels(seeds, params.min_seed_area)] = 0
        unseeded = np.setdiff1d(components, np.unique(components[seeds > 0]))
        seeds += np.where(np.isin(components, unseeded[unseeded > 0]), components + seeds.max(), 0)
        components = watershed(-depth, seeds, mask=mask)
    components[small_labels(components, params.min_area)] = 0
    return renumber(fill_holes(components))


def otsu_nuclei(image: np.ndarray, params: EvaluateParams) -> np.ndarray:
    """Segment without learning: Otsu's threshold, then a watershed on the distance to the edge; the floor to beat.

    `image` is uint8 (H, W) or (H, W, 3) with light nuclei, as the network sees it. Returns a label image as
    `label_nuclei` does.
    """
    grey = image if image.ndim == 2 else image.mean(axis=2)
    if grey.min() == grey.max():
        return np.zeros(grey.shape, np.uint16)
    grey = ndimage.gaussian_filter(grey.astype(np.float32), 1)
    mask = grey > threshold_otsu(grey)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1)
    seeds = np.zeros(mask.shape, np.int32)
    peaks = peak_local_max(distance, min_distance=5, labels=label(mask))
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    found = watershed(-distance, seeds, mask=mask)
    found[small_labels(found, params.min_area)] = 0
    return renumber(found)


def small_labels(labels: np.ndarray, min_area: int) -> np.ndarray:
    """Return where labels with fewer than `min_area` pixels lie, bool (H, W)."""
    return (np.bincount(labels.ravel()) < min_area)[labels]


def fill_holes(labels: np.ndarray) -> np.ndarray:
    """Return the label image with holes inside single nuclei filled."""
    filled = labels.copy()
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        inside = labels[box] == number
        holes = ndimage.binary_fill_holes(inside) & ~inside & (labels[box] == 0)
        filled[box][holes] = number
    return filled


def renumber(labels: np.ndarray) -> np.ndarray:
    """Return the same nuclei as uint16 with labels 1 ... n without gaps."""
    values = np.unique(labels)
    if values.size > 2**16:
        raise ValueError(f"{values.size - 1} nuclei do not fit into a 16-bit label image")
    return np.searchsorted(np.union1d(values, 0), labels).astype(np.uint16)
