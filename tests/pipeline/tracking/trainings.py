"""Trainings as the mirror sees them: no network learns."""

from pathlib import Path

import keras
import mlflow
import pandas as pd

from nuclei_unet.network import keras_file, unet
from pipeline import layout, params
from pipeline.report.scores import DECISIVE
from pipeline.tracking.mirror import log_stage, training_run
from tests import PARAMS
from tests.metadata import metadata_of


def write_results(settings, seed=1):
    keras.utils.set_random_seed(seed)
    small = settings.train.model.model_copy(update={"filters": (2, 4), "dropout": (0.0, 0.0)})
    metadata = metadata_of(settings, small, settings.train.targets)
    keras_file.save(unet.build(1, settings.train.targets, small), layout.TRAINED, metadata)
    evaluated = metadata.model_copy(update={"predict": settings.evaluate})
    keras_file.copy_with_metadata(layout.TRAINED, layout.MODEL, evaluated)
    pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0]}).to_csv("reports/history.csv", index=False)
    pd.DataFrame({"image_id": ["a"], "dsb_score": [0.5]}).to_csv("reports/per_image.csv", index=False)


def small():
    """Write and return the parameters of the model that `write_results` makes."""
    values = {"train.model.encoder": "none", "train.model.filters": [2, 4], "train.model.dropout": [0, 0]}
    Path("params.yaml").write_text(params.override(PARAMS.read_text(), values))
    return params.load()


def train(settings, key="train-1"):
    with training_run(settings, "float32", key) as log:
        log.epoch(1, {"loss": 2.0})
        log.epoch(2, {"loss": 1.0})
        write_results(settings)


def client_of(store):
    # The full path: MLflow keeps one connection for each address, whatever the working directory.
    return mlflow.MlflowClient(f"sqlite:///{Path(store).absolute()}")


def scored(settings, validation, seed):
    """Train and evaluate a model; return the version of the registered model."""
    with training_run(settings, "float32", f"train-{seed}") as log:
        log.epoch(1, {"loss": 2.0})
        write_results(settings, seed)
    assert log_stage(settings, {DECISIVE: validation, "test/instance/dsb_score": 0.4}, [])
    client = client_of("mlflow.db")
    return client, max(client.search_model_versions("name = 'nuclei-unet'"), key=lambda v: int(v.version))
