"""Signs that an image, or what was found in it, deserves a look: plain sentences for the user.

The limits were chosen on the training and validation images of BBBC038: few get a warning, most do after a strong blur.
"""

import math

import cv2
import numpy as np

from nuclei_unet.images import _grey, blur, has_light_background, to_rgb
from nuclei_unet.measurements import diameters
from nuclei_unet.prediction.diameter import Diameter, from_pixel_size

# An image is saturated if this share of the nuclei's area has its extreme value, or of all pixels if there are no
# nuclei. Images of BBBC038 that reach 255 have up to 17% there; in the others it is 1% at most.
SATURATED_NUCLEI, SATURATED_IMAGE = 0.05, 0.01
# Of `edge_width`. Of the images of BBBC038, 0.8% exceed it.
WIDEST_EDGE = 0.6
# In images of more pixels, saturation is judged from every second, third ... row and column, and sharpness from a few
# windows.
SAMPLE = 2**18
WINDOWS, WINDOW_SIDE = 6, 256
# By this factor, nuclei may be smaller or larger than usual before the pixel size is doubted.
CONTRADICTION = 3.0
# What is found in a picture of something else, or in a stain that the network does not know, agrees less with its own
# map of distances. docs/recipe.md says how many this names, and accuses.
FAMILIAR = 0.88
# Edges are sought this far outside and inside of outlines, px.
OUTSIDE, INSIDE = 2, 3


def warnings(
    image: np.ndarray, labels: np.ndarray, diameter: Diameter | None = None, pixel_size: float | None = None
) -> list[str]:
    """Return what is suspicious about an image and the nuclei found in it, one sentence each; mostly none.

    Parameters
    ----------
    image : (H, W) or (H, W, channels), any real dtype, finite
    labels : integer (H, W), 0 = background
    diameter : of the typical nucleus, for which the image was scaled; None if it was not
    pixel_size : of the file, in micrometres; None if unknown
    """
    said = []
    sizes = diameters(labels)
    if not sizes.size:
        said.append("No nuclei were found.")
    if image.ndim == 3:
        image = image[..., :3] if image.shape[2] >= 3 else image[..., 0]  # alpha is no sign of anything
    low, high = image.min(), image.max()
    if low == high:
        return [*said, f"All pixels have the same value, {low:g}."]
    share, extreme = saturation(image, labels)
    if share > (SATURATED_NUCLEI if sizes.size else SATURATED_IMAGE):
        where = "the nuclei's area" if sizes.size else "the image"
        said.append(f"Saturated: {share:.0%} of {where} has the {extreme} value that occurs; intensities are cut off.")
    if not sizes.size:
        return said
    size = float(np.median(sizes))
    if diameter and diameter.agreement is not None and diameter.agreement < FAMILIAR:
        said.append(
            "Unlike what the model knows: what it found does not have the form of nuclei. Look at the outlines; try "
            "another channel or a diameter, or adapt the model."
        )
    elif diameter and not diameter.sure:
        said.append(f"The size of the nuclei is not clear: {diameter.px:g} px was taken; give their diameter.")
    expected = from_pixel_size(pixel_size)
    if expected and not 1 / CONTRADICTION <= size / expected <= CONTRADICTION:
        said.append(
            f"By the pixel size of {pixel_size:.3g} um the nuclei are {size * pixel_size:.3g} um wide, which is "
            "unusual; check it."
        )
    if edge_width(image, labels, size) > WIDEST_EDGE:
        said.append("Blurred: the edges of the nuclei are much softer than in the images the model was trained on.")
    return said


def saturation(image: np.ndarray, labels: np.ndarray) -> tuple[float, str]:
    """Return which share of the nuclei is clipped, and at which end of the image's values: largest or smallest.

    Light nuclei are clipped at the largest value that occurs, dark ones at the smallest; otherwise hardly any pixels
    share it. Without nuclei the share is that of all pixels at the largest value, or 0 if the background is light.
    """
    step = math.ceil(math.sqrt(labels.size / SAMPLE))
    rgb = to_rgb(image[::step, ::step])
    inside = labels[::step, ::step] > 0
    brightest = np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])  # ten times faster than max(axis=2)
    if not inside.any():
        return (0.0 if has_light_background(rgb) else float((brightest == brightest.max()).mean())), "largest"
    nuclei, background = brightest[inside], brightest[~inside]
    dark = background.size and nuclei.mean(dtype=float) < background.mean(dtype=float)
    extreme = brightest.min() if dark else brightest.max()
    return float((nuclei == extreme).mean()), "smallest" if dark else "largest"


def edge_width(image: np.ndarray, labels: np.ndarray, diameter: float) -> float:
    """Return how wide the sharpest edges of the nuclei are, relative to the square root of their diameter (px).

    A known blur flattens sharp edges much and soft ones hardly. From the ratio of the gradients before and after, the
    width of an edge follows as the sigma of a Gaussian: blur / sqrt(ratio² - 1) (Zhuo and Sim 2011, Defocus map
    estimation from a single image), here in the steepest quarter of the pixels next to outlines, after a light blur
    against noise. The square root separates sharp from blurred images better than other powers of the diameter.

    Of 664 images of BBBC038, 0.8% exceed `WIDEST_EDGE`; after a Gaussian blur with a sigma of 2, 3, 4 and 5 px, 19%,
    80%, 99% and 100% do. Returns 0 without edges.
    """
    light, heavy = 1.5, 3.0
    ratios = [np.empty((2, 0), np.float32)]
    for window in _windows(labels):
        nuclei = (labels[window] > 0).view(np.uint8)
        near = cv2.dilate(nuclei, _square(OUTSIDE)) > cv2.erode(nuclei, _square(INSIDE))
        grey = _grey(to_rgb(image[window]).astype(np.float32))
        ratios.append(np.stack([_gradient(blur(grey, sigma))[near] for sigma in (light, math.hypot(light, heavy))]))
    before, after = np.concatenate(ratios, axis=1)
    if not before.size:
        return 0.0
    steep = before >= np.percentile(before, 75)
    ratio = float(np.median(before[steep] / np.maximum(after[steep], 1e-9)))
    width = heavy / math.sqrt(max(ratio**2 - 1, 1e-3))
    return math.sqrt(max(width**2 - light**2, 0) / diameter)


def _windows(labels: np.ndarray) -> list[tuple[slice, slice]]:
    """Return the whole image, or of a large one windows around a few pixels of nuclei, evenly spread over all."""
    if labels.size <= SAMPLE:
        return [(slice(None), slice(None))]
    step = 8
    rows, columns = np.nonzero(labels[::step, ::step])
    chosen = np.unique(np.linspace(0, rows.size - 1, WINDOWS if rows.size else 0).astype(int))
    corners = ((max(step * int(place[i]) - WINDOW_SIDE // 2, 0) for place in (rows, columns)) for i in chosen)
    return [(slice(top, top + WINDOW_SIDE), slice(left, left + WINDOW_SIDE)) for top, left in corners]


def _gradient(grey: np.ndarray) -> np.ndarray:
    return cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))


def _square(reach: int) -> np.ndarray:
    return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
