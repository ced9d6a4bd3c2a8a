"""From predicted maps, or from nothing but brightness, to nuclei."""

import cv2
import numpy as np
from skimage.segmentation import watershed

from nuclei_unet.images import blur
from nuclei_unet.labels import CROSS, components, fill_holes, renumber, small_labels
from nuclei_unet.settings import PredictSettings

# A pixel and its eight neighbours.
SQUARE = np.ones((3, 3), np.uint8)


def label_nuclei(maps: dict[str, np.ndarray], settings: PredictSettings, image: np.ndarray | None = None) -> np.ndarray:
    """Turn predicted maps into a label image.

    Parameters
    ----------
    maps : 'foreground' and maybe 'border' and 'distance', each float (H, W) in [0, 1]
    settings : thresholds, the `evaluate` section
    image : what the network saw, (H, W) or (H, W, 3); outlines follow its edges if given

    Returns
    -------
    uint16 (H, W), 0 = background, nuclei 1 ... n without gaps. With a foreground map alone a nucleus is a connected
    component. With border or distance there is a depth, the distance less the border, smoothed; each of its maxima
    that stands out enough is a seed, and a watershed grows the seeds to the edge of the foreground.
    """
    foreground, threshold = maps["foreground"], settings.foreground_threshold
    levels = np.array([threshold])
    if image is not None and settings.outline_range:
        levels = np.clip(threshold + settings.outline_range * np.linspace(-1, 1, 7), 0.01, 0.99)
    # As far as the lowest level reaches; what exceeds nowhere the threshold itself is no nucleus.
    mask = foreground > levels[0]
    if len(maps) == 1 or not mask.any():
        nuclei = components(mask, connectivity=4)
    else:
        depth = maps.get("distance", foreground)
        if "border" in maps:
            depth = depth - settings.border_weight * maps["border"]
        depth = blur(depth.astype(np.float32), settings.smoothing)
        # Lower than any depth, so that a nucleus' maximum stands out from what lies around it.
        depth[~mask] = -2 - settings.border_weight
        seeds = components(
            prominent_maxima(depth, mask, settings.prominence) & (foreground > threshold), connectivity=8
        )
        nuclei = watershed(-depth, seeds, mask=mask)
    if len(levels) > 1:
        nuclei = trim_to_edges(nuclei, foreground, image, levels, settings.outline_pull)
    nuclei[small_labels(nuclei, settings.min_area)] = 0
    return renumber(fill_holes(nuclei))


def trim_to_edges(
    nuclei: np.ndarray, foreground: np.ndarray, image: np.ndarray, levels: np.ndarray, pull: float
) -> np.ndarray:
    """Cut each nucleus back to the level of the foreground map whose outline runs along the steepest edge.

    How sharp and how bright nuclei are differs from microscope to microscope, and the foreground map with it: a
    threshold that fits one image is too wide or too narrow in the next. The image itself has the edge. `nuclei` is
    int (H, W), grown to the lowest of `levels`; of each nucleus the level counts whose outline (against background,
    not against neighbours) has the highest mean gradient, relative to its best one, less `pull` times the level's
    distance from the middle one.
    """
    grey = (image if image.ndim == 2 else image.mean(axis=2)).astype(np.float32)
    grey = blur(grey, 1)
    gradient = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    count = int(nuclei.max()) + 1
    steepness = np.zeros((len(levels), count))
    for row, level in zip(steepness, levels, strict=True):
        inside = (foreground > level).view(np.uint8)
        # The image's own border is no edge.
        rim = np.flatnonzero(inside - cv2.erode(inside, CROSS, borderValue=1))
        lengths = np.bincount(nuclei.ravel()[rim], minlength=count)
        row[:] = np.bincount(nuclei.ravel()[rim], gradient.ravel()[rim], count) / np.maximum(lengths, 1)
    steepness /= steepness.max(axis=0) + 1e-6
    steepness -= pull * np.abs(levels - levels[len(levels) // 2])[:, None]
    chosen = levels[steepness.argmax(axis=0)]
    return np.where(foreground > chosen[nuclei], nuclei, 0)


def prominent_maxima(depth: np.ndarray, mask: np.ndarray, prominence: float) -> np.ndarray:
    """Return where the maxima lie that rise by `prominence` above the saddle to any higher one, bool (H, W).

    These are the h-maxima of morphology (Soille 1999, 6.3.3). `depth` is float32 (H, W), lower outside `mask` than
    anywhere inside.
    """
    # Reconstruction by dilation, which grows only as far as depth rises by `prominence`: a few steps of OpenCV, ten
    # times faster than the general algorithm. What is outside of the mask is done from the start.
    reached = np.where(mask, depth - np.float32(prominence), depth)
    while True:
        grown = cv2.min(cv2.dilate(reached, SQUARE), depth)
        if np.array_equal(grown, reached):
            break
        reached = grown
    # A summit keeps the whole prominence; rounding takes a little of it.
    return depth - reached >= prominence * 0.999
