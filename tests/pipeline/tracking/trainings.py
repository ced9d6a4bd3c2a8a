"""Trainings as MLflow sees them: no network learns."""

import json
from pathlib import Path

import cv2
import keras
import mlflow
import numpy as np
import pandas as pd

from nuclei_unet.files import file_digest
from nuclei_unet.network import keras_file, onnx_file, unet
from pipeline import layout, params
from pipeline.tracking import sync
from pipeline.tracking.client import training_run
from tests import PARAMS
from tests.metadata import metadata_of


def small(seed=1):
    """Write and return the parameters of the model that `write_model` makes."""
    values = {"train.model.encoder": "none", "train.model.filters": [2, 4], "train.model.dropout": [0, 0]}
    Path("params.yaml").write_text(params.override(PARAMS.read_text(), values | {"train.seed": seed}))
    return params.load()


def write_model(settings):
    """Write what train writes."""
    keras.utils.set_random_seed(settings.train.seed)
    model = unet.build(1, settings.train.targets, settings.train.model)
    keras_file.save(model, layout.TRAINED, metadata_of(settings, settings.train.model, settings.train.targets))
    pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0]}).to_csv(layout.HISTORY, index=False)


def train(settings, key="train-1"):
    with training_run(settings, "float32", key) as log:
        log.epoch(1, {"loss": 2.0})
        log.epoch(2, {"loss": 1.0})
        write_model(settings)


def evaluate(settings, validation=0.5):
    """Write what evaluate writes, and tell MLflow; return whether that took it."""
    model, metadata = keras_file.load(layout.TRAINED)
    scores = {"n_images": 1, "instance": {"dsb_score": validation}, "pixel": {"iou": 0.8}}
    scores = {"validation": scores, "test": scores}
    metadata = metadata.but(predict=settings.evaluate, scores=scores, source=file_digest(layout.TRAINED))
    onnx_file.save(model, layout.MODEL, metadata)
    for path in layout.TABLES:
        path.write_text("{}")
    layout.SCORES_FILE.write_text(json.dumps(scores))
    pd.DataFrame({"image_id": ["a"], "dsb_score": [0.5]}).to_csv(layout.PER_IMAGE, index=False)
    return sync.after("evaluate", settings, 3.2)


def visualize(settings):
    """Write what visualize writes, and tell MLflow; return whether that took it."""
    layout.FIGURES.mkdir(exist_ok=True)
    cv2.imwrite(str(layout.FIGURES / "examples.png"), np.full((900, 1200, 3), 200, np.uint8))
    layout.REPORT.write_text("report")
    return sync.after("visualize", settings, 1.0)


def client_of(store):
    # The full path: MLflow keeps one connection for each address, whatever the working directory.
    return mlflow.MlflowClient(f"sqlite:///{Path(store).absolute()}")


def scored(settings, validation=0.5):
    """Train and evaluate a model; return a client, and the version of the registered model."""
    train(settings, f"train-{settings.train.seed}")
    assert evaluate(settings, validation)
    client = client_of("mlflow.db")
    return client, max(client.search_model_versions("name = 'nuclei-unet'"), key=lambda v: int(v.version))
