"""A small project whose runs MLflow keeps."""

import mlflow
import pandas as pd
import pytest

from pipeline.dataset import processed
from tests.pipeline.tracking.trainings import small


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The data set of a small project, in an empty folder that is made the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_NAME", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    for folder in ("data/processed", "models", "reports"):
        (tmp_path / folder).mkdir(parents=True)
    row = ("a", "train", "grey-tissue", 0, 8, 8, 1)
    pd.DataFrame([row], columns=processed.MANIFEST_COLUMNS).to_csv("data/processed/manifest.csv", index=False)
    yield small()
    mlflow.set_tracking_uri(None)
