"""A model and an image in, nuclei out: everything else is in the model's metadata."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.images import normalize
from nuclei_unet.measurements import measure
from nuclei_unet.network.metadata import Metadata
from nuclei_unet.prediction import models
from nuclei_unet.prediction.diameter import Diameter, from_pixel_size
from nuclei_unet.prediction.predictor import Network, Predictor
from nuclei_unet.settings import PredictSettings


class Segmenter:
    """Finds the nuclei of any image: `Segmenter.load()(image)`.

    `metadata` says how the model was made and how good it is; `predictor` takes images that are already normalized.
    """

    def __init__(self, network: Network, metadata: Metadata):
        self.metadata = metadata
        self.predictor = Predictor(network, metadata)

    @classmethod
    def load(
        cls,
        model: Path | str | None = None,
        *,
        predict: PredictSettings | None = None,
        threads: int | None = None,
        gpu: bool = True,
    ) -> "Segmenter":
        """Load a model: a file, a package, an address, or, without an argument, the pretrained one of this package.

        `predict` replaces the model's own prediction settings; see `models.load` for the others. Raises InputError that
        names the model if it is missing or damaged, or was not evaluated.
        """
        opened = models.load(model, threads=threads, gpu=gpu)
        try:
            return cls(opened.network, opened.metadata.but(predict=predict or opened.metadata.predict))
        except InputError as error:
            raise InputError(f"{opened.name}: {error}") from None

    def __call__(self, image: np.ndarray, *, diameter: float | None = None) -> np.ndarray:
        """Return the label image of one image: 0 = background, nuclei 1 ... n without gaps.

        `image` is (H, W) or (H, W, channels) with 1 to 4 channels, any real dtype, range and size; alpha is dropped.
        `diameter` is that of its typical nucleus, px; None: estimated, which takes a third of the time. The label image
        is (H, W), uint16, or uint32 if there are more than 65,535 nuclei. An image larger than a tile is processed tile
        by tile. Raises InputError if it is not an image or has NaN or infinite values.
        """
        return self.find(image, diameter=diameter)[0]

    def find(
        self, image: np.ndarray, *, diameter: float | None = None, pixel_size: float | None = None
    ) -> tuple[np.ndarray, Diameter]:
        """Return the label image of one image, as a call does, and the diameter that it was found with.

        `pixel_size` is in micrometres; it is where an estimate starts.
        """
        if diameter and self.metadata.diameter is None:
            raise InputError("the model takes images at their own size, so it has no use for a diameter")
        seen = normalize(image, self.metadata.normalize)
        used = Diameter(diameter) if diameter else self.predictor.diameter_of(seen, from_pixel_size(pixel_size))
        return self.predictor.labels(seen, image.shape[:2], used.px), used

    @staticmethod
    def measure(
        labels: np.ndarray, image: np.ndarray, *, pixel_size: float | None = None, channels: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Return the measurements of the nuclei, columns by name; see `measurements.measure`."""
        return measure(labels, image, pixel_size=pixel_size, channels=channels)
