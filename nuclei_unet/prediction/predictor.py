"""From a network and one image to its maps and its nuclei, at any size."""

import itertools
from typing import Protocol

import numpy as np

from nuclei_unet.images import resize
from nuclei_unet.prediction.instances import label_nuclei
from nuclei_unet.prediction.tiles import Tile, cut, match, paint, relative
from nuclei_unet.settings import Augmentation, NetworkSettings, PredictSettings

# Side of a tile in pixels, as the network sees it. It limits the memory that an image of any size takes.
TILE = 2560
# Pixels around a tile's core that are predicted and thrown away. They show the network the core's surroundings, and
# are wider than a large nucleus.
OVERLAP = 128


# Test-time augmentations by name: the image as it is, and mirrored at half its size, where large nuclei look as usual
# ones do (the second costs a quarter of the first); or four orientations at each of four sizes.
FAST: tuple[Augmentation, ...] = ((1.0, 0), (0.5, 4))
THOROUGH: tuple[Augmentation, ...] = tuple((scale, turn) for scale in (0.5, 0.75, 1.0, 1.5) for turn in (0, 2, 4, 6))
AUGMENTATIONS = {"fast": FAST, "thorough": THOROUGH}


class Network(Protocol):
    """A network ready to predict, whatever computes it."""

    channels: int

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the maps {target: float32 (N, H, W, 1)} of images, float32 (N, H, W, channels), 0 ... 255."""


class Predictor:
    """A network with all that it takes to find nuclei in images of any size.

    Each image is predicted once for each of `predict.augmentations`, and the maps are averaged.
    """

    def __init__(self, network: Network, settings: NetworkSettings, predict: PredictSettings):
        self.predict = predict
        self.multiple = settings.size_multiple
        self._run = network

    def labels(self, image: np.ndarray, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Find the nuclei of one image, uint8 (H, W) or (H, W, 3) as `images.normalize` returns it.

        Returns a label image as `instances.label_nuclei` does, of `shape` if that is given. An image larger than a
        tile is processed tile by tile, so memory grows only by the image and its label image.
        """
        shape = shape or image.shape[:2]
        tiles = self.cut(image.shape[:2], shape)
        if len(tiles) == 1:
            return self.part(image[tiles[0].seen], tiles[0].size)
        labels, count = np.zeros(shape, np.uint32), 0
        for tile in tiles:
            part, there = self.part(image[tile.seen], tile.size), labels[tile.window]
            numbers, count = match(there, part, relative(tile.core, tile.window), count)
            paint(there, part, numbers)
        return labels if count >= 2**16 else labels.astype(np.uint16)

    def cut(self, seen: tuple[int, int], shape: tuple[int, int]) -> list[Tile]:
        """Return the tiles of an image whose size is `seen` for the network; its label image is of `shape`."""
        factors = shape[0] / seen[0], shape[1] / seen[1]
        # A multiple of 128, so pooling falls on the same pixels as in the whole image, also at half its size.
        largest = max(*(scale for scale, _ in self.predict.augmentations), *factors)
        core = max(int(TILE / largest) - 2 * OVERLAP, 128) // 128 * 128
        if max(seen) <= core + 2 * OVERLAP:
            core = max(seen)  # it fits
        return list(cut(seen, shape, core, OVERLAP))

    def part(self, image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Find the nuclei of one tile, all at once; see `labels`."""
        return label_nuclei(self.maps(image, shape), self.predict, resize(image, shape))

    def maps(self, image: np.ndarray, shape: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Predict the maps of one image at once: {target: float32 (H, W)} in [0, 1], resized to `shape` if given."""
        shape = shape or image.shape[:2]
        totals: dict[str, np.ndarray] = {}
        augmentations = self.predict.augmentations
        for scale, turns in itertools.groupby(augmentations, key=lambda augmentation: augmentation[0]):
            pixels = resize(image.astype(np.float32), [max(round(side * scale), 1) for side in image.shape[:2]])
            pixels = pixels.reshape(*pixels.shape[:2], -1)
            for _, number in turns:
                for name, values in self._upright(_turn(pixels, number)).items():
                    values = resize(np.ascontiguousarray(_turn_back(values, number)), shape)
                    totals[name] = totals[name] + values if name in totals else values
        return {name: values / len(augmentations) for name, values in totals.items()}

    def _upright(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        height, width = pixels.shape[:2]
        down, right = -height % self.multiple, -width % self.multiple
        # Mirrored, since black would be an edge. `symmetric` can also add more pixels than the image has.
        pixels = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="symmetric")
        return {name: values[0, :height, :width, 0] for name, values in self._run(pixels[None]).items()}


def _turn(pixels: np.ndarray, number: int) -> np.ndarray:
    """Return orientation `number` of eight: a quarter turn for each of 0 ... 3, mirrored first from 4 on."""
    return np.rot90(pixels[:, ::-1] if number >= 4 else pixels, number)


def _turn_back(pixels: np.ndarray, number: int) -> np.ndarray:
    pixels = np.rot90(pixels, -number)
    return pixels[:, ::-1] if number >= 4 else pixels
