"""Measure nuclei: one row per nucleus."""

import numpy as np
import pandas as pd
from skimage.measure import regionprops_table

from nuclei_unet.errors import InputError

# Measured for each nucleus, by scikit-image's names. Lengths in pixels; centroid-0 and centroid-1 are row and column.
SHAPE = (
    *("label", "area", "centroid", "equivalent_diameter_area", "axis_major_length", "axis_minor_length"),
    *("eccentricity", "solidity", "perimeter"),
)


def measure(labels: np.ndarray, image: np.ndarray) -> pd.DataFrame:
    """Return the measurements of all nuclei of a label image.

    Parameters
    ----------
    labels : integer (H, W), 0 = background
    image : (H, W), (H, W, 2), (H, W, 3) or (H, W, 4), any real dtype, of the same height and width; alpha is dropped

    Returns
    -------
    One row per nucleus, in ascending order of labels. Area in square pixels, lengths in pixels, centroid-0 (row) and
    centroid-1 (column) from the image's top left corner. `intensity_mean` and `intensity_sum` are in the image's own
    units; a colour image has one column per channel (`intensity_mean-0` ...).

    Raises
    ------
    InputError : image and labels differ in size, or the image has other dimensions
    """
    if image.ndim not in (2, 3) or image.shape[:2] != labels.shape:
        raise InputError(f"labels of shape {labels.shape} do not fit an image of shape {image.shape}")
    if image.ndim == 3:
        image = image[..., :3] if image.shape[2] >= 3 else image[..., 0]
    table = pd.DataFrame(regionprops_table(labels, image, properties=(*SHAPE, "intensity_mean")))
    for name in [name for name in table.columns if name.startswith("intensity_mean")]:
        table[name.replace("mean", "sum")] = table[name] * table["area"]
    return table
