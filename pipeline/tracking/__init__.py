"""The mirror of runs in MLflow; the only part of the pipeline that imports mlflow."""

import logging
import os
import warnings

# Read by mlflow's import. One try of ten seconds, not seven of two minutes: a dead server must not hold up a stage.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow  # noqa: F401  (it sets up its loggers, which the next lines silence)

for name in ("mlflow", "alembic", "mlflow.keras", "mlflow.store.db.utils"):
    logging.getLogger(name).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="mlflow")
