"""The only module that knows MLflow: it mirrors files to one run for each trained model.

Files come first. Whatever MLflow does (server down, slow, full), a stage goes on and its results stand in reports/ and
models/; one warning says what is missing, and what could not be sent is sent as soon as a later epoch, stage or
`make sync` gets through. A run is found again by the model's digest and the parameters, so train, evaluate and
visualize see the same run, also when DVC took some stages from its cache. A training that was killed goes on in its
run. A run that is not there, on another server or after mlflow.db was deleted, is made again from the files.
"""

import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import filelock
import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, RunTag

from nuclei_unet.network import model_file
from pipeline import machine
from pipeline.dataset import processed as dataset
from pipeline.params import Params, flatten
from pipeline.tracking.machine_use import MachineUse
from pipeline.tracking.models import _log_model, _log_served
from pipeline.tracking.names import SERVED, _code_tags, _description, _params_digest, _run_name, _stage_tags, _view
from pipeline.tracking.store import EXPERIMENT, VIEW_TAG, _project, store

HISTORY = Path("reports/history.csv")
PER_IMAGE = Path("reports/per_image.csv")
CHAMPION_SCORE = "validation/instance/dsb_score"
PICTURE = "image - truth - prediction"
EXAMPLES = "figures/examples.png"  # that the description shows
NOTE = "mlflow.note.content"  # MLflow's tag for the description
UNFINISHED = Path(".resume/mlflow.json")  # the run of a training that MLflow does not have all of yet
TRIES = 5  # that may fail in one stage: at ten seconds each, less than a minute
PAUSE_SECONDS = 60  # without a try after one that failed
METRICS_A_CALL = 1000  # the most that MLflow takes


def forgiving(method: Callable) -> Callable:
    """Let a Tracker's method fail: the first time with a warning, then silently, in the end without trying."""

    @functools.wraps(method)
    def call(self, *arguments) -> bool:
        if self.failures == TRIES or time.monotonic() < self.next_try:
            return False
        try:
            method(self, *arguments)
        except Exception as error:  # MLflow raises its own, those of requests, SQLAlchemy, boto ...
            if not self.failures:
                reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
                print(f"warning: MLflow cannot be written to: {reason}", file=sys.stderr)
                print("warning: going on without it; results are in reports/ and models/", file=sys.stderr)
            self.failures += 1
            self.next_try = time.monotonic() + PAUSE_SECONDS
            return False
        return True

    return call


