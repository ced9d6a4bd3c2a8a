"""Send to MLflow what it lacks: `make sync`, or `python -m pipeline.tools.sync`.

Use it if MLflow does not have the run (mlflow.db deleted, another server) or not all of it (the server was down).
Sends parameters, curves, model, scores, figures and report from models/ and reports/.
"""

import os

from pipeline import params, stage
from pipeline.tracking import sync


def main() -> None:
    """Send everything."""
    # No training waits for this, so a slow server may take longer.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    settings = params.load()
    sync.sync(settings)
    print("MLflow has the current run")


if __name__ == "__main__":
    stage.run(main)
