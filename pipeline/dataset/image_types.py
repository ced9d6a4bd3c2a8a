"""The image types in BBBC038, found from the pixels."""

import numpy as np

from nuclei_unet.images import _grey, has_light_background

# Fluorescent images of BBBC038 have median nucleus areas up to 700 px or from 870 px on; this is in the gap.
LARGE_NUCLEUS = 800


def image_type_of(rgb: np.ndarray, median_area: float) -> str:
    """Name the type of a native uint8 (H, W, 3) image: {small,large}-fluorescent, purple-on-..., grey-tissue.

    Brightness and colour of the background show the stain; the median area of the nuclei (px) separates small from
    large fluorescent ones. Thresholds are the middles of the gaps seen in the training images.
    """
    if not has_light_background(rgb):
        return "large-fluorescent" if median_area >= LARGE_NUCLEUS else "small-fluorescent"
    pixels = rgb.astype(np.float32)
    red, green, blue = np.moveaxis(pixels, 2, 0)
    chroma = np.mean(np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue))
    if chroma < 6:
        return "grey-tissue"
    grey = _grey(pixels)
    red, green, blue = rgb[grey >= np.percentile(grey, 80)].mean(axis=0)
    if min(red, blue) - green > 10:
        return "purple-on-purple"
    return "purple-on-yellow" if green - blue > 5 else "purple-on-white"
