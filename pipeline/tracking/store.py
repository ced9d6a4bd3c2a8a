"""Where runs are kept, how to reach them when that may fail, and the addresses of their pages."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import filelock
import mlflow
from sqlalchemy.engine import make_url

from nuclei_unet.errors import InputError
from pipeline import layout
from pipeline.tracking import names

VIEW = "scores"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
# One try of ten seconds, not seven of two minutes: a dead server must not hold up a stage.
VARIABLES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
PAUSE_SECONDS = 60  # to wait after the first failed call


class Attempts:
    """Calls MLflow, which may be away. The first failure prints a warning, later ones are silent.

    After a failure nothing is tried for a while, each time twice as long.
    """

    def __init__(self):
        self.failures, self.next_try = 0, 0.0

    def do(self, action: Callable[..., object], *arguments, at_once: bool = False) -> bool:
        """Call an action, unless it is too early (`at_once`: in any case); return whether it was done."""
        if time.monotonic() < self.next_try and not at_once:
            return False
        try:
            action(*arguments)
        except Exception as error:  # MLflow raises its own, those of requests, SQLAlchemy, boto ...
            if not self.failures:
                print(f"warning: MLflow cannot be written to: {reason(error)}", file=sys.stderr)
                print("warning: going on without it; results are in reports/ and models/", file=sys.stderr)
            self.next_try = time.monotonic() + PAUSE_SECONDS * 2**self.failures
            self.failures += 1
            return False
        return True


def reason(error: Exception) -> str:
    """Return the first line of what an error says, in at most 200 characters."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


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


def client() -> mlflow.MlflowClient:
    """Set up MLflow in this process, without its log lines; return a client of the store."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic", "mlflow.keras", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow")
    mlflow.set_tracking_uri(store())
    return mlflow.MlflowClient()


def connect() -> tuple[mlflow.MlflowClient, str]:
    """Return a client of the store, and the id of the experiment, which is created if it is missing."""
    connected = client()
    # Two processes that create the database at once break each other's tables.
    locks = layout.project() / layout.LOCKS
    locks.mkdir(exist_ok=True)
    with filelock.FileLock(locks / "mlflow.lock"):
        experiment = connected.get_experiment_by_name(experiment_name())
        if not experiment:
            artifacts = None
            if store().startswith("sqlite:///"):
                artifacts = (Path(make_url(store()).database).resolve().parent / "mlruns").as_uri()
            # The UI opens in its mode for training, not the one for language models.
            tags = {"mlflow.experimentKind": "custom_model_development", VIEW_TAG: names.view()}
            return connected, connected.create_experiment(experiment_name(), artifact_location=artifacts, tags=tags)
        if experiment.tags.get(VIEW_TAG) != names.view():
            connected.set_experiment_tag(experiment.experiment_id, VIEW_TAG, names.view())
        return connected, experiment.experiment_id


def pages(server: str) -> dict[str, str]:
    """Return experiment -> address of the page with the scores of its runs, for all experiments of this pipeline.

    Raises InputError if the store does not answer.
    """
    try:
        experiments = client().search_experiments()
    except mlflow.MlflowException as error:
        raise InputError(f"{store()}: MLflow does not answer there ({reason(error)})") from None
    # Without the workflow's type a new visitor lands in MLflow's mode for language models.
    query = f"viewStateShareKey={VIEW}&workflowType=machine_learning"
    with_view = (e for e in experiments if VIEW_TAG in e.tags)
    return {e.name: f"{server}/#/experiments/{e.experiment_id}/runs?{query}" for e in with_view}
