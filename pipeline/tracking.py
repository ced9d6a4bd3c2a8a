"""The only module that knows MLflow: it mirrors files to one run for each trained model.

Files come first. Whatever MLflow does (server down, slow, full), a stage goes on and its results stand in reports/ and
models/; one warning says what is missing. A run is found again by the model's digest and the parameters, so train,
evaluate and visualize see the same run, also when DVC took some stages from its cache. A run that is not there, on
another server or after mlflow.db was deleted, is made again from the files.
"""

import functools
import hashlib
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import filelock
import numpy as np
import pandas as pd

# Two tries of ten seconds, not seven of two minutes: a dead server must not hold up a training.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from pipeline import dataset, model_file
from pipeline.params import Params, flatten

EXPERIMENT = "nuclei-unet"
STORE = Path("mlflow.db")  # where MLFLOW_TRACKING_URI does not say otherwise
HISTORY = Path("reports/history.csv")
SECTIONS = ("download", "preprocess", "train", "evaluate")  # those that shape a run's numbers

for name in ("mlflow", "alembic", "mlflow.keras", "mlflow.store.db.utils"):
    logging.getLogger(name).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="mlflow")


def forgiving(method: Callable) -> Callable:
    """Turn the first exception of a Tracker's methods into one warning; after it they do nothing."""

    @functools.wraps(method)
    def call(self, *arguments):
        if self.broken:
            return
        try:
            method(self, *arguments)
        except Exception as error:  # MLflow raises its own, those of requests, SQLAlchemy, boto ...
            self.broken = True
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
            print(f"warning: MLflow cannot be written to: {reason}", file=sys.stderr)
            print("warning: going on without it; results are in reports/ and models/", file=sys.stderr)

    return call


class Tracker:
    """One run, written to from one stage; after the first failure it only keeps quiet."""

    def __init__(self):
        self.broken = False
        self.run_id: str | None = None
        self._connect()

    @forgiving
    def _connect(self) -> None:
        mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{STORE.absolute()}")
        self.client = mlflow.MlflowClient()
        self.experiment_id = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)

    def _experiment(self, name: str) -> str:
        uri = mlflow.get_tracking_uri()
        store = Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None
        # Two processes that create the database at once break each other's tables.
        Path(".locks").mkdir(exist_ok=True)
        with filelock.FileLock(".locks/mlflow.lock"):
            if found := self.client.get_experiment_by_name(name):
                return found.experiment_id
            artifacts = (store.parent / "mlruns").as_uri() if store else None
            return self.client.create_experiment(name, artifact_location=artifacts)

    @forgiving
    def start(self, settings: Params, tags: dict[str, str]) -> None:
        """Start a new run with all parameters, what is known of the code, and the data set as input."""
        tags = _code_tags() | {"params_sha256": _params_digest(settings)} | tags
        name = f"{settings.download.source}-{time.strftime('%Y%m%d-%H%M%S')}"
        self.run_id = self.client.create_run(self.experiment_id, run_name=name).info.run_id
        self.client.log_batch(
            self.run_id,
            params=[Param(key, str(value)) for key, value in flatten(settings).items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        manifest = dataset.read_manifest()
        digest = hashlib.sha256((dataset.FOLDER / "manifest.csv").read_bytes()).hexdigest()[:16]
        data = mlflow.data.from_pandas(
            manifest, source=str(dataset.FOLDER), name=settings.download.source, digest=digest
        )
        self._with_active_run(lambda: mlflow.log_input(data, context="training"))

    @forgiving
    def find(self, settings: Params) -> None:
        """Find the run of the model in models/ and these parameters, or make it again from the files."""
        digest = _file_digest(model_file.MODEL)
        found = self.client.search_runs(
            [self.experiment_id],
            f"tags.model_sha256 = '{digest}' and tags.params_sha256 = '{_params_digest(settings)}'",
            max_results=1,
        )
        if found:
            self.run_id = found[0].info.run_id
            return
        self.start(settings, {"rebuilt_from_files": "true"})
        for row in pd.read_csv(HISTORY).to_dict("records"):
            self.log_epoch(int(row.pop("epoch")), row)
        self.finish_training()

    def log_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Log one epoch's losses and metrics; the step is the epoch."""
        self.log_metrics(metrics, epoch)

    @forgiving
    def log_metrics(self, metrics: dict[str, float], step: int = 0) -> None:
        """Log metrics by name."""
        now = int(time.time() * 1000)
        self.client.log_batch(self.run_id, metrics=[Metric(k, v, now, step) for k, v in metrics.items()])

    @forgiving
    def log_files(self, *paths: Path) -> None:
        """Log files and folders as artifacts under their own names."""
        for path in paths:
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), path.name)
            else:
                self.client.log_artifact(self.run_id, str(path))

    @forgiving
    def set_tag(self, key: str, value: str) -> None:
        """Set one tag."""
        self.client.set_tag(self.run_id, key, value)

    @forgiving
    def finish_training(self) -> None:
        """Log the finished model and its history from their files, and close the run."""
        self.client.log_artifact(self.run_id, str(HISTORY))
        self._with_active_run(_log_model)
        # Last: from here on the other stages find this run.
        self.client.set_tag(self.run_id, "model_sha256", _file_digest(model_file.MODEL))
        self.client.set_terminated(self.run_id, "FINISHED")

    @forgiving
    def fail(self) -> None:
        """Close the run as failed."""
        self.client.set_terminated(self.run_id, "FAILED")

    def _with_active_run(self, action: Callable[[], object]) -> None:
        """Call what only MLflow's fluent API offers; the run's status stays as it was."""
        status = self.client.get_run(self.run_id).info.status
        with mlflow.start_run(run_id=self.run_id):
            action()
        self.client.update_run(self.run_id, status=status)


