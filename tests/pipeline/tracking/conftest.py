"""The files that tracking mirrors."""

import mlflow
import pandas as pd
import pytest

from pipeline import params
from pipeline.dataset import processed


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The files that tracking mirrors, in an empty folder that is made the working directory."""
    settings = params.load()
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_NAME", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    for folder in ("data/processed", "models", "reports"):
        (tmp_path / folder).mkdir(parents=True)
    row = ("a", "train", "grey-tissue", 0, 8, 8, 1)
    pd.DataFrame([row], columns=processed.MANIFEST_COLUMNS).to_csv("data/processed/manifest.csv", index=False)
    yield settings
    mlflow.set_tracking_uri(None)
