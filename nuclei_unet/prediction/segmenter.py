"""A model file and an image in, nuclei out: everything else is in the model's recipe."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd

from nuclei_unet.errors import InputError
from nuclei_unet.images import normalize
from nuclei_unet.measurements import measure
from nuclei_unet.network import model_file
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.recipe import Recipe
from nuclei_unet.settings import PredictSettings


class Segmenter:
    """Finds the nuclei of any image: `Segmenter.load(path)(image)`.

    `recipe` says how the model was made; `predictor` takes images that are already normalized.
    """

    def __init__(self, model: keras.Model, recipe: Recipe, *, precision: str = "auto"):
        if recipe.predict is None:
            raise InputError("the model was trained but not evaluated, so it does not say how its maps become nuclei")
        self.recipe = recipe
        self.predictor = Predictor(model, recipe.network, recipe.predict, precision)

    @classmethod
    def load(cls, path: Path | str, *, predict: PredictSettings | None = None, precision: str = "auto") -> "Segmenter":
        """Load a model file that stage evaluate wrote.

        `predict` replaces the model's own prediction settings. `precision` is float32, mixed_bfloat16 or auto: bfloat16
        if this machine is fast at it. Raises InputError that names the file if it is missing or damaged, has no
        complete recipe, or would run code.
        """
        path = Path(path)
        recipe = model_file.read_recipe(path)
        if predict is not None:
            recipe = recipe.model_copy(update={"predict": predict})
        if recipe.predict is None:
            raise InputError(
                f"{path}: was trained but not evaluated, so it does not say how its maps become nuclei; run "
                "`dvc repro evaluate` and use the model that it writes"
            )
        try:
            return cls(model_file.load(path), recipe, precision=precision)
        except InputError as error:
            named = str(error).startswith(str(path))
            raise error if named else InputError(f"{path}: {error}") from None

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the label image of one image: 0 = background, nuclei 1 ... n without gaps.

        `image` is (H, W) or (H, W, channels) with 1 to 4 channels, any real dtype, range and size; alpha is dropped.
        The label image is (H, W), uint16, or uint32 if there are more than 65,535 nuclei. An image larger than a
        block is processed block by block. Raises InputError if it is not an image or has NaN or infinite values.
        """
        return self.predictor.labels(normalize(image, self.recipe.normalize), image.shape[:2])

    @staticmethod
    def measure(labels: np.ndarray, image: np.ndarray) -> pd.DataFrame:
        """Return one row of measurements a nucleus; see `measurements.measure`."""
        return measure(labels, image)
