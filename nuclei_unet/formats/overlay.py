"""Pictures to look at: the image with the outlines of its nuclei."""

from pathlib import Path

import cv2
import numpy as np
from skimage.segmentation import find_boundaries

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from nuclei_unet.images import LARGEST_WHOLE, to_rgb

# Told apart from one another, and from grey and from stained tissue.
COLOURS = np.array(
    [(255, 255, 0), (0, 255, 255), (255, 0, 255), (0, 255, 0), (255, 128, 0), (255, 64, 64), (96, 160, 255)], np.uint8
)
# The darkest and the lightest one in a thousand pixels are cut off.
PERCENTILES = (0.1, 99.9)
STRIP = 512


def overlay(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the image, its contrast stretched, with the outermost pixels of each nucleus coloured by its number.

    The image is (H, W), (H, W, 2), (H, W, 3) or (H, W, 4) of any real dtype, alpha is dropped; `labels` are integer
    (H, W), 0 = background; the result is RGB, uint8 (H, W, 3). Raises InputError if image and labels differ in size, or
    the image has other dimensions.
    """
    if image.shape[:2] != labels.shape:
        raise InputError(f"labels of shape {labels.shape} do not fit an image of shape {image.shape}")
    picture = _stretched(to_rgb(image))
    edge = find_boundaries(labels, connectivity=1, mode="inner")
    picture[edge] = COLOURS[labels[edge] % len(COLOURS)]
    return picture


def _stretched(rgb: np.ndarray) -> np.ndarray:
    # Of a very large image, every second, third ... row and column is enough.
    step = max(int(np.sqrt(rgb.shape[0] * rgb.shape[1] / LARGEST_WHOLE)), 1)
    sample = rgb[::step, ::step].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, PERCENTILES) if sample.size else (0.0, 1.0)
    picture = np.empty(rgb.shape, np.uint8)
    for top in range(0, len(rgb), STRIP):  # floats take many times an image's memory
        strip = np.nan_to_num(rgb[top : top + STRIP].astype(np.float64), nan=low)
        strip = np.clip((strip - low) / max(high - low, 1e-12), 0, 1)
        picture[top : top + STRIP] = np.rint(strip * 255)
    return picture


def write(path: Path, labels: np.ndarray, image: np.ndarray) -> None:
    """Write an `overlay` as PNG."""
    picture = cv2.cvtColor(overlay(image, labels), cv2.COLOR_RGB2BGR)
    with fresh_file(path) as partial:
        partial.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
