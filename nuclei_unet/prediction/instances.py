"""Turn predicted maps into nuclei."""

import cv2
import numpy as np
from skimage.segmentation import watershed

from nuclei_unet.images import blur
from nuclei_unet.labels import CROSS, components, fill_holes, without_small
from nuclei_unet.prediction.outlines import move_outlines
from nuclei_unet.settings import PredictSettings

# A pixel and its eight neighbours.
SQUARE = np.ones((3, 3), np.uint8)
EDGE = 1.0  # px of what the network saw: sigma of a blur before gradients


def label_nuclei(
    maps: dict[str, np.ndarray], settings: PredictSettings, image: np.ndarray | None = None, *, enlarged: float = 1.0
) -> np.ndarray:
    """Turn predicted maps into a label image.

    Parameters
    ----------
    maps : 'foreground' and optionally 'border' and 'distance', each float (H, W) in [0, 1]
    settings : thresholds, the `evaluate` section
    image : what the network saw, (H, W) or (H, W, 3); outlines follow its edges if given
    enlarged : by how much larger the maps are than what the network saw; lengths of the settings are in pixels of that

    Returns
    -------
    uint16 (H, W), 0 = background, nuclei 1 ... n without gaps. With a foreground map alone, a nucleus is a connected
    component. With border or distance, the depth is the distance minus the weighted border, smoothed. Each prominent
    maximum of the depth is a seed, and a watershed grows the seeds to the edge of the foreground. At the end all
    outlines move by `settings.outline_offset`, and what is too small is dropped.
    """
    foreground, threshold = maps["foreground"], settings.foreground_threshold
    levels = np.array([threshold])
    if image is not None and settings.outline_range:
        levels = np.clip(threshold + settings.outline_range * np.linspace(-1, 1, 7), 0.01, 0.99)
    # Nuclei may reach down to the lowest level, but a seed must exceed the threshold itself.
    mask = foreground > levels[0]
    if len(maps) == 1 or not mask.any():
        nuclei = components(mask, connectivity=4)
    else:
        depth = maps.get("distance", foreground)
        if "border" in maps:
            depth = depth - settings.border_weight * maps["border"]
        depth = blur(depth.astype(np.float32), settings.smoothing * enlarged)
        # Lower than any depth, so that a nucleus' maximum stands out from its surroundings.
        depth[~mask] = -2 - settings.border_weight
        maxima = prominent_maxima(depth, mask, settings.prominence) & (foreground > threshold)
        seeds = components(maxima, connectivity=8)
        nuclei = watershed(-depth, seeds, mask=mask)
    outlines: np.ndarray | float = threshold  # of each nucleus, its level
    if len(levels) > 1:
        outlines = edge_levels(nuclei, foreground, image, levels, settings.outline_pull, EDGE * enlarged)
        nuclei = np.where(foreground > outlines[nuclei], nuclei, 0)
    if settings.outline_offset:
        nuclei = move_outlines(fill_holes(nuclei), foreground, outlines, settings.outline_offset * enlarged)
    return fill_holes(without_small(nuclei, round(settings.min_area * enlarged**2)))


def edge_levels(
    nuclei: np.ndarray, foreground: np.ndarray, image: np.ndarray, levels: np.ndarray, pull: float, sigma: float
) -> np.ndarray:
    """Return for each nucleus the level of the foreground map whose outline runs along the steepest edge.

    Foreground maps differ between microscopes as sharpness and brightness do; the image itself has the edge. `nuclei`
    is int (H, W), grown to the lowest of `levels`. The score of a level is the mean gradient along the nucleus' outline
    (against background, not against neighbours), relative to its best level, minus `pull` times the level's distance
    from the middle one. The level with the highest score is taken; the result is float (highest number + 1,). The image
    is blurred by `sigma` px first, against noise.
    """
    grey = (image if image.ndim == 2 else image.mean(axis=2)).astype(np.float32)
    grey = blur(grey, sigma)
    gradient = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    count = int(nuclei.max()) + 1
    steepness = np.zeros((len(levels), count))
    for row, level in zip(steepness, levels, strict=True):
        inside = (foreground > level).view(np.uint8)
        # The image's own border is not an edge.
        rim = np.flatnonzero((inside - cv2.erode(inside, CROSS, borderValue=1)).view(bool))
        lengths = np.bincount(nuclei.ravel()[rim], minlength=count)
        row[:] = np.bincount(nuclei.ravel()[rim], gradient.ravel()[rim], count) / np.maximum(lengths, 1)
    steepness /= steepness.max(axis=0) + 1e-6
    steepness -= pull * np.abs(levels - levels[len(levels) // 2])[:, None]
    return levels[steepness.argmax(axis=0)]


def prominent_maxima(depth: np.ndarray, mask: np.ndarray, prominence: float) -> np.ndarray:
    """Return the maxima that rise by `prominence` above the saddle to any higher one, bool (H, W).

    These are the h-maxima of morphology (Soille 1999, 6.3.3). `depth` is float32 (H, W), lower outside `mask` than
    anywhere inside.
    """
    # Reconstruction by dilation grows only as far as depth rises by `prominence`. That takes a few steps of OpenCV and
    # is ten times faster than the general algorithm. Pixels outside the mask are final from the start.
    reached = np.where(mask, depth - np.float32(prominence), depth)
    while True:
        grown = cv2.min(cv2.dilate(reached, SQUARE), depth)
        if np.array_equal(grown, reached):
            break
        reached = grown
    # At a maximum the difference is the whole prominence, apart from rounding.
    return depth - reached >= prominence * 0.999
