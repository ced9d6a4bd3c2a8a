"""The model as MLflow serves it."""

import base64

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest

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
