"""Bring MLflow up to the files: `make sync`, or `python -m pipeline.tools.sync`.

For a run that is not there (mlflow.db deleted, another server) or that a dead server did not get all of: parameters,
curves, model, scores, figures and report as they lie in models/ and reports/.
"""

import os

# No training waits for this: a slow server gets its time.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")

from nuclei_unet.errors import InputError
from pipeline import layout, params, stage
from pipeline.report.results import read_json
from pipeline.report.scores import flat_metrics
from pipeline.tracking import mirror


def main() -> None:
    """Send everything."""
    settings = params.load()
    files = (*layout.TABLES, *layout.PAGES)
    for path in (layout.TRAINED, layout.MODEL, layout.HISTORY, *files):
        if not path.exists():
            raise InputError(f"{path}: no such file; run `dvc repro` or `dvc pull`")
    if not mirror.log_stage(settings, flat_metrics(read_json(layout.SCORES_FILE, "evaluate")), files):
        raise InputError("MLflow did not take everything; look at MLFLOW_TRACKING_URI and run this again")
    print("MLflow has the current run")


if __name__ == "__main__":
    stage.run(main)
