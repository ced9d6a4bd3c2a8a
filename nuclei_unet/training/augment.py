"""Random changes of what a training crop looks like, so that other microscopes are no surprise; its nuclei stay."""

from collections.abc import Callable

import cv2
import numpy as np

from nuclei_unet.settings import AugmentSettings


def augment(
    image: np.ndarray,
    foreground: np.ndarray,
    settings: AugmentSettings,
    other: Callable[[np.random.Generator], np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a crop as another microscope might show it.

    `image` is uint8 (size, size) or (size, size, 3), `foreground` the map of its nuclei, uint8 (size, size). `other`
    returns a crop of another image. A change that is turned off draws no random number.
    """
    if settings.cytoplasm and rng.uniform() < settings.cytoplasm:
        image = add_cytoplasm(image, foreground, rng)
    if settings.transfer and rng.uniform() < settings.transfer:
        image = transfer_intensities(image, other(rng), rng)
    if settings.mix and rng.uniform() < settings.mix:
        image = mix(image, other(rng), rng)
    return change_intensities(image, settings, rng)


def add_cytoplasm(image: np.ndarray, foreground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a dimmer cell body of uneven shape and brightness around each nucleus of a uint8 crop.

    Most fluorescent training images show nuclei alone, so a network takes whole cells for nuclei where the body shines,
    too. `foreground` is the nuclei's map, uint8 (size, size).
    """
    inside = foreground > 127
    if not inside.any():
        return image
    size = image.shape[1::-1]
    uneven, texture = (
        cv2.resize(rng.uniform(-1, 1, (cells, cells)).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
        for cells in (rng.integers(4, 12), rng.integers(8, 48))
    )
    reach = rng.uniform(6, 48) * (1 + 0.7 * uneven)
    near = (cv2.distanceTransform(255 * (~inside).astype(np.uint8), cv2.DIST_L2, 3) < reach).astype(np.float32)
    body = cv2.GaussianBlur(near * (1 + rng.uniform(0, 0.4) * texture), (0, 0), rng.uniform(0.7, 3))
    # As bright as a part of the nuclei, which shine through it. Then all is dimmed: nuclei are as bright as before.
    level = rng.uniform(0.15, 1.2)
    grey = image if image.ndim == 2 else image.mean(axis=2)
    body *= np.float32(level * np.median(grey[inside]))
    mixed = (image + (body if image.ndim == 2 else body[..., None])) / np.float32(1 + level)
    return np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)


def transfer_intensities(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move the intensities of a uint8 crop towards those that another image has at the same ranks, part of the way."""
    ranks, theirs = (np.cumsum(np.bincount(pixels.ravel(), minlength=256)) for pixels in (image, other))
    matched = np.interp(ranks / ranks[-1], theirs / theirs[-1], np.arange(256))
    share = rng.uniform()
    return np.rint((1 - share) * np.arange(256) + share * matched).astype(np.uint8)[image]


def mix(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lay another crop, faint, blurred and perhaps inverted, over a uint8 crop, as structures out of focus would be."""
    other = cv2.GaussianBlur(other, (0, 0), rng.uniform(1, 6)).astype(np.float32)
    if rng.uniform() < 0.5:
        other = other.max() - other
    mixed = image + np.float32(rng.uniform(0, 0.4)) * other
    return np.rint(np.minimum(mixed, 255)).astype(np.uint8)


def change_intensities(image: np.ndarray, settings: AugmentSettings, rng: np.random.Generator) -> np.ndarray:
    """Vary focus, gamma, contrast, brightness and noise of a uint8 image; shape and dtype stay."""
    if settings.blur:
        # Half of the crops stay sharp.
        sigma = rng.uniform(-settings.blur, settings.blur)
        if sigma > 0.1:
            image = cv2.GaussianBlur(image, (0, 0), sigma)
    pixels = image.astype(np.float32) / 255
    pixels = pixels ** np.float32(np.exp(rng.uniform(*np.log(settings.gamma))))
    if settings.contrast:
        factor = rng.uniform(1 - settings.contrast, 1 + settings.contrast)
        shift = rng.uniform(-0.5, 0.5) * settings.contrast
        pixels = (pixels - pixels.mean()) * np.float32(factor) + pixels.mean() + np.float32(shift * pixels.mean())
    if settings.noise:
        pixels += rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(0, settings.noise))
    if settings.invert and rng.uniform() < settings.invert:
        pixels = 1 - pixels
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