@contextmanager
def training_run(settings: Params, precision: str) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Give a training its run: yields `log_epoch(epoch, metrics)`; at the end the model's files are logged.

    The files must be whole when the block ends. If it raises, the run is closed as failed.
    """
    tracker = Tracker()
    tracker.start(settings, {"precision": precision})
    started = time.monotonic()
    try:
        yield tracker.log_epoch
    except BaseException:
        tracker.fail()
        raise
    tracker.set_tag("seconds.train", f"{time.monotonic() - started:.0f}")
    tracker.finish_training()


def log_stage(settings: Params, stage: str, seconds: float, metrics: dict[str, float], *files: Path) -> None:
    """Add a later stage's metrics, files and time to the run of the model in models/."""
    tracker = Tracker()
    tracker.find(settings)
    tracker.log_metrics(metrics)
    tracker.log_files(*files)
    tracker.set_tag(f"seconds.{stage}", f"{seconds:.0f}")


def _log_model() -> None:
    model = model_file.load()
    channels = model.input_shape[-1]
    pixels = Schema([TensorSpec(np.dtype("float32"), (-1, -1, -1, channels), "image")])
    maps = Schema([TensorSpec(np.dtype("float32"), (-1, -1, -1, 1), name) for name in model.output_names])
    mlflow.keras.log_model(
        model,
        name="model",
        signature=ModelSignature(inputs=pixels, outputs=maps),
        # Named, since MLflow would find them out by loading the model in a fresh process: 20 s.
        pip_requirements=[f"{package}=={version(package)}" for package in ("keras", "tensorflow", "numpy")],
    )


def _code_tags() -> dict[str, str]:
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    # What stages write themselves says nothing about the code.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports", ":!dvc.lock")
    dirty = str(bool(changed)).lower()
    return {"git_commit": commit, "git_branch": _git("rev-parse", "--abbrev-ref", "HEAD"), "git_dirty": dirty}


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _params_digest(settings: Params) -> str:
    values = {key: value for key, value in flatten(settings).items() if key.split(".")[0] in SECTIONS}
    return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
