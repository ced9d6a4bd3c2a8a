"""Where runs are kept, and the addresses of their pages."""

import os
from pathlib import Path

import filelock
import mlflow
from sqlalchemy.engine import make_url

from nuclei_unet.errors import InputError
from pipeline import layout
from pipeline.tracking import names

VIEW = "scores"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"


def store(folder: Path = Path()) -> str:
    """Return where runs are kept, for a process in `folder`: MLFLOW_TRACKING_URI, or the project's own database."""
    path = layout.project() / layout.STORE
    # In such an address, SQLAlchemy cuts a path at `?` and decodes `%25`, but MLflow makes the folder as it is written
    # there. So no spelling of a path with these is right for both: it has to be left out.
    if set("?%") & set(str(path)):
        path = os.path.relpath(path, folder.resolve())
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{path}"


def experiment_name() -> str:
    """Return the name of the experiment, and of the registered model: MLFLOW_EXPERIMENT_NAME, or the project's."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or names.EXPERIMENT


def connect() -> tuple[mlflow.MlflowClient, str]:
    """Return a client of the store, and the id of the experiment, which is created if it is missing."""
    uri = store()
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    # Two processes that create the database at once break each other's tables.
    locks = layout.project() / layout.LOCKS
    locks.mkdir(exist_ok=True)
    with filelock.FileLock(locks / "mlflow.lock"):
        found = client.get_experiment_by_name(experiment_name())
        if not found:
            artifacts = None
            if uri.startswith("sqlite:///"):
                artifacts = (Path(make_url(uri).database).resolve().parent / "mlruns").as_uri()
            # The UI opens in its mode for training, not the one for language models.
            tags = {"mlflow.experimentKind": "custom_model_development", VIEW_TAG: names.view()}
            return client, client.create_experiment(experiment_name(), artifact_location=artifacts, tags=tags)
        if found.tags.get(VIEW_TAG) != names.view():
            client.set_experiment_tag(found.experiment_id, VIEW_TAG, names.view())
        return client, found.experiment_id


def pages(server: str) -> dict[str, str]:
    """Return experiment -> address of the page with the scores of its runs, for all experiments of this pipeline.

    Raises InputError if the store does not answer.
    """
    try:
        experiments = mlflow.MlflowClient(store()).search_experiments()
    except mlflow.MlflowException as error:
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise InputError(f"MLFLOW_TRACKING_URI: {store()} does not answer; correct or unset it ({reason})") from None
    # Without the workflow's type a new visitor lands in MLflow's mode for language models.
    query = f"viewStateShareKey={VIEW}&workflowType=machine_learning"
    with_view = (e for e in experiments if VIEW_TAG in e.tags)
    return {e.name: f"{server}/#/experiments/{e.experiment_id}/runs?{query}" for e in with_view}
