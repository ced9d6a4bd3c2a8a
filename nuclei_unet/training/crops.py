"""Training input: crop number n is a pure function of (images, parameters, seed, n).

So crops do not depend on the order of work, the number of threads or a restart in the middle.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from nuclei_unet.files import naming_what_is_full
from nuclei_unet.labels import at_one_size
from nuclei_unet.sample import Sample
from nuclei_unet.settings import AugmentSettings, TrainSettings
from nuclei_unet.training import augment
from nuclei_unet.training.targets import TARGETS, target_maps

# Bytes of images and maps that training keeps in memory: enough for five times BBBC038.
MEMORY = 2 * 10**9


class Crops:
    """Draws crops of images and of the maps that the network has to learn from them.

    The first images stay in memory, up to `MEMORY` bytes with their maps; others in a temporary file, in `folder` or
    where the system has its own. Raises OSError if the disk has no room for them.
    """

    def __init__(self, samples: Sequence[Sample], settings: TrainSettings, folder: Path | None = None):
        self.settings, self.samples = settings, samples
        weights = type_weights([sample.image_type for sample in samples], settings.type_balance)
        # As in numpy's Generator.choice, which would do this for each crop again.
        self._cumulative = weights.cumsum()
        self._cumulative /= self._cumulative[-1]
        self._pixels = _read(samples, settings.diameter, folder or Path(tempfile.gettempdir()))

    def __len__(self) -> int:
        return len(self.samples)

    def draw(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return crop `number`: image uint8 (size, size, channels) and maps uint8 (size, size, targets)."""
        rng = np.random.default_rng([self.settings.seed, number])
        if self.settings.type_balance:
            index = self._choose(rng)
        else:
            # Each image is used once before any is used again.
            index = int(_order(len(self), self.settings.seed, number // len(self))[number % len(self)])
        image, maps = self._pixels[index]
        crop, flags = window(image.shape[:2], self.settings.crop_size, self.settings.augment, rng)
        image, maps = self._cut(image, crop, flags), self._cut(maps, crop, flags)
        image = augment.augment(image, maps[..., 0], self.settings.augment, self._other, rng)
        return _channels(image), select_targets(maps, self.settings.targets)

    def _other(self, rng: np.random.Generator) -> np.ndarray:
        """Return a crop of any image, without its maps."""
        image = self._pixels[self._choose(rng)][0]
        return self._cut(image, *window(image.shape[:2], self.settings.crop_size, self.settings.augment, rng))

    def center_crop(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the center crop of image `index`, not augmented, in the form of `draw`."""
        size = self.settings.crop_size
        image, maps = self._pixels[index]
        top, left = ((side - size) // 2 for side in image.shape[:2])
        move = np.array([[1, 0, left], [0, 1, top]], float)
        image, maps = (self._cut(pixels, move, cv2.INTER_NEAREST) for pixels in (image, maps))
        return _channels(image), select_targets(maps, self.settings.targets)

    def _cut(self, pixels: np.ndarray, crop: np.ndarray, flags: int) -> np.ndarray:
        """Return a crop; `crop` is the affine map from its pixels to the image's, which is mirrored at its edges."""
        size, flags = (self.settings.crop_size,) * 2, flags | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(pixels, crop, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)

    def _choose(self, rng: np.random.Generator) -> int:
        return int(self._cumulative.searchsorted(rng.random(), side="right"))


@lru_cache(maxsize=4)  # of two rounds, whose crops several threads may draw at once, and of two sets of images
def _order(count: int, seed: int, turn: int) -> np.ndarray:
    """Return the order in which `count` images are used in a round over all of them."""
    return np.random.default_rng([seed, turn, 1]).permutation(count)


def window(
    shape: tuple[int, int], size: int, settings: AugmentSettings, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Place a random crop; return the affine map (2, 3) from crop to image pixels, and the interpolation it needs."""
    zoom = np.exp(rng.uniform(*np.log(settings.zoom)))
    angle = rng.uniform(0, 2 * np.pi) if settings.rotate else 0.0
    mirror = rng.choice((-1, 1)) if settings.flip else 1
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    turn[:, 0] *= mirror
    # The crop's centre, (x, y): far enough inside for the upright crop to fit, or in the middle if it cannot fit.
    reach = size / zoom / 2
    extent = np.array(shape[::-1], float)
    low = np.minimum(reach, extent / 2)
    centre = low + rng.uniform(size=2) * (extent - 2 * low)
    offset = centre - 0.5 - turn @ np.full(2, (size - 1) / 2)
    if zoom == 1 and angle == 0:
        # Whole pixels, so that crops without zoom and rotation are exact.
        return np.column_stack([turn, np.rint(offset)]), cv2.INTER_NEAREST
    return np.column_stack([turn, offset]), cv2.INTER_LINEAR


def type_weights(image_types: list[str], balance: float) -> np.ndarray:
    """Return each image's probability, float (n,); the weight of a type is count ** (1 - balance)."""
    _, inverse, counts = np.unique(image_types, return_inverse=True, return_counts=True)
    weights = (counts.astype(float) ** -balance)[inverse]
    return weights / weights.sum()


def select_targets(maps: np.ndarray, targets: tuple[str, ...]) -> np.ndarray:
    """Return the channels of `target_maps` that the network learns, in its order."""
    return maps[..., [TARGETS.index(name) for name in targets]]


def as_dataset(
    draw: Callable[[int], tuple[np.ndarray, np.ndarray]], numbers: range, settings: TrainSettings, channels: int
) -> tf.data.Dataset:
    """Return batches ({image}, {target: map}) of crops number `numbers`, float32 in 0 ... 255 and 0 ... 1."""
    size, targets = settings.crop_size, settings.targets

    def load(number):
        image, maps = tf.numpy_function(lambda n: draw(int(n)), [number], (tf.uint8, tf.uint8), stateful=False)
        image.set_shape((size, size, channels))
        maps.set_shape((size, size, len(targets)))
        return image, maps

    def split(image, maps):
        maps = tf.cast(maps, tf.float32) / 255
        return tf.cast(image, tf.float32), {name: maps[..., i : i + 1] for i, name in enumerate(targets)}

    # Nothing here is left to tune, and the tuner's thread would let the end of each pass wait for its next look, in
    # pauses that double: up to as long as the pass itself.
    options = tf.data.Options()
    options.autotune.enabled = False
    return (
        tf.data.Dataset.range(numbers.start, numbers.stop)
        .map(load, num_parallel_calls=settings.threads, deterministic=True)
        .batch(settings.batch_size)
        .map(split)
        .prefetch(4)
        .with_options(options)
    )


def _read(samples: Sequence[Sample], diameter: float | None, folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each image and its maps, uint8, with nuclei of this diameter; None: as they are.

    What does not fit into memory is mapped from a file. It has no name, so nothing is left of it however the process
    ends.
    """
    pixels, mapped, room = [], [], MEMORY
    folder.mkdir(parents=True, exist_ok=True)
    with naming_what_is_full(folder / "pixels"), tempfile.TemporaryFile(dir=folder) as file:
        for sample in tqdm(samples, "reading", unit="image", delay=1, leave=False, disable=None):
            image, labels = at_one_size(sample.image, sample.labels, diameter)
            maps = target_maps(labels)
            if maps.shape[:2] != image.shape[:2]:  # images that preprocessing resized
                maps = cv2.resize(maps, image.shape[1::-1], interpolation=cv2.INTER_AREA)
            room -= image.nbytes + maps.nbytes
            if room >= 0:
                pixels.append((image, maps))
            else:
                mapped.append((file.tell(), image.shape, maps.shape))
                file.writelines(map(np.ascontiguousarray, (image, maps)))
        if mapped:
            file.flush()
            whole = np.asarray(np.memmap(file, np.uint8, "r"))
        for start, *shapes in mapped:
            middle, end = start + np.cumsum([math.prod(shape) for shape in shapes])
            pixels.append((whole[start:middle].reshape(shapes[0]), whole[middle:end].reshape(shapes[1])))
    return pixels


def _channels(image: np.ndarray) -> np.ndarray:
    """Give grey images (..., H, W) their channel axis."""
    return image[..., None] if image.ndim == 2 else image