class Tracker:
    """One run, written to from one stage. Methods say whether MLflow took it (True), and do not raise."""

    def __init__(self, settings: Params):
        self.settings = settings
        self.failures, self.next_try = 0, 0.0
        self.run_id: str | None = None
        self._key, self._tags, self._described = "", {}, False
        self._waiting: list[Metric] = []
        self._pictures: list[tuple[int, np.ndarray]] = []
        self._known: set[int] = set()  # epochs that the run has already

    def start(self, key: str, tags: dict[str, str]) -> bool:
        """Go on in the run of the training named `key` if it was stopped before its end, or start a new one."""
        self._key, self._tags = key, tags
        return self._send()

    @forgiving
    def find(self) -> None:
        """Find the run of the model in models/ and these parameters, or make it, or what it lacks, from the files."""
        self._connect()
        digest = _file_digest(model_file.MODEL)
        found = self.client.search_runs(
            [self.experiment_id],
            f"tags.model_sha256 = '{digest}' and tags.params_sha256 = '{_params_digest(self.settings)}'",
            max_results=1,
        )
        if found:
            self.run_id = found[0].info.run_id
            return
        known = _unfinished()
        self._key = known["key"] if known.get("model") == digest else ""
        self._tags = {} if self._key else {"rebuilt_from_files": "true"}
        for row in pd.read_csv(HISTORY).to_dict("records"):
            self._keep(int(row.pop("epoch")), row)
        self._finish()

    def log_epoch(self, epoch: int, metrics: dict[str, float]) -> bool:
        """Log one epoch's losses and metrics, the step is the epoch; those that failed before go along."""
        self._keep(epoch, metrics)
        return self._send()

    def log_picture(self, epoch: int, pixels: np.ndarray) -> bool:
        """Log a picture of the network's view after an epoch, uint8 (H, W, 3); those that failed before go along."""
        self._pictures.append((epoch, pixels))
        return self._send()

    @forgiving
    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Log the metrics that the run does not have with this value."""
        has = self.client.get_run(self.run_id).data.metrics
        now = int(time.time() * 1000)
        self.client.log_batch(
            self.run_id, metrics=[Metric(k, v, now, 0) for k, v in metrics.items() if has.get(k) != v]
        )

    @forgiving
    def log_scores(self, metrics: dict[str, float], per_image: Path) -> None:
        """Log scores, the table of all images, and a description of the run that shows them."""
        # In the form of MlflowClient.log_table, which would add to a table that is there rather than replace it.
        images = pd.read_csv(per_image, dtype={"image_id": str}).to_json(orient="split", index=False)
        self.client.log_dict(self.run_id, json.loads(images), "per_image.json")
        self.client.set_tag(self.run_id, "mlflow.loggedArtifacts", '[{"path": "per_image.json", "type": "table"}]')
        self._note(_description(self.settings, metrics))
        for key, value in _stage_tags().items():
            self.client.set_tag(self.run_id, key, value)

    @forgiving
    def register(self, metrics: dict[str, float]) -> None:
        """Register the model with its scores, once; make it the champion if it is better than that by the margin."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name, description="U-Net that finds cell nuclei, ready to serve")
        version = next(iter(self.client.search_model_versions(f"name = '{name}' and run_id = '{self.run_id}'")), None)
        if version is None:
            self._with_active_run(_log_served)
            (logged,) = (m for m in self.client.search_logged_models([self.experiment_id]) if m.name == SERVED
                         and m.source_run_id == self.run_id)  # fmt: skip
            source = f"models:/{logged.model_id}"
            # A server takes such a source only with the id beside it; a database would do without.
            version = self.client.create_model_version(name, source, self.run_id, model_id=logged.model_id)
        score = metrics[CHAMPION_SCORE]
        tags = {"validation_dsb_score": score, "test_dsb_score": metrics["test/instance/dsb_score"]}
        run = self.client.get_run(self.run_id)
        tags |= {key: value for key, value in run.data.tags.items() if key.startswith("git_")}
        for key, value in tags.items():
            self.client.set_model_version_tag(name, version.version, key, str(value))
        champion, reason = self._champion(name, score, version.version)
        if champion:
            self.client.set_registered_model_alias(name, "champion", version.version)
        self.client.set_model_version_tag(name, version.version, "champion", reason)
        self.client.set_tag(self.run_id, "champion", reason)

    def _champion(self, name: str, score: float, version: str) -> tuple[bool, str]:
        """Say whether a version with this validation score becomes the champion, and why."""
        margin = self.settings.track.champion_margin
        try:
            holder = self.client.get_model_version_by_alias(name, "champion")
        except mlflow.MlflowException:
            return True, f"yes: the first one, {score:.4f}"
        if str(holder.version) == str(version):
            return False, f"yes: is it already, {score:.4f}"
        before = float(holder.tags["validation_dsb_score"])
        if score > before + margin:
            return True, f"yes: {score:.4f} is more than {before:.4f} of version {holder.version} by over {margin}"
        return False, f"no: {score:.4f} is not more than {before:.4f} of version {holder.version} by over {margin}"

    @forgiving
    def log_files(self, *paths: Path) -> None:
        """Log files and folders as artifacts under their own names."""
        for path in paths:
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), path.name)
                self._note(self.client.get_run(self.run_id).data.tags.get(NOTE, ""))
            else:
                self.client.log_artifact(self.run_id, str(path))

    @forgiving
    def set_tag(self, key: str, value: str) -> None:
        """Set one tag."""
        self.client.set_tag(self.run_id, key, value)

    def finish_training(self, tags: dict[str, str]) -> bool:
        """Log the finished model and its history from their files, and close the run."""
        if self.run_id:
            # If MLflow is away just now, a later stage finds the run here.
            UNFINISHED.write_text(json.dumps(_unfinished() | {"model": _file_digest(model_file.MODEL)}))
        self.next_try = 0.0
        return self._try_finish(tags)

    @forgiving
    def stop(self, status: str) -> None:
        """Close the run as FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)

    def _connect(self) -> None:
        mlflow.set_tracking_uri(store())
        self.client = mlflow.MlflowClient()
        self.experiment_id = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)

    def _experiment(self, name: str) -> str:
        uri = mlflow.get_tracking_uri()
        database = Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None
        # Two processes that create the database at once break each other's tables.
        locks = _project() / ".locks"
        locks.mkdir(exist_ok=True)
        with filelock.FileLock(locks / "mlflow.lock"):
            found = self.client.get_experiment_by_name(name)
            if found and VIEW_TAG not in found.tags:
                self.client.set_experiment_tag(found.experiment_id, VIEW_TAG, _view())
            if found:
                return found.experiment_id
            artifacts = (database.parent / "mlruns").as_uri() if database else None
            # The UI opens in its mode for training, not the one for language models.
            tags = {"mlflow.experimentKind": "custom_model_development", VIEW_TAG: _view()}
            return self.client.create_experiment(name, artifact_location=artifacts, tags=tags)

    def _open(self) -> None:
        """Make the run, or find the one to go on in. Each part may fail and be called again."""
        known = _unfinished()
        if not (self._key and self._key == known.get("key") and self._continue(known["run_id"])):
            name = _run_name(self.settings)
            self.run_id = self.client.create_run(self.experiment_id, run_name=name).info.run_id
            if self._key:
                UNFINISHED.parent.mkdir(exist_ok=True)
                UNFINISHED.write_text(json.dumps({"key": self._key, "run_id": self.run_id}))

    def _continue(self, run_id: str) -> bool:
        """Take up a run of an earlier process, if it is on this server."""
        try:
            run = self.client.get_run(run_id)
        except mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        if run.info.lifecycle_stage != "active" or run.info.experiment_id != self.experiment_id:
            return False
        self.client.update_run(run_id, status="RUNNING")
        self._known = {metric.step for metric in self.client.get_metric_history(run_id, "loss")}
        self.run_id = run_id
        return True

    def _describe(self) -> None:
        """Log all parameters, what is known of the code, and the data set as input."""
        tags = _code_tags() | _stage_tags() | {"params_sha256": _params_digest(self.settings)} | self._tags
        self.client.log_batch(
            self.run_id,
            params=[Param(key, str(value)) for key, value in flatten(self.settings).items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        manifest = dataset.read_manifest()
        digest = hashlib.sha256((dataset.FOLDER / "manifest.csv").read_bytes()).hexdigest()[:16]
        data = mlflow.data.from_pandas(
            manifest, source=str(dataset.FOLDER), name=self.settings.download.source, digest=digest
        )
        self._with_active_run(lambda: mlflow.log_input(data, context="training"))
        self._described = True

    def _note(self, text: str) -> None:
        """Make the text the run's description, with the picture of examples once the run has it."""
        picture = f"![examples](get-artifact?path={quote(EXAMPLES, safe='')}&run_uuid={self.run_id})"
        files = self.client.list_artifacts(self.run_id, str(Path(EXAMPLES).parent))
        if picture not in text and any(file.path == EXAMPLES for file in files):
            text = f"{text}\n\n{picture}"
        self.client.set_tag(self.run_id, NOTE, text)

    def _keep(self, epoch: int, metrics: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, epoch) for name, value in metrics.items()]

    @forgiving
    def _send(self) -> None:
        self._flush()

    @forgiving
    def _try_finish(self, tags: dict[str, str]) -> None:
        self._finish()
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, value)

    def _flush(self) -> None:
        """Send the epochs that wait, after all that has to come first and was not done or failed."""
        if not self.run_id:
            self._connect()
            self._open()
        if not self._described:
            self._describe()
        metrics = [metric for metric in self._waiting if metric.step not in self._known]
        for first in range(0, len(metrics), METRICS_A_CALL):
            self.client.log_batch(self.run_id, metrics=metrics[first : first + METRICS_A_CALL])
        self._waiting = []
        while self._pictures:
            epoch, pixels = self._pictures[0]
            self.client.log_image(self.run_id, pixels, key=PICTURE, step=epoch)
            self._pictures.pop(0)

    def _finish(self) -> None:
        self._flush()
        self.client.log_artifact(self.run_id, str(HISTORY))
        self._with_active_run(_log_model)
        # Last: from here on the other stages find this run.
        self.client.set_tag(self.run_id, "model_sha256", _file_digest(model_file.MODEL))
        self.client.set_terminated(self.run_id, "FINISHED")
        UNFINISHED.unlink(missing_ok=True)

    def _with_active_run(self, action: Callable[[], object]) -> None:
        """Call what only MLflow's fluent API offers; the run's status stays as it was."""
        status = self.client.get_run(self.run_id).info.status
        with mlflow.start_run(run_id=self.run_id):
            action()
        self.client.update_run(self.run_id, status=status)


