"""A small picture of an image with the outlines of its nuclei, for a page that shows many of them."""

import cv2
import numpy as np
from skimage.segmentation import find_boundaries

from nuclei_unet.images import has_light_background, to_rgb

# RGB. Orange stands out from a dark background; green from white and from the purple of histology.
ON_DARK, ON_LIGHT = (230, 159, 0), (0, 185, 100)
MAX_BYTES = 12_000
QUALITIES = (90, 80, 70, 60, 50, 40, 30)


def thumbnail(image: np.ndarray, labels: np.ndarray, side: int = 256) -> bytes:
    """Return a JPEG of at most `side` x `side` pixels: the image, its contrast stretched, with outlines of all nuclei.

    The image is (H, W), (H, W, 2), (H, W, 3) or (H, W, 4) of any real dtype, alpha is dropped; `labels` are integer
    (H, W), 0 = background. Smaller images keep their size.

    The image is shrunk first and outlines are drawn then, so they are a pixel wide at any size, and an image of 8192 x
    8192 pixels takes hardly more time or memory than a small one. The quality is the highest that gives at most 12,000
    bytes; a picture too busy for that gets smaller.
    """
    height, width = labels.shape
    scale = min(side / max(height, width), 1)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    # Every second, third ... pixel first: enough for a thumbnail, and OpenCV cannot resize integers of 32 bits.
    step = max(max(height, width) // (4 * side), 1)
    fewer = to_rgb(image[::step, ::step]).astype(np.float32)
    pixels = cv2.resize(fewer, size, interpolation=cv2.INTER_AREA)
    low, high = np.percentile(pixels, (0.5, 99.8))
    picture = np.rint(np.clip((pixels - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    rows, columns = ((np.arange(n) + 0.5) * full // n for n, full in ((size[1], height), (size[0], width)))
    shrunk = labels[np.ix_(rows.astype(int), columns.astype(int))]
    edge = find_boundaries(shrunk, connectivity=1, mode="inner")
    colour = np.array(ON_LIGHT if has_light_background(picture) else ON_DARK)
    # Nuclei of a few pixels are all outline: leave something of the image to be seen.
    opacity = 0.5 if np.count_nonzero(edge) > 0.8 * np.count_nonzero(shrunk) else 1.0
    picture[edge] = np.rint(opacity * colour + (1 - opacity) * picture[edge])
    for quality in QUALITIES:
        sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        options = (cv2.IMWRITE_JPEG_QUALITY, quality, *sampling)
        data = cv2.imencode(".jpg", picture[..., ::-1], options)[1].tobytes()
        if len(data) <= MAX_BYTES:
            return data
    return thumbnail(image, labels, side * 3 // 4)
