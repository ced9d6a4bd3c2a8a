"""Images: from a file's bytes to an array, and from any array to what the network sees."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from skimage.filters import threshold_otsu

from nuclei_unet.errors import InputError
from nuclei_unet.settings import NormalizeSettings

# Up to this many pixels, percentiles and the like use the whole image; beyond, a sample.
LARGEST_WHOLE = 2**22


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Return any grey, grey + alpha, RGB or RGBA image as (H, W, 3) of the same dtype; alpha is dropped."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4) or image.size == 0:
        raise InputError(f"expected a grey or colour image, found an array of shape {image.shape}")
    channels = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    return np.ascontiguousarray(np.broadcast_to(channels, (*image.shape[:2], 3)))


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Return the mean of the three channels; ten times faster than `mean(axis=2)` and bit-for-bit the same."""
    return (pixels[..., 0] + pixels[..., 1] + pixels[..., 2]) / pixels.dtype.type(3)


def has_light_background(rgb: np.ndarray) -> bool:
    """Tell bright-field images (dark nuclei on a light background) from fluorescent ones.

    The background is the most common brightness, so the median is near it. A median above the middle of the range
    means a light background. Works for any dtype, since only ranks and the range matter.
    """
    # Extreme percentiles: a single small nucleus on a dark field still sets the upper end.
    low, median, high = np.percentile(_grey(rgb.astype(np.float32)), (0.02, 50, 99.98))
    return bool(median - low > high - median)


def normalize(image: np.ndarray, settings: NormalizeSettings) -> np.ndarray:
    """Turn a microscope image, (H, W) or (H, W, 2 to 4) of any real dtype and range, into what the network sees.

    Returns uint8 (H, W) if `settings.channels` is 1, else (H, W, 3). `settings.image_size`, if not null, gives H and W.
    Intensities are stretched between `settings.percentiles`; if that is null, they are divided by the dtype's range.
    Light backgrounds are inverted, so nuclei are brighter than their surroundings. Unless
    `settings.nucleus_intensity` is null, the image is then scaled: the typical nucleus gets that intensity, whatever
    a few brighter ones have. Raises InputError if it is not an image, or has NaN or infinite values.
    """
    rgb = to_rgb(image)
    check_finite(rgb)
    step = sampling_step(rgb.shape)
    intensities = measured(rgb[::step, ::step], settings)
    if settings.image_size is not None:
        shape = settings.image_size[::-1]
        return _finish(cv2.resize(_stretch(rgb, intensities), shape, interpolation=cv2.INTER_AREA), intensities)
    return apply(rgb, intensities)


@dataclass(frozen=True)
class Intensities:
    """All that `normalize` knows of an image as a whole. Plain numbers, so that they can be kept in JSON."""

    channels: int
    low: float
    high: float
    invert: bool
    factor: float


def check_finite(pixels: np.ndarray) -> None:
    """Raise InputError if an image, or a part of one, has NaN or infinite values."""
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise InputError("the image has NaN or infinite values; replace them first")


def sampling_step(shape: Sequence[int]) -> int:
    """Return which rows and columns of an image decide: every one, or of a very large image every second, third ..."""
    return max(math.isqrt(shape[0] * shape[1] // LARGEST_WHOLE), 1)


def measured(sample: np.ndarray, settings: NormalizeSettings) -> Intensities:
    """Measure the sample of an image, (H, W, 3): every `sampling_step`th row and column of it."""
    pixels = _channels(sample, settings.channels)
    if settings.percentiles is not None:
        low, high = (float(value) for value in np.percentile(pixels, settings.percentiles))
    else:
        low, high = 0.0, float(np.iinfo(sample.dtype).max) if sample.dtype.kind in "ui" else 1.0
    invert = settings.invert_light_background and has_light_background(sample)
    intensities = Intensities(settings.channels, low, high, invert, 1.0)
    if settings.nucleus_intensity is None:
        return intensities
    factor = settings.nucleus_intensity / nucleus_intensity(_stretch(sample, intensities))
    return replace(intensities, factor=float(np.clip(factor, 0.5, 8)))


def apply(rgb: np.ndarray, intensities: Intensities) -> np.ndarray:
    """Normalize an image or any part of it, (H, W, 3); each pixel by itself. Returns uint8 (H, W) or (H, W, 3)."""
    # In strips: floats take four times an image's memory, or more.
    strips = (rgb[top : top + 512] for top in range(0, len(rgb), 512))
    return np.concatenate([_finish(_stretch(strip, intensities), intensities) for strip in strips])


def _stretch(rgb: np.ndarray, intensities: Intensities) -> np.ndarray:
    low, high = intensities.low, intensities.high
    stretched = np.clip((_channels(rgb, intensities.channels) - low) / max(high - low, 1e-6), 0, 1)
    stretched = stretched.astype(np.float32, copy=False)
    return 1 - stretched if intensities.invert else stretched


def _finish(stretched: np.ndarray, intensities: Intensities) -> np.ndarray:
    return np.rint(np.clip(stretched * np.float32(intensities.factor), 0, 1) * 255).astype(np.uint8)


def nucleus_intensity(pixels: np.ndarray) -> float:
    """Return the intensity of the typical nucleus: the median of the pixels above Otsu's threshold.

    `pixels` is float (H, W) or (H, W, 3) in 0 ... 1, light nuclei on a dark background. The result is at least 0.01.
    An image of a single grey level has no nuclei; the result is 1.
    """
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    if grey.min() == grey.max():
        return 1.0
    return max(float(np.median(grey[grey > threshold_otsu(grey)])), 0.01)


def _channels(rgb: np.ndarray, channels: int) -> np.ndarray:
    # float64 where float32 cannot hold the range.
    pixels = rgb.astype(np.float32 if rgb.dtype.itemsize <= 2 else np.float64)
    return _grey(pixels) if channels == 1 else pixels


def blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Return float32 (H, W) blurred by a Gaussian, which is cut off at four sigma; sigma 0 changes nothing."""
    side = 2 * round(4 * sigma) + 1
    return cv2.GaussianBlur(pixels, (side, side), sigma, borderType=cv2.BORDER_REFLECT) if sigma else pixels.copy()


def resize(pixels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return pixels (H, W) or (H, W, C) at another height and width: means of areas when shrunk, else interpolated."""
    height, width = shape
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.dtype not in (np.uint8, np.uint16, np.int16, np.float32, np.float64):
        pixels = pixels.astype(np.float64)  # OpenCV resizes no others
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def center_crop(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return the center of an image (H, W) or (H, W, C): at most `side` px high and wide."""
    starts = [max((length - side) // 2, 0) for length in pixels.shape[:2]]
    return pixels[tuple(slice(start, start + side) for start in starts)]
