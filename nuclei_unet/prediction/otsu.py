"""Find nuclei without learning: the baseline."""

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from nuclei_unet.images import blur
from nuclei_unet.labels import components, without_small

SMALLEST = 30  # px; what is smaller is dropped


def otsu_nuclei(image: np.ndarray) -> np.ndarray:
    """Segment by Otsu's threshold, then a watershed on the distance to the edge.

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
    return without_small(watershed(-distance, seeds, mask=mask), SMALLEST)
