"""The model as MLflow serves it."""

import base64

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest

from nuclei_unet.errors import InputError
from nuclei_unet.prediction import models
from nuclei_unet.prediction.segmenter import Segmenter
from pipeline.tracking.models import example
from tests.pipeline.tracking.trainings import scored, small


def test_the_served_model_takes_pngs_and_arrays(project):
    scored(small(), 0.5, 1)
    model = mlflow.pyfunc.load_model("models:/nuclei-unet@champion")
    grey = np.zeros((40, 30))
    rgb = np.random.default_rng(0).integers(0, 255, (17, 33, 3))
    picture = base64.b64encode(example()).decode()
    found = model.predict(pd.DataFrame({"image": [picture, grey.tolist(), rgb.tolist(), (rgb / 255).tolist()]}))
    assert list(found.columns) == ["labels", "count", "measurements"]
    for row, shape in zip(found.itertuples(), ((64, 64), (40, 30), (17, 33), (17, 33)), strict=True):
        labels = cv2.imdecode(np.frombuffer(base64.b64decode(row.labels), np.uint8), cv2.IMREAD_UNCHANGED)
        assert labels.shape == shape and labels.max() == row.count == len(row.measurements)
    assert found["count"][1] == 0
    for wrong, match in (("no base64!", "neither base64 of a PNG nor an array"), ([[1, 2], [3]], "different lengths")):
        with pytest.raises(Exception, match=match):
            model.predict(pd.DataFrame({"image": [wrong]}))


def test_the_command_takes_a_registered_model_by_its_address(project):
    scored(small(), 0.5, 1)
    opened = models.load("models:/nuclei-unet@champion", precision="float32")
    served = mlflow.pyfunc.load_model("models:/nuclei-unet@champion").unwrap_python_model()
    image = np.random.default_rng(0).integers(0, 255, (40, 56), dtype=np.uint8)
    found = Segmenter(opened.network, opened.card)(image)
    assert served.segmenter.card.recipe == opened.card.recipe and found.shape == image.shape
    with pytest.raises(InputError, match=r"models:/nuclei-unet@nobody: no such model in "):
        models.load("models:/nuclei-unet@nobody")
