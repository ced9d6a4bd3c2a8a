"""The only module that knows MLflow: it mirrors files to one run for each trained model.

Files come first. Whatever MLflow does (server down, slow, full), a stage goes on and its results stand in reports/ and
models/; one warning says what is missing, and what could not be sent is sent as soon as a later epoch, stage or
`make sync` gets through. A run is found again by the model's digest and the parameters, so train, evaluate and
visualize see the same run, also when DVC took some stages from its cache. A training that was killed goes on in its
run. A run that is not there, on another server or after mlflow.db was deleted, is made again from the files.
"""

import base64
import contextlib
import functools
import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import cv2
import filelock
import numpy as np
import pandas as pd

# One try of ten seconds, not seven of two minutes: a dead server must not hold up a training.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.models import ModelSignature
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType
from ruamel.yaml import YAML, YAMLError

from nuclei_unet.network import model_file
from pipeline import machine
from pipeline.dataset import processed as dataset
from pipeline.params import Params, first_of, flatten, flatten_mapping
from pipeline.stage import InputError

EXPERIMENT = "nuclei-unet"
STORE = "mlflow.db"  # in the project's folder, where MLFLOW_TRACKING_URI does not say otherwise
HISTORY = Path("reports/history.csv")
PER_IMAGE = Path("reports/per_image.csv")
SPLITS = ("validation", "test")
CHAMPION_SCORE = "validation/instance/dsb_score"
PICTURE = "image - truth - prediction"
EXAMPLES = "figures/examples.png"  # that the description shows
NOTE = "mlflow.note.content"  # MLflow's tag for the description
SERVED = "nuclei"  # the model as it is served, beside the one that Keras loads
UNFINISHED = Path(".resume/mlflow.json")  # the run of a training that MLflow does not have all of yet
TRIES = 5  # that may fail in one stage: at ten seconds each, less than a minute
PAUSE_SECONDS = 60  # without a try after one that failed
METRICS_A_CALL = 1000  # the most that MLflow takes
# Columns of the page of all runs, and their widths in px. MLflow keeps views that people share as tags like this one.
COLUMNS = {
    "attributes.`Run Name`": 380,
    "runDateAndNestInfo": 150,
    "metrics.`validation/instance/dsb_score`": 190,
    "metrics.`test/instance/dsb_score`": 155,
    "metrics.`validation/instance/ap50`": 165,
    "metrics.`test/instance/ap50`": 130,
    "metrics.`validation/pixel/iou`": 140,
    "metrics.`test/pixel/iou`": 110,
    "metrics.`train_seconds`": 115,
    "metrics.`crops_per_second`": 135,
}
VIEW = "scores"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
SECTIONS = ("download", "preprocess", "train", "evaluate")  # those that shape a run's numbers

for name in ("mlflow", "alembic", "mlflow.keras", "mlflow.store.db.utils"):
    logging.getLogger(name).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="mlflow")


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


class MachineUse:
    """Samples CPU, memory and NVIDIA GPUs in a thread that never waits for a server; MLflow's own monitor does."""

    def __init__(self, seconds: float = 5.0):
        self.monitors, self.lock, self.ended = [CPUMonitor()], threading.Lock(), threading.Event()
        # Without a GPU, or without nvidia-ml-py, it cannot be made.
        with contextlib.suppress(ImportError, RuntimeError):
            self.monitors.append(GPUMonitor())
        self.means()  # the first one says nothing: use is counted from the sample before
        threading.Thread(target=self._keep_sampling, args=(seconds,), daemon=True).start()

    def means(self) -> dict[str, float]:
        """Return the means since the last call, named as MLflow's tab for system metrics wants them."""
        self._sample()
        with self.lock:
            means = {f"system/{k}": v for m in self.monitors for k, v in m.aggregate_metrics().items()}
            for monitor in self.monitors:
                monitor.clear_metrics()
        return means

    def _keep_sampling(self, seconds: float) -> None:
        while not self.ended.wait(seconds):
            self._sample()

    def _sample(self) -> None:
        with self.lock:
            for monitor in self.monitors:
                monitor.collect_metrics()


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


