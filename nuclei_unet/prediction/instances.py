"""From predicted maps, or from nothing but brightness, to nuclei."""

import cv2
import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from pipeline.dataset.processed import renumber
from pipeline.params import EvaluateParams

# A pixel and its four neighbours.
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
# A pixel and its eight neighbours.
SQUARE = np.ones((3, 3), np.uint8)


def label_nuclei(maps: dict[str, np.ndarray], params: EvaluateParams, image: np.ndarray | None = None) -> np.ndarray:
    """Turn predicted maps into a label image.

    Parameters
    ----------
    maps : 'foreground' and maybe 'border' and 'distance', each float (H, W) in [0, 1]
    params : thresholds, the `evaluate` section
    image : what the network saw, (H, W) or (H, W, 3); outlines follow its edges if given

    Returns
    -------
    uint16 (H, W), 0 = background, nuclei 1 ... n without gaps. With a foreground map alone a nucleus is a connected
    component. With border or distance there is a depth, the distance less the border, smoothed; each of its maxima
    that stands out enough is a seed, and a watershed grows the seeds to the edge of the foreground.
    """
    foreground, threshold = maps["foreground"], params.foreground_threshold
    levels = np.array([threshold])
    if image is not None and params.outline_range:
        levels = np.clip(threshold + params.outline_range * np.linspace(-1, 1, 7), 0.01, 0.99)
    # As far as the lowest level reaches; what exceeds nowhere the threshold itself is no nucleus.
    mask = foreground > levels[0]
    if len(maps) == 1 or not mask.any():
        nuclei = components(mask, connectivity=4)
    else:
        depth = maps.get("distance", foreground)
        if "border" in maps:
            depth = depth - params.border_weight * maps["border"]
        depth = blur(depth.astype(np.float32), params.smoothing)
        # Lower than any depth, so that a nucleus' maximum stands out from what lies around it.
        depth[~mask] = -2 - params.border_weight
        seeds = components(prominent_maxima(depth, mask, params.prominence) & (foreground > threshold), connectivity=8)
        nuclei = watershed(-depth, seeds, mask=mask)
    if len(levels) > 1:
        nuclei = trim_to_edges(nuclei, foreground, image, levels, params.outline_pull)
    nuclei[small_labels(nuclei, params.min_area)] = 0
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


def components(mask: np.ndarray, connectivity: int) -> np.ndarray:
    """Return the connected components of a mask, int32 (H, W): 0 outside, then 1, 2 ...; connectivity is 4 or 8."""
    return cv2.connectedComponents(mask.view(np.uint8), connectivity=connectivity)[1]


def blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Return float32 (H, W) blurred by a Gaussian, which is cut off at four sigma; sigma 0 changes nothing."""
    side = 2 * round(4 * sigma) + 1
    return cv2.GaussianBlur(pixels, (side, side), sigma, borderType=cv2.BORDER_REFLECT) if sigma else pixels.copy()


def otsu_nuclei(image: np.ndarray, params: EvaluateParams) -> np.ndarray:
    """Segment without learning: Otsu's threshold, then a watershed on the distance to the edge; the floor to beat.

    `image` is uint8 (H, W) or (H, W, 3) with light nuclei, as the network sees it. Returns a label image as
    `label_nuclei` does.
    """
    grey = image if image.ndim == 2 else image.mean(axis=2)
    if grey.min() == grey.max():
        return np.zeros(grey.shape, np.uint16)
    grey = blur(grey.astype(np.float32), 1)
    mask = grey > threshold_otsu(grey)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1)
    seeds = np.zeros(mask.shape, np.int32)
    peaks = peak_local_max(distance, min_distance=5, labels=components(mask, connectivity=8))
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
    pieces = components(labels == 0, connectivity=4)
    outside = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    enclosed = np.ones(int(pieces.max()) + 1, bool)
    enclosed[[0, *outside]] = False
    if not enclosed.any():
        return filled
    # Most nuclei have no background in them.
    beside = np.unique(labels[cv2.dilate(enclosed[pieces].view(np.uint8), CROSS) > 0])
    boxes = ndimage.find_objects(labels)
    for number in beside[beside > 0]:
        box = boxes[number - 1]
        inside = labels[box] == number
        holes = ndimage.binary_fill_holes(inside) & ~inside & (labels[box] == 0)
        filled[box][holes] = number
    return filled