class TrainingLog:
    """What a training tells its run: epochs, and pictures. Adds how fast it went, and what it asked of the machine."""

    def __init__(self, tracker: Tracker, crops: int):
        self.tracker, self.crops, self.last = tracker, crops, time.monotonic()
        self.machine = MachineUse()

    def epoch(self, epoch: int, metrics: dict[str, float]) -> bool:
        """Log an epoch's losses and metrics; say whether MLflow took them."""
        seconds, self.last = time.monotonic() - self.last, time.monotonic()
        # Epochs of an earlier process come all at once.
        more = {"crops_per_second": self.crops / seconds} | self.machine.means() if seconds > 0.2 else {}
        return self.tracker.log_epoch(epoch, metrics | more)

    def picture(self, epoch: int, pixels: np.ndarray) -> bool:
        """Log a picture, uint8 (H, W, 3), of what the network sees after an epoch; say whether MLflow took it."""
        return self.tracker.log_picture(epoch, pixels)


@contextmanager
def training_run(settings: Params, precision: str, key: str) -> Iterator[TrainingLog]:
    """Give a training its run: yields a log for epochs and pictures; at the end the model's files are logged.

    `key` names the training: another call with the same key, before the first one was finished, goes on in its run.
    The files must be whole when the block ends. If it raises, the run is closed as failed or killed.
    """
    tracker = Tracker(settings)
    tracker.start(key, {"precision": precision, "machine": machine.describe()})
    started = time.monotonic()
    train = settings.train
    images = int((dataset.read_manifest().split == "train").sum())
    log = TrainingLog(tracker, train.batch_size * (train.steps_per_epoch or -(-images // train.batch_size)))
    try:
        yield log
    except BaseException as error:
        tracker.stop("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    finally:
        log.machine.ended.set()
    seconds = time.monotonic() - started
    if tracker.finish_training({"seconds.train": f"{seconds:.0f}"}):
        tracker.log_metrics({"train_seconds": round(seconds)})


def log_stage(
    settings: Params, metrics: dict[str, float], files: Iterable[Path], stage: str = "", seconds: float = 0.0
) -> bool:
    """Add a later stage's metrics, files and time to the run of the model in models/; say whether MLflow took all."""
    tracker = Tracker(settings)
    return (
        tracker.find()
        and tracker.log_metrics(metrics)
        and (not metrics or tracker.log_scores(metrics, PER_IMAGE))
        and (CHAMPION_SCORE not in metrics or tracker.register(metrics))
        and tracker.log_files(*files)
        and (not stage or tracker.set_tag(f"seconds.{stage}", f"{seconds:.0f}"))
    )


def _unfinished() -> dict[str, str]:
    try:
        return json.loads(UNFINISHED.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
