"""The model as MLflow serves it: images in; label images, counts and measurements out.

    mlflow models serve -m models:/nuclei-unet@champion --env-manager local
    curl -d '{"dataframe_records": [{"image": "<PNG as base64>"}]}' \\
        -H 'Content-Type: application/json' http://127.0.0.1:5000/invocations

MLflow runs this file ("models from code"), so nothing is pickled. Beside it lie the model and the params.yaml it was
trained and evaluated with.
"""

import base64
import binascii
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
from skimage.measure import regionprops_table

from nuclei_unet.errors import InputError
from nuclei_unet.images import normalize
from nuclei_unet.network import model_file, runtime
from nuclei_unet.png import decode
from nuclei_unet.prediction.predictor import Predictor
from pipeline import params

# One row a nucleus, lengths in pixels; centroid-0 and -1 are row and column.
MEASURED = ("label", "area", "centroid", "equivalent_diameter_area", "eccentricity", "solidity")


class Nuclei(mlflow.pyfunc.PythonModel):
    """Finds the nuclei of each image of a table."""

    def load_context(self, context) -> None:
        """Load the model and its parameters."""
        settings = params.load(Path(context.artifacts["params"]))
        runtime.configure(settings.train)
        self.predictor = Predictor(
            model_file.load(Path(context.artifacts["model"])), settings.train.model, settings.evaluate
        )
        self.settings = settings.preprocess

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """Return one row an image: labels (PNG of 16 bits, base64), count, measurements (a list of dictionaries).

        `model_input` has a column `image`: a PNG as base64, or an array as nested lists, (H, W) or (H, W, channels),
        of any size and range.
        """
        return pd.DataFrame([self._found(read_image(value)) for value in model_input["image"]])

    def _found(self, image: np.ndarray) -> dict:
        # At native size, whatever size the network saw.
        labels = self.predictor.labels(normalize(image, self.settings), image.shape[:2])
        _, encoded = cv2.imencode(".png", labels.astype(np.uint16))
        table = pd.DataFrame(regionprops_table(labels, properties=MEASURED))
        return {
            "labels": base64.b64encode(encoded.tobytes()).decode(),
            "count": int(labels.max()),
            "measurements": table.to_dict("records"),
        }


def read_image(value: object) -> np.ndarray:
    """Return the image that a request holds. Raises InputError that says what is wrong with it."""
    if isinstance(value, str):
        try:
            return decode(base64.b64decode(value, validate=True), "image")
        except binascii.Error as error:
            raise InputError(f"image: neither base64 of a PNG nor an array ({error})") from None
    try:
        image = np.asarray(value)
    except ValueError as error:
        raise InputError(f"image: lists of different lengths ({error})") from None
    if image.dtype.kind not in "uif":
        raise InputError(f"image: an array of {image.dtype}, but images are numbers")
    # JSON has no uint8; the range of the dtype counts only where `preprocess.percentiles` is null.
    if image.dtype.kind == "i" and image.size and image.min() >= 0 and image.max() < 2**16:
        return image.astype(np.uint8 if image.max() < 2**8 else np.uint16)
    return image


mlflow.models.set_model(Nuclei())
