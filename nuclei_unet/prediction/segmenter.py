"""A model and an image in, nuclei out: everything else is in the model's metadata."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.images import normalize, resize, to_rgb
from nuclei_unet.measurements import measure
from nuclei_unet.network.metadata import Metadata
from nuclei_unet.prediction import models
from nuclei_unet.prediction.predictor import Network, Predictor
from nuclei_unet.settings import PredictSettings


class Segmenter:
    """Finds the nuclei of any image: `Segmenter.load()(image)`.

    `metadata` says how the model was made and how good it is; `predictor` takes images that are already normalized.
    """

    def __init__(self, network: Network, metadata: Metadata):
        if metadata.predict is None:
            raise InputError("the model was trained but not evaluated, so it does not say how its maps become nuclei")
        self.metadata = metadata
        self.predictor = Predictor(network, metadata.network, metadata.predict)

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

    def __call__(self, image: np.ndarray, *, scale: float = 1.0) -> np.ndarray:
        """Return the label image of one image: 0 = background, nuclei 1 ... n without gaps.

        `image` is (H, W) or (H, W, channels) with 1 to 4 channels, any real dtype, range and size; alpha is dropped.
        The network sees it enlarged by `scale`, for nuclei much smaller (or larger, below 1) than it was trained on.
        The label image is (H, W), uint16, or uint32 if there are more than 65,535 nuclei. An image larger than a
        tile is processed tile by tile. Raises InputError if it is not an image or has NaN or infinite values.
        """
        seen = image
        if scale != 1:
            sides = [max(round(side * scale), 1) for side in image.shape[:2]]
            seen = resize(to_rgb(image), sides)
        return self.predictor.labels(normalize(seen, self.metadata.normalize), image.shape[:2])

    @staticmethod
    def measure(
        labels: np.ndarray, image: np.ndarray, *, pixel_size: float | None = None, channels: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Return the measurements of the nuclei, columns by name; see `measurements.measure`."""
        return measure(labels, image, pixel_size=pixel_size, channels=channels)
