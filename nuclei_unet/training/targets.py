"""Turn a label image into the target maps that the network learns."""

import cv2
import numpy as np

from nuclei_unet.labels import relative_distance

TARGETS = ("foreground", "border", "distance")


def target_maps(labels: np.ndarray) -> np.ndarray:
    """Return what the network learns from a label image (H, W), as uint8 (H, W, 3), 0 ... 255 for 0 ... 1.

    Channels: foreground; border between touching nuclei (not all outlines: nuclei merge where they touch, see the
    winners of the 2018 Data Science Bowl); distance to the nucleus' edge, divided by its maximum in the nucleus.
    """
    distance = np.rint(relative_distance(labels) * 255).astype(np.uint8)
    return np.dstack([(labels > 0) * np.uint8(255), _touching_border(labels.astype(np.float32)), distance])


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
