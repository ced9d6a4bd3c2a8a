"""The model as MLflow serves it: images in; label images, counts and measurements out.

    mlflow models serve -m models:/nuclei-unet@champion --env-manager local
    curl -d '{"dataframe_records": [{"image": "<PNG as base64>"}]}' \\
        -H 'Content-Type: application/json' http://127.0.0.1:5000/invocations

MLflow runs this file ("models from code"), so nothing is pickled. Beside it are the model with its recipe and the
library nuclei_unet; nothing else of the project is needed.
"""

import base64
import binascii

import cv2
import mlflow
import numpy as np
import pandas as pd

from nuclei_unet import png
from nuclei_unet.errors import InputError
from nuclei_unet.prediction.segmenter import Segmenter


class Nuclei(mlflow.pyfunc.PythonModel):
    """Finds the nuclei of each image of a table."""

    def load_context(self, context) -> None:
        """Load the model."""
        self.segmenter = Segmenter.load(context.artifacts["model"])

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """Return one row per image: labels (PNG of 16 bits, base64), count, measurements (a list of dictionaries).

        `model_input` has a column `image`: a PNG as base64, or an array as nested lists, (H, W) or (H, W, channels),
        of any size and range.
        """
        return pd.DataFrame([self._found(read_image(value)) for value in model_input["image"]])

    def _found(self, image: np.ndarray) -> dict:
        labels = self.segmenter(image)
        _, encoded = cv2.imencode(".png", labels.astype(np.uint16))
        return {
            "labels": base64.b64encode(encoded.tobytes()).decode(),
            "count": int(labels.max()),
            "measurements": self.segmenter.measure(labels, image).to_dict("records"),
        }


def read_image(value: object) -> np.ndarray:
    """Return the image that a request holds. Raises InputError that says what is wrong with it."""
    if isinstance(value, str):
        try:
            return png.decode(base64.b64decode(value, validate=True), "image")
        except binascii.Error as error:
            raise InputError(f"image: neither base64 of a PNG nor an array ({error})") from None
    try:
        image = np.asarray(value)
    except ValueError as error:
        raise InputError(f"image: lists of different lengths ({error})") from None
    if image.dtype.kind not in "uif":
        raise InputError(f"image: an array of {image.dtype}; an image must be numbers")
    # JSON has no uint8; the range of the dtype matters only if `preprocess.percentiles` is null.
    if image.dtype.kind == "i" and image.size and image.min() >= 0 and image.max() < 2**16:
        return image.astype(np.uint8 if image.max() < 2**8 else np.uint16)
    return image


mlflow.models.set_model(Nuclei())
