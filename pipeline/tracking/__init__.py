"""Runs in MLflow, as the files in models/ and reports/ have them; the only part of the pipeline that imports mlflow."""

import os

# The one variable that mlflow reads when it is imported; `store.client` sets all others.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
