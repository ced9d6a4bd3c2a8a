"""The model as MLflow serves it."""

import base64
import importlib
import json
import re
import struct
import sys
import threading
import time
from unittest.mock import Mock

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import uvicorn
from mlflow.pyfunc import scoring_server

from nuclei_unet.prediction import models
from nuclei_unet.prediction.segmenter import Segmenter
from pipeline.tracking import serving
from pipeline.tracking.models import example
from tests.pipeline.tracking.trainings import scored
from tests.refusals import refused


def test_the_served_model_takes_pngs_and_arrays(project):
    scored(project)
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
    # The command takes it by its address, too.
    opened = models.load("models:/nuclei-unet@champion")
    assert Segmenter(opened.network, opened.metadata)(rgb).shape == (17, 33)
    refused(r"models:/nuclei-unet@nobody: no such model in ", models.load, "models:/nuclei-unet@nobody")


@pytest.fixture
def server(project, monkeypatch):
    """Return a function that asks MLflow's own server, which runs in this process with a small model."""
    scored(project)
    # The model replaces it in the server's process.
    monkeypatch.setattr(scoring_server, "invocations", scoring_server.invocations)
    monkeypatch.setenv(scoring_server._SERVER_MODEL_PATH, "models:/nuclei-unet@champion")
    name = "mlflow.pyfunc.scoring_server.app"
    served = uvicorn.Server(uvicorn.Config(importlib.import_module(name).app, port=0, log_level="critical"))
    thread = threading.Thread(target=served.run)
    thread.start()
    while not served.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{served.servers[0].sockets[0].getsockname()[1]}/invocations"
    yield lambda body, kind="application/json": requests.post(address, body, headers={"Content-Type": kind})
    served.should_exit = True
    thread.join()
    del sys.modules[name]


def records(*images):
    return json.dumps({"dataframe_records": [{"image": image} for image in images]})


LARGE = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 30_000, 30_000, 8, 0, 0, 0, 0) + b"\0" * 8
BAD_IMAGES = (
    *((value, "neither base64 of a PNG nor an array") for value in ("SECRET", "é")),
    (base64.b64encode(b"GIF89a" + b"\0" * 40).decode(), "not a PNG"),
    (base64.b64encode(LARGE).decode(), "30000 x 30000 pixels"),
    ([[1, float("nan")], [2, 3]], "NaN"),
    ([[1, 2], [3]], "lists of different lengths"),
    ([["a", "b"]], "an image must be numbers"),
    *((value, "expected a grey or colour image") for value in ([], [[[[1]]]])),
)


def test_the_server_refuses_with_one_line(server):
    good = base64.b64encode(example()).decode()
    unreadable = (
        ("SECRET, no JSON",),
        ("",),
        ("[" * 10**5,),
        (json.dumps({"picture": "SECRET"}),),
        (json.dumps({"dataframe_records": [{"picture": "SECRET"}]}),),
        (json.dumps({"inputs": "SECRET"}),),
        ("image\nSECRET\n", "text/csv"),
        ("SECRET", "application/vnd.apache.parquet"),
    )
    answers = [(server(*request), "expected JSON: ") for request in unreadable]
    answers += [(server(records(good, value, good)), f"image 2 of 3: .*{said}") for value, said in BAD_IMAGES]
    for answer, start in answers:
        said = answer.json()["message"]
        assert answer.status_code == 400 and re.match(start, said) and "\n" not in said
        assert len(answer.text) < 400 and not any(word in answer.text for word in ("SECRET", "Traceback", ".py"))
    # Without a content type it is taken for JSON.
    for kind in ("application/json", None):
        assert server(records(good), kind).json()["predictions"][0]["count"] >= 0


def test_a_failure_of_the_server_itself_is_one_line_and_in_its_log(caplog):
    model = serving.Nuclei()
    model.segmenter = Mock(side_effect=RuntimeError("SECRET"))
    with pytest.raises(serving.Refused) as caught:
        model.predict(None, pd.DataFrame({"image": [[[1, 2], [3, 4]]]}))
    assert caught.value.message == "image 1 of 1: the server failed; its log says why"
    assert caught.value.get_http_status_code() == 500 and "SECRET" in caplog.text
