"""A small project whose runs MLflow keeps."""

import shutil

import mlflow
import pandas as pd
import pytest

from pipeline.dataset import processed
from tests.pipeline.tracking.trainings import small


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """Return MLflow's database without any run: its tables take seconds to make."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where it makes a folder for files
        mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def project(here, monkeypatch, empty_store):
    """The data set of a small project, in an empty folder that is made the working directory."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_NAME", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    for folder in ("data/processed", "models", "reports"):
        (here / folder).mkdir(parents=True)
    shutil.copy(empty_store, here)
    row = ("a", "train", "grey-tissue", 0, 8, 8, 1)
    pd.DataFrame([row], columns=processed.MANIFEST_COLUMNS).to_csv("data/processed/manifest.csv", index=False)
    yield small()
    mlflow.set_tracking_uri(None)
