"""From a network and one image to its maps and its nuclei, at any size."""

import itertools
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from nuclei_unet.images import resize
from nuclei_unet.labels import relative_distance
from nuclei_unet.measurements import diameters
from nuclei_unet.network.metadata import Metadata
from nuclei_unet.prediction.diameter import OWN_SIZE, Diameter, Look, busiest, estimate, windows
from nuclei_unet.prediction.instances import label_nuclei
from nuclei_unet.prediction.tiles import Tile, cut, match, paint, relative
from nuclei_unet.settings import Augmentation

# Side of a tile in pixels, of the image or as the network sees it. It limits the memory that any image takes.
TILE = 1536
# Pixels around a tile's core that are predicted and thrown away, as the network sees them. They show it the core's
# surroundings, and are wider than a large nucleus.
OVERLAP = 96
# To estimate a diameter, one view at this share of the size is enough; at half the size the network sees too little.
LOOK = 0.75
# Test-time augmentation for those in a hurry: none, and two thirds of the pixels.
FAST: tuple[Augmentation, ...] = ((0.8, 0),)


class Network(Protocol):
    """A network ready to predict, whatever computes it."""

    @property
    def channels(self) -> int:
        """How many channels its images have."""

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the maps {target: float32 (N, H, W, 1)} of images, float32 (N, H, W, channels), 0 ... 255."""


class Predictor:
    """A network with all that it takes to find nuclei in images of any size.

    Each image is scaled so that its typical nucleus has the size that the network knows, predicted once for each of
    `metadata.predict.augmentations` relative to that, and the maps are averaged. All images are normalized: uint8
    (H, W) or (H, W, 3), as `images.normalize` returns them. Raises InputError if the network was not evaluated.
    """

    def __init__(self, network: Network, metadata: Metadata):
        self.predict, self.usual = metadata.chosen, metadata.diameter
        self.multiple = metadata.network.size_multiple
        self._run = network

    def labels(
        self, image: np.ndarray, shape: tuple[int, int] | None = None, diameter: float | None = None
    ) -> np.ndarray:
        """Find the nuclei of one image.

        Returns a label image as `instances.label_nuclei` does. `shape` is its height and width if they are not the
        image's. `diameter` is that of the typical nucleus in px, None: estimated. An image larger than a tile is
        processed tile by tile, so memory grows only by the image and its label image.
        """
        scale = self.scale(diameter or self.diameter_of(image).px)
        if shape not in (None, image.shape[:2]):
            return self.part(image, scale, shape)
        tiles = self.cut(image.shape[:2], scale)
        if len(tiles) == 1:
            return self.part(image, scale)
        labels, count = np.zeros(image.shape[:2], np.uint32), 0
        for tile in tiles:
            part, there = self.part(image[tile.window], scale), labels[tile.window]
            numbers, count = match(there, part, relative(tile.core, tile.window), count)
            paint(there, part, numbers)
        return labels if count >= 2**16 else labels.astype(np.uint16)

    def scale(self, diameter: float) -> float:
        """Return the factor that brings nuclei of this diameter, px, to the size that the network knows."""
        return self.usual / diameter if self.usual else 1.0

    def diameter(self, parts: Sequence[np.ndarray], guess: float | None = None) -> Diameter:
        """Estimate the diameter of the typical nucleus from parts of an image, see `diameter.windows`.

        `guess` is what is expected, px. A network that takes images at their own size needs no estimate.
        """
        if self.usual is None:
            return OWN_SIZE
        chosen = busiest(parts)

        def look(expected: float) -> Look:
            looks = [self._look(part, self.scale(expected) * LOOK) for part in chosen]
            sizes = np.concatenate([sizes for sizes, _ in looks])
            shared, total = np.sum([overlap for _, overlap in looks], axis=0)
            return Look(expected, float(np.median(sizes)) if sizes.size else None, float(shared / max(total, 1e-6)))

        return estimate(look, self.usual, guess, widest=min(chosen[0].shape[:2]))

    def diameter_of(self, image: np.ndarray, guess: float | None = None) -> Diameter:
        """Estimate the diameter of the typical nucleus of an image; see `diameter`."""
        return self.diameter([image[there] for there in windows(image.shape[:2])], guess)

    def _look(self, image: np.ndarray, scale: float) -> tuple[np.ndarray, tuple[float, float]]:
        """Return what is found in a small view: diameters, px of the image, and the two parts of a soft Dice.

        That is how well the map of distances (foreground, if there is none) agrees with that of the nuclei found.
        """
        small = resize(image, _sides(image.shape, scale))
        # What the network sees: where somebody wants outlines to lie must not change the scale.
        predict = self.predict.model_copy(update={"outline_offset": 0.0})
        maps = self._averaged(small, 1.0, small.shape[:2], ((1.0, 0),))
        labels = label_nuclei(maps, predict, enlarged=LOOK)
        seen = maps.get("distance", maps["foreground"])
        ideal = relative_distance(labels) if "distance" in maps else (labels > 0).astype(np.float32)
        overlap = 2 * float((seen * ideal).sum()), float((seen * seen).sum() + (ideal * ideal).sum())
        return diameters(labels) / scale, overlap

    def cut(self, shape: tuple[int, int], scale: float) -> list[Tile]:
        """Return the tiles of an image of this height and width that the network sees at this scale."""
        largest = max(1.0, *(scale * factor for factor, _ in self.predict.augmentations))
        overlap = math.ceil(OVERLAP / scale)
        # A multiple of 128, so pooling falls on the same pixels as in the whole image where it is not scaled.
        core = max(int(TILE / largest) - 2 * overlap, 128) // 128 * 128
        if max(shape) <= core + 2 * overlap:
            core = max(shape)  # it fits
        return list(cut(shape, core, overlap))

    def part(self, image: np.ndarray, scale: float, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Find the nuclei of an image or of one tile, all at once; see `labels` and `scale`."""
        shape = shape or image.shape[:2]
        return label_nuclei(self.maps(image, scale, shape), self.predict, resize(image, shape), enlarged=1 / scale)

    def maps(
        self, image: np.ndarray, scale: float = 1.0, shape: tuple[int, int] | None = None
    ) -> dict[str, np.ndarray]:
        """Predict the maps of one image at once: {target: float32 (H, W)} in [0, 1], resized to `shape` if given."""
        return self._averaged(image, scale, shape or image.shape[:2], self.predict.augmentations)

    def _averaged(
        self, image: np.ndarray, scale: float, shape: tuple[int, int], augmentations: Sequence[Augmentation]
    ) -> dict[str, np.ndarray]:
        totals: dict[str, np.ndarray] = {}
        for factor, turns in itertools.groupby(augmentations, key=lambda augmentation: augmentation[0]):
            pixels = resize(image.astype(np.float32), _sides(image.shape, scale * factor))
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


def _sides(shape: Sequence[int], scale: float) -> list[int]:
    return [max(round(side * scale), 1) for side in shape[:2]]


def _turn(pixels: np.ndarray, number: int) -> np.ndarray:
    """Return orientation `number` of eight: a quarter turn for each of 0 ... 3, mirrored first from 4 on."""
    return np.rot90(pixels[:, ::-1] if number >= 4 else pixels, number)


def _turn_back(pixels: np.ndarray, number: int) -> np.ndarray:
    pixels = np.rot90(pixels, -number)
    return pixels[:, ::-1] if number >= 4 else pixels
