"""Bring MLflow up to the files: `make sync`, or `python -m pipeline.sync`.

For a run that is not there (mlflow.db deleted, another server) or that a dead server did not get all of: parameters,
curves, model, scores, figures and report as they lie in models/ and reports/.
"""

import json

from pipeline import model_file, params, stage, tracking
from pipeline.evaluate import REPORTS, TABLES, flat_metrics
from pipeline.stage import InputError

FIGURES = (REPORTS / "figures", REPORTS / "report.html")


def main() -> None:
    """Send everything."""
    settings = params.load()
    files = [REPORTS / name for name in (*TABLES, "data_audit.json")]
    for path in (model_file.MODEL, tracking.HISTORY, *files, *FIGURES):
        if not path.exists():
            raise InputError(f"{path}: no such file; run `dvc repro` or `dvc pull`")
    scores = flat_metrics(json.loads((REPORTS / "metrics.json").read_text()))
    if not tracking.log_stage(settings, scores, [*files, *FIGURES]):
        raise InputError("MLflow did not take everything; look at MLFLOW_TRACKING_URI and run this again")
    print("MLflow has the current run")


if __name__ == "__main__":
    stage.run(main)
