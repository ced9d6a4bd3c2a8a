"""Move the outlines of nuclei outwards or inwards by fractions of a pixel, to where an annotator would draw them."""

import cv2
import numpy as np

from nuclei_unet.labels import CROSS

# Each pixel is cut into FINE x FINE, so that the foreground map says where in a pixel an outline runs.
FINE = 2


def move_outlines(nuclei: np.ndarray, foreground: np.ndarray, levels: np.ndarray | float, offset: float) -> np.ndarray:
    """Return the nuclei, int (H, W) without holes, with their outlines moved, int32 (H, W); numbers stay.

    `foreground` is the map that the outlines are from, float32 (H, W); `levels` the level of that map at which nucleus
    i has its outline, float (highest number + 1,), or one for all; `offset` is in px, positive outwards.

    Only outlines against the background move: touching nuclei stay side by side. Outwards, a pixel of the background
    goes to the nucleus nearest to it, and none to another nucleus. Inwards, a nucleus keeps its inner half at least,
    so a small move makes none vanish. The image's own border does not move.
    """
    nuclei = nuclei.astype(np.int32)
    if not offset or not nuclei.any():
        return nuclei
    depth = _depth(nuclei, foreground, levels)
    if offset > 0:
        grown = _nearest(nuclei)
        return np.where((nuclei > 0) | (depth >= -offset), grown, 0)
    deepest = np.full(int(nuclei.max()) + 1, -np.inf, np.float32)
    np.maximum.at(deepest, nuclei.ravel(), depth.ravel())
    least = np.minimum(-offset, deepest - np.abs(deepest) / 2)
    return np.where(depth >= least[nuclei], nuclei, 0)


def _depth(nuclei: np.ndarray, foreground: np.ndarray, levels: np.ndarray | float) -> np.ndarray:
    """Return each pixel's distance to the nearest outline, px, float32 (H, W); negative in the background."""
    size = tuple(FINE * side for side in nuclei.shape[::-1])
    near = cv2.dilate((nuclei > 0).view(np.uint8), np.ones((3, 3), np.uint8))
    level = levels[_nearest(nuclei)] if isinstance(levels, np.ndarray) else np.full(nuclei.shape, levels)
    # How far the map is above the level of the pixel's nucleus. What lies away from all nuclei is background, whatever
    # the map says there: specks that were dropped. What lies inside of one is nucleus: holes that were filled.
    above = np.where(near > 0, foreground - level, -1).astype(np.float32)
    above[cv2.erode((nuclei > 0).view(np.uint8), CROSS, borderValue=1) > 0] = 1
    # Between pixels the map is interpolated, but not beyond the pixels that touch the outline.
    inside = cv2.resize(np.clip(above, -0.5, 0.5), size, interpolation=cv2.INTER_LINEAR) > 0
    inner, outer = (
        cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for mask in (inside, ~inside)
    )
    # Distances run to the middle of the nearest pixel on the other side, half a pixel beyond the outline.
    fine = np.where(inside, inner - 0.5, 0.5 - outer) / FINE
    return cv2.resize(fine.astype(np.float32), nuclei.shape[::-1], interpolation=cv2.INTER_AREA)


def _nearest(nuclei: np.ndarray) -> np.ndarray:
    """Return the number of the nucleus nearest to each pixel, int32 (H, W)."""
    background = (nuclei == 0).view(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(background, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    numbers = np.zeros(int(nearest.max()) + 1, np.int32)
    numbers[nearest[nuclei > 0]] = nuclei[nuclei > 0]
    return numbers[nearest]
