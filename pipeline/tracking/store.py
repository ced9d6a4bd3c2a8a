"""Where runs are kept, and the addresses of their pages."""

import os
from pathlib import Path

import mlflow

from nuclei_unet.errors import InputError

EXPERIMENT = "nuclei-unet"
VIEW = "scores"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"


STORE = "mlflow.db"  # in the project's folder, where MLFLOW_TRACKING_URI does not say otherwise


def store() -> str:
    """Return where runs are kept: MLFLOW_TRACKING_URI, or the project's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_project() / STORE}"


def pages(server: str) -> dict[str, str]:
    """Return experiment -> address of the page with the scores of its runs, for the projects that `store` has.

    Raises InputError if the store does not answer.
    """
    try:
        experiments = mlflow.MlflowClient(store()).search_experiments()
    except mlflow.MlflowException as error:
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise InputError(f"MLFLOW_TRACKING_URI: {store()} does not answer; correct or unset it ({reason})") from None
    with_view = (e for e in experiments if VIEW_TAG in e.tags)
    return {e.name: f"{server}/#/experiments/{e.experiment_id}/runs?viewStateShareKey={VIEW}" for e in with_view}


def _project() -> Path:
    """Return the project's folder, also from the copy of it in which `dvc exp run --temp` or a queue works."""
    folder = Path.cwd()
    copies = (path for path in folder.parents if path.parts[-3:] == (".dvc", "tmp", "exps"))
    return next((path.parents[2] for path in copies), folder)