def _run_name(settings: Params) -> str:
    """Say what tells the run from others: DVC's experiment, parameters that git's HEAD has otherwise; or the data."""
    try:
        committed = flatten_mapping(YAML(typ="safe", pure=True).load(_git("show", "HEAD:params.yaml")) or {})
    except (YAMLError, AttributeError):
        committed = {}
    values = {k: v for k, v in flatten(settings).items() if k.split(".")[0] in SECTIONS and k in committed}
    changed = {k: v for k, v in values.items() if v != _tuples(committed[k])}
    name = [os.environ.get("DVC_EXP_NAME"), *first_of(changed, 3)]
    return " ".join(filter(None, name)) or settings.download.source


def _tuples(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _stage_tags() -> dict[str, str]:
    """Return a digest of each stage's entry in dvc.lock, as far as the stages before this one have ended."""
    try:
        stages = YAML(typ="safe", pure=True).load(Path("dvc.lock").read_text())["stages"]
    except (OSError, YAMLError, TypeError, KeyError):
        return {}
    return {
        f"dvc.{name}": hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:12]
        for name, entry in stages.items()
    }


def _description(settings: Params, metrics: dict[str, float]) -> str:
    """Return the run's description in Markdown: its scores."""
    rows = [
        f"| {name} | " + " | ".join(f"{metrics.get(f'{split}/{key}', float('nan')):.3f}" for split in SPLITS) + " |"
        for name, key in (
            ("DSB score", "instance/dsb_score"),
            ("AP at IoU 0.50", "instance/ap50"),
            ("AP at IoU 0.75", "instance/ap75"),
            ("pixel IoU", "pixel/iou"),
        )
    ]
    table = "\n".join(["| | validation | test |", "|---|---|---|", *rows])
    return f"{_run_name(settings)}\n\n{table}\n\nArtifacts: `report.html`, `figures/`, `per_image.csv`, the model."


def _unfinished() -> dict[str, str]:
    try:
        return json.loads(UNFINISHED.read_text())
    except (FileNotFoundError, ValueError):
        return {}


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


def _log_served() -> None:
    packages = (
        *("keras", "tensorflow", "numpy", "opencv-python-headless", "scikit-image", "scipy", "pandas", "pydantic"),
        *("ruamel-yaml", "filelock", "tqdm", "mlflow"),
    )
    mlflow.pyfunc.log_model(
        name=SERVED,
        python_model=str(Path(__file__).with_name("serving.py")),
        artifacts={"model": str(model_file.MODEL), "params": "params.yaml"},
        code_paths=[str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "nuclei_unet")],
        signature=ModelSignature(
            inputs=Schema([ColSpec(AnyType(), "image")]),
            outputs=Schema([ColSpec("string", "labels"), ColSpec("long", "count"), ColSpec(AnyType(), "measurements")]),
        ),
        input_example=pd.DataFrame({"image": [base64.b64encode(_example()).decode()]}),
        pip_requirements=[f"{package}=={version(package)}" for package in packages],
    )


def _example() -> bytes:
    """Return a small image of two nuclei as PNG."""
    image = np.full((64, 64), 20, np.uint8)
    cv2.circle(image, (20, 24), 8, 180, -1)
    cv2.circle(image, (44, 40), 10, 140, -1)
    return cv2.imencode(".png", cv2.GaussianBlur(image, (0, 0), 1))[1].tobytes()


def _code_tags() -> dict[str, str]:
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    # What stages write themselves says nothing about the code.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports", ":!dvc.lock")
    dirty = str(bool(changed)).lower()
    return {
        "git_commit": commit,
        # Of the project: the copy in which an experiment works is on none.
        "git_branch": _git("-C", str(_project()), "branch", "--show-current") or "none",
        "git_dirty": dirty,
        # Of MLflow's own, for its columns.
        "mlflow.source.git.commit": commit,
        "mlflow.source.name": "dvc repro",
    }


def _git(*arguments: str) -> str:
    try:
        command = ["git", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _view() -> str:
    """Return the page of all runs with the columns that matter, as MLflow keeps a view that somebody shares."""
    return json.dumps(
        {
            "searchFilter": "",
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": [name for name in COLUMNS if name.startswith("metrics")],
            "columnOrder": list(COLUMNS),
            "columnWidths": COLUMNS,
        }
    )


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


def _params_digest(settings: Params) -> str:
    values = {key: value for key, value in flatten(settings).items() if key.split(".")[0] in SECTIONS}
    return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
