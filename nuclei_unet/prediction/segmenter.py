"""A model and an image in, nuclei out: everything else is in the model's recipe."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nuclei_unet.card import Card
from nuclei_unet.errors import InputError
from nuclei_unet.images import normalize, resize, to_rgb
from nuclei_unet.measurements import measure
from nuclei_unet.prediction import models
from nuclei_unet.prediction.predictor import Network, Predictor
from nuclei_unet.settings import PredictSettings


class Segmenter:
    """Finds the nuclei of any image: `Segmenter.load()(image)`.

    `card` says how the model was made and how good it is, `recipe` is its recipe; `predictor` takes images that are
    already normalized.
    """

    def __init__(self, network: Network, card: Card):
        if card.recipe.predict is None:
            raise InputError("the model was trained but not evaluated, so it does not say how its maps become nuclei")
        self.card = card
        self.recipe = card.recipe
        self.predictor = Predictor(network, card.recipe.network, card.recipe.predict)

    @classmethod
    def load(
        cls,
        model: Path | str | None = None,
        *,
        predict: PredictSettings | None = None,
        engine: models.Engine = "auto",
        precision: str = "auto",
        threads: int | None = None,
    ) -> "Segmenter":
        """Load a model: a file, a package, an address, or, without an argument, the pretrained one of this package.

        `predict` replaces the model's own prediction settings; see `models.load` for the others. Raises InputError that
        names the model if it is missing or damaged, has no complete recipe, or would run code.
        """
        opened = models.load(model, engine=engine, precision=precision, threads=threads)
        card = opened.card
        if predict is not None:
            card = card.model_copy(update={"recipe": card.recipe.model_copy(update={"predict": predict})})
        if card.recipe.predict is None:
            raise InputError(
                f"{opened.name}: was trained but not evaluated, so it does not say how its maps become nuclei; run "
                "`dvc repro evaluate` and use the model that it writes"
            )
        return cls(opened.network, card)

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
        return self.predictor.labels(normalize(seen, self.recipe.normalize), image.shape[:2])

    @staticmethod
    def measure(
        labels: np.ndarray, image: np.ndarray, *, pixel_size: float | None = None, channels: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Return the measurements of the nuclei, columns by name; see `measurements.measure`."""
        return measure(labels, image, pixel_size=pixel_size, channels=channels)
