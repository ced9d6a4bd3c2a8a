"""What all tests share: the committed parameters, TensorFlow set up once, no MLflow but their own."""

import sys

import pytest
from hypothesis import settings as hypothesis_settings

from pipeline import params
from tests import PARAMS, guests

# What these assert is shown in full when it fails, as in a test.
pytest.register_assert_rewrite("tests.cli", "tests.html", "tests.refusals", "tests.nuclei_unet", "tests.pipeline")
# The same examples in every run, however slow the machine is: a test that fails here fails everywhere.
hypothesis_settings.register_profile("same", derandomize=True, deadline=None)
hypothesis_settings.load_profile("same")


@pytest.fixture(autouse=True)
def own_tracking_store(tmp_path, monkeypatch):
    """Keep tests out of the user's MLflow, whatever the environment says."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return an empty folder, the current one during the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def settings():
    """Return all parameters, as committed."""
    return params.load(PARAMS)


@pytest.fixture(scope="session")
def guest():
    """Return a function that runs a script where other people's programs are installed; see `guests.run`."""
    guests.environment()
    return guests.run


def pytest_collection_finish():
    """Pin TensorFlow as training does, before its first operation in any test, if a test module imported it."""
    if "tensorflow" in sys.modules:
        from nuclei_unet.network import runtime

        runtime.configure(params.load(PARAMS).train.model_copy(update={"precision": "float32"}))
