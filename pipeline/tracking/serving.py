"""The model as MLflow serves it: images in; label images, counts and measurements out.

    mlflow models serve -m models:/nuclei-unet@champion --env-manager local
    curl -d '{"dataframe_records": [{"image": "<PNG as base64>"}]}' \\
        -H 'Content-Type: application/json' http://127.0.0.1:5000/invocations

MLflow runs this file ("models from code"), so nothing is pickled. Beside it are the model with its metadata and the
library nuclei_unet; nothing else of the project is needed.
"""

import base64
import logging
import sys

import cv2
import mlflow
import numpy as np
import pandas as pd
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INTERNAL_ERROR
from mlflow.pyfunc import scoring_server

from nuclei_unet.errors import InputError
from nuclei_unet.formats import png
from nuclei_unet.prediction.segmenter import Segmenter

LOG = logging.getLogger(__name__)
EXPECTED = 'expected JSON: {"dataframe_records": [{"image": "<PNG as base64, or an array as nested lists>"}]}'


class Refused(mlflow.MlflowException):
    """A request that the server answers with status 400 (or that of `code`) and this message alone.

    The server would put the whole request before the message of an `MlflowException`, and a stack trace with paths of
    the machine behind that of any other exception.
    """

    def __init__(self, reason: str, code: int = BAD_REQUEST):
        super().__init__(reason, error_code=code)
        self._reason = reason

    # What the server puts before it is not kept.
    message = property(lambda self: self._reason, lambda self, said: self.__dict__.setdefault("_reason", said))


class Nuclei(mlflow.pyfunc.PythonModel):
    """Finds the nuclei of each image of a table."""

    def load_context(self, context) -> None:
        """Load the model."""
        self.segmenter = Segmenter.load(context.artifacts["model"])
        # The module that MLflow's server starts from, and that now waits for the model.
        if "mlflow.pyfunc.scoring_server.app" in sys.modules:
            scoring_server.invocations = guarded(scoring_server.invocations)

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """Return one row per image: labels (PNG of 16 bits, base64), count, measurements (a list of dictionaries).

        `model_input` has a column `image`: a PNG as base64, or an array as nested lists, (H, W) or (H, W, channels),
        of any size and range. Raises Refused that names the first image that is none.
        """
        rows = []
        for number, value in enumerate(model_input["image"], start=1):
            where = f"image {number} of {len(model_input)}"
            try:
                rows.append(self._row(read_image(value)))
            except InputError as error:
                raise Refused(f"{where}: {error}") from None
            except Exception:
                LOG.exception(where)
                raise Refused(f"{where}: the server failed; its log says why", INTERNAL_ERROR) from None
        return pd.DataFrame(rows)

    def _row(self, image: np.ndarray) -> dict:
        labels = self.segmenter(image)
        _, encoded = cv2.imencode(".png", labels.astype(np.uint16))
        return {
            "labels": base64.b64encode(encoded.tobytes()).decode(),
            "count": int(labels.max()),
            "measurements": pd.DataFrame(self.segmenter.measure(labels, image)).to_dict("records"),
        }


def guarded(answer):
    """Return MLflow's function that answers a request, but with one line for a request that MLflow cannot read.

    MLflow reads the request before it calls the model. It sends what it cannot read back in full, with 50 MB of it if
    there are so many, and for some content types a stack trace with paths of the machine.
    """

    def guarded_answer(data, content_type, model, input_schema):
        try:
            return answer(data, content_type or scoring_server.CONTENT_TYPE_JSON, model, input_schema)
        except Refused:
            raise
        except Exception:
            raise Refused(EXPECTED) from None

    return guarded_answer


def read_image(value: object) -> np.ndarray:
    """Return the image that a request holds. Raises InputError that says what is wrong with it."""
    if isinstance(value, str):
        try:
            return png.decode(base64.b64decode(value, validate=True), "the file")
        except ValueError as error:  # also of binascii
            raise InputError(f"neither base64 of a PNG nor an array ({error})") from None
    try:
        image = np.asarray(value)
    except ValueError as error:
        raise InputError(f"lists of different lengths ({error})") from None
    if image.dtype.kind not in "uif":
        raise InputError(f"an array of {image.dtype}; an image must be numbers")
    # JSON has no uint8; the range of the dtype matters only if `preprocess.percentiles` is null.
    if image.dtype.kind == "i" and image.size and image.min() >= 0 and image.max() < 2**16:
        return image.astype(np.uint8 if image.max() < 2**8 else np.uint16)
    return image


mlflow.models.set_model(Nuclei())
