"""Turn a label image into the target maps that the network learns."""

import cv2
import numpy as np

TARGETS = ("foreground", "border", "distance")


def target_maps(labels: np.ndarray) -> np.ndarray:
    """Return what the network learns from a label image (H, W), as uint8 (H, W, 3), 0 ... 255 for 0 ... 1.

    Channels: foreground; border between touching nuclei (not all outlines: nuclei merge where they touch, see the
    winners of the 2018 Data Science Bowl); distance to the nucleus' edge, divided by its maximum in the nucleus.
    """
    # OpenCV's morphology has no int32; float32 holds all labels up to 2**24.
    exact = labels.astype(np.float32)
    return np.dstack([(labels > 0) * np.uint8(255), _touching_border(exact), _relative_distance(exact, labels)])


def _touching_border(labels: np.ndarray) -> np.ndarray:
    """255 where two nuclei are within a few pixels of each other, more pixels for larger nuclei."""
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
    """255 at the innermost pixel of each nucleus, low at its edge and 0 outside."""
    window = np.ones((3, 3), np.uint8)
    inner = (exact > 0) & (cv2.dilate(exact, window) == exact) & (cv2.erode(exact, window) == exact)
    distance = (cv2.distanceTransform(inner.astype(np.uint8), cv2.DIST_L2, 5) + 1) * (exact > 0)
    highest = np.ones(int(labels.max()) + 1, np.float32)
    inside = labels > 0
    # Many times faster than ndimage.maximum, which sorts.
    np.maximum.at(highest, labels[inside], distance[inside])
    return np.rint(distance / highest[labels] * 255).astype(np.uint8)
