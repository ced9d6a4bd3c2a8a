"""Send to MLflow what it lacks: `make sync`, or `python -m pipeline.tools.sync`.

Use it if MLflow does not have the run (mlflow.db deleted, another server) or not all of it (the server was down).
Sends parameters, curves, model, scores, figures and report from models/ and reports/.
"""

import os

# No training waits for this, so a slow server may take longer.
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
        raise InputError("MLflow did not take everything; check MLFLOW_TRACKING_URI and run this again")
    print("MLflow has the current run")


if __name__ == "__main__":
    stage.run(main)
