"""Bring MLflow up to the files: `make sync`, or `python -m pipeline.tools.sync`.

For a run that is not there (mlflow.db deleted, another server) or that a dead server did not get all of: parameters,
curves, model, scores, figures and report as they lie in models/ and reports/.
"""

import json
import os

from nuclei_unet.errors import InputError
from pipeline.report.scores import flat_metrics

# No training waits for this: a slow server gets its time.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")

from nuclei_unet.network import model_file
from pipeline import evaluate, params, stage, visualize
from pipeline.tracking import run as tracking


def main() -> None:
    """Send everything."""
    settings = params.load()
    files = (*evaluate.FILES, *visualize.FILES)
    for path in (model_file.MODEL, tracking.HISTORY, *files):
        if not path.exists():
            raise InputError(f"{path}: no such file; run `dvc repro` or `dvc pull`")
    scores = flat_metrics(json.loads((evaluate.REPORTS / "scores.json").read_text()))
    if not tracking.log_stage(settings, scores, files):
        raise InputError("MLflow did not take everything; look at MLFLOW_TRACKING_URI and run this again")
    print("MLflow has the current run")


if __name__ == "__main__":
    stage.run(main)
